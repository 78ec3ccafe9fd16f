"""Whether a config that somebody writes can be launched: said at once, with what to write instead."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from api.contract.launch import LaunchSpec
from api.contract.recipes.book import Recipe
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.keys import MisspeltError, check_spelling
from api.contract.recipes.paths import check_paths
from api.contract.recipes.resolve import resolve
from api.contract.settings import Settings
from api.http.recipes import Recipes
from api.http.requests import config_problem
from api.web.belonging import check_recipe
from api.web.errors import ApiError, InvalidError
from api.web.principal import Principal


class Launchable:
    """Looks at configs by the rules of this site."""

    def __init__(self, recipes: Recipes, settings: Settings) -> None:
        self._recipes = recipes
        self._site = settings.slurm
        self._folders = (*settings.models.folders, settings.model_cache)

    async def recipe(self, name: str, principal: Principal) -> Recipe:
        """Return the recipe of a new service.

        Raises `ApiError`: 404 saying what may be meant, 409 if it is broken, 403 if the caller may not launch it.
        """
        shown = name[:200]
        recipe = await self._recipes.find(
            name, f"Recipe {shown!r} not found.{(await self._recipes.book()).similar(shown)}"
        )
        check_recipe(principal, recipe.path)
        return recipe

    async def check(
        self, recipe: Recipe, config: dict[str, Any], before: Mapping[str, Any] = MappingProxyType({})
    ) -> LaunchSpec:
        """Return what would be launched. What a config had `before` is not looked at for slips.

        Raises `ApiError`: 400 for a key that is misspelt, 422 for a value.
        """
        try:
            check_spelling(recipe, await self._recipes.book(), config.keys() - before.keys())
            spec = resolve(recipe, config, replicas=None, site=self._site)
            if spec.paths and config != before:
                await asyncio.to_thread(check_paths, spec, config, self._folders, _is_here)
        except MisspeltError as error:
            raise ApiError(400, f"config.{error}") from None
        except ConfigError as error:
            raise InvalidError(config_problem(config, error.key, error.message)) from None
        return spec


def _is_here(path: str) -> bool:
    """Whether this host has the path; one that it may not look at is not known to be here."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False

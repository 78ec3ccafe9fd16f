"""The keys of a config: which have an effect, and which are plainly slips of the pen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from api.contract.recipes.book import Book, Recipe
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.resources import OLDER_SPELLINGS
from api.contract.recipes.schema import RecipeFile, ResourcesPart
from api.contract.recipes.update import UPDATE_KEYS
from api.contract.spelling import did_you_mean, misspelt

COMMON = frozenset(
    {
        "aliases",
        "applied_as",
        "environment",
        "environment_from",
        "parameters",
        "replicas",
        "resources",
        "restarted_at",
        "update",
        "volumes",
        *OLDER_SPELLINGS,
    }
)
"""Keys that mean something to every recipe."""

OF_OLDER_CLIENTS = frozenset({*OLDER_SPELLINGS, "max_model_len", "model", "replicas"})
"""Sent by older clients whatever the recipe: never refused."""

MOST_KEYS = 100


class MisspeltError(ConfigError):
    """A key is plainly a slip: it would have no effect, and what was meant neither."""


def check_spelling(recipe: Recipe, book: Book, keys: Iterable[str]) -> None:
    """Raise `MisspeltError` for a key of a config that another recipe of the kind has, or that is a slip for ours.

    Only what is written now is looked at, never what is stored: other keys without an effect are kept.
    """
    others = {
        name: other.path
        for other in book.recipes.values()
        if other.content.category == recipe.content.category
        for name in other.content.parameters
    }
    for key in _unknown(recipe.content, keys):
        if key in OF_OLDER_CLIENTS:
            continue
        meant = misspelt(key, known(recipe.content))
        if meant is not None:
            raise MisspeltError(key, f"{recipe.path} has no such key. Did you mean {meant}?")
        if key in others:
            what = f"{recipe.path} has no such parameter, {others[key]} has. Did you mean that recipe?"
            raise MisspeltError(key, f"{what} Else leave it out.")


def without_effect(content: RecipeFile, config: Mapping[str, Any]) -> Iterator[str]:
    """Say of which keys of a config nothing comes."""
    for key in _unknown(content, config):
        yield f"{key}: this recipe has no such key: it is kept, and has no effect.{did_you_mean(key, known(content))}"


def settable(content: RecipeFile) -> list[str]:
    """Return the dotted keys under which a service sets one value: parameters first, then what the job asks for."""
    of_the_job = [f"resources.{name}" for name in ResourcesPart.__struct_fields__]
    return [*content.parameters, "replicas", *of_the_job, *(f"update.{name}" for name in UPDATE_KEYS)]


def known(content: RecipeFile) -> frozenset[str]:
    """Return the keys that have an effect under a recipe."""
    return COMMON | content.parameters.keys()


def _unknown(content: RecipeFile, keys: Iterable[str]) -> list[str]:
    """Return keys that have none; not more than people would read, since each is compared with all that there are."""
    return sorted(set(keys) - known(content))[:MOST_KEYS]

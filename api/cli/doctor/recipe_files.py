"""What recipes name by path: images, what is bound, models. The nodes have to see it; this host most often does too."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property

from api.cli.doctor.check import CheckFailedError
from api.contract.recipes.book import Library, Recipe
from api.contract.settings import Settings

NAMED = 5
"""Files that are named; more are only counted."""


class RecipeFiles:
    """The files of all recipes that can be used, and what is wrong where some are missing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _wanted(self) -> Mapping[str, list[str]]:
        """Path -> what names it."""
        found: dict[str, list[str]] = {}
        book = Library(self._settings.recipes, self._settings.recipe).book()
        for recipe in book.recipes.values():
            for key, path in _named(recipe):
                found.setdefault(path, []).append(f"{key} of {recipe.path}")
        for key in ("volume_roots", "secret_roots"):
            for path in getattr(self._settings.slurm, key):
                found.setdefault(path, []).append(f"slurm.{key}")
        for path in self._settings.models.folders:
            found.setdefault(path, []).append("models.folders")
        return found

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths."""
        return tuple(self._wanted)

    @property
    def missing_here(self) -> tuple[str, ...]:
        """Return those that this user does not see on this host."""
        return tuple(path for path in self.paths if not os.access(path, os.R_OK))

    def judge(self, missing: Collection[str], where: str) -> str:
        """Say that all are there. Raises `CheckFailedError` where some are missing, or this user may not read them."""
        if not missing:
            return f"{len(self.paths)} are there"
        named = [f"{path} ({', '.join(self._wanted.get(path, ()))})" for path in missing][:NAMED]
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise CheckFailedError(
            f"not {where}: {'; '.join(named)}{more}",
            "Put it where all nodes see it under that path, for this user to read, or correct the path; "
            "`ai-factory recipes show` has it.",
        )


def _named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield key and path of what a recipe names on the nodes."""
    content = recipe.content
    model = content.parameters["model"].default if "model" in content.parameters else None
    for key, value in (
        ("image", content.image),
        *(("binds", bind.partition(":")[0]) for bind in content.binds),
        ("model", model),
    ):
        if isinstance(value, str) and value.startswith("/"):
            yield key, value

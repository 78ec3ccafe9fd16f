"""Whether the jobs of this site's recipes could start where they go, and whether what they name by path is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import groupby

from api.cli.doctor.check import Check, CheckFailedError, SkippedError, WarnedError
from api.cli.doctor.limits import JobLimits
from api.cli.doctor.partition_checks import SUBMIT, JobTarget
from api.cli.doctor.partitions import Partition
from api.cli.doctor.recipe_files import RecipeFiles
from api.contract.launch import Resources
from api.contract.recipes.book import Library, Recipe
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.resources import resolve_resources
from api.contract.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """Why jobs of a recipe would not start."""

    recipe: str
    asked: str
    """How much of it; "" where only Slurm knows."""
    what: str
    """The same for all recipes of which the same is to be said."""
    remedy: str


class RecipeChecks:
    """The checks, over one set of settings."""

    def __init__(self, destination: JobTarget, settings: Settings, files: RecipeFiles) -> None:
        self._to = destination
        self._settings = settings
        self._files = files

    def checks(self) -> list[Check]:
        """Return the checks in their order."""
        return [
            Check("recipes' files here", self._here, needs=("recipes",)),
            Check("recipes' resources", self._resources, needs=("recipes", SUBMIT)),
        ]

    def _here(self) -> str:
        try:
            return self._files.judge(self._files.missing_here, "on this host")
        except CheckFailedError as error:
            raise WarnedError(f"{error}. Jobs need it on the nodes", error.remedy) from error

    def _resources(self) -> str:
        """Ask for each recipe whether its jobs would start: of partition, QOS and account, then sbatch.

        Nothing is submitted.

        What the site has set up must; of a recipe that came along it may be that this cluster is not for it.
        """
        book = Library(self._settings.recipes, self._settings.recipe).book()
        found = [finding for recipe in book.recipes.values() if (finding := self._finding(recipe)) is not None]
        if not found:
            return f"the jobs of {len(book.recipes)} recipes would start"
        told, remedies = [], []
        used = self._settings.recipe
        of_ours = {one.what for one in found if one.recipe in used}
        found.sort(key=lambda one: (one.what not in of_ours, one.what, one.recipe not in used))
        for what, findings in groupby(found, key=lambda one: one.what):
            alike = list(findings)
            told.append(f"{what}: {', '.join(f'{one.recipe}{one.asked}' for one in alike)}")
            others = f" Likewise the other {len(alike) - 1}." if len(alike) > 1 and alike[0].asked else ""
            remedies.append(alike[0].remedy + others)
        kind = (
            CheckFailedError
            if any(one.recipe in used for one in found) or len(found) == len(book.recipes)
            else WarnedError
        )
        raise kind("; ".join(told), " ".join(remedies))

    def _finding(self, recipe: Recipe) -> _Finding | None:
        name = recipe.path
        try:
            asked = resolve_resources(recipe.content, {}, self._settings.slurm)
        except ConfigError as error:
            return _Finding(recipe=name, asked="", what=f"it can't be asked for: {error}", remedy="Correct the recipe.")
        for limits in self._limits(asked):
            for excess in limits.exceeded_by(asked):
                value = excess.most if excess.most.isdecimal() else f'"{excess.most}"'
                return _Finding(
                    recipe=name,
                    asked=f" ({excess.asked})",
                    what=f"{excess.of} allows {excess.most} {excess.unit}, and more is asked for",
                    remedy=f'Set resources.{excess.key} = {value} under [recipe."{name}"] in the configuration, or less'
                    f"{self._elsewhere(asked)}.",
                )
        try:
            self._to.slurm.try_out(asked)
        except CheckFailedError as error:
            return _Finding(recipe=name, asked="", what=str(error), remedy=error.remedy)
        return None

    def _limits(self, asked: Resources) -> Iterator[JobLimits]:
        """Yield what holds for a job: of several partitions none, since one is enough."""
        try:
            chosen = self._to.chosen(asked.partition)
        except SkippedError:
            return
        yield from self._limits_in(chosen[0] if len(chosen) == 1 else None, asked)

    def _limits_in(self, partition: Partition | None, asked: Resources) -> Iterator[JobLimits]:
        """Yield what holds in a partition. What a QOS says goes before what accounts say of the same."""
        if partition is not None:
            yield self._to.limits(partition)
        asker = self._to.asker(asked.account or "", asked.qos or "")
        stronger: list[JobLimits] = []
        for quality in self._to.qualities(partition, asker.qos):
            yield reduce(JobLimits.beneath, stronger, quality)
            stronger.append(quality)
        with contextlib.suppress(SkippedError, CheckFailedError):
            for account in self._to.association(asker.account):
                yield reduce(JobLimits.beneath, stronger, account)

    def _elsewhere(self, asked: Resources) -> str:
        """Return what other partition would take the job, as the end of a sentence; "" where none would."""
        asker = self._to.asker(asked.account or "", asked.qos or "")
        others = [
            one.name
            for one in self._to.partitions
            if not one.closed_to(asker)
            and not any(excess for limits in self._limits_in(one, asked) for excess in limits.exceeded_by(asked))
        ]
        return f", or slurm.partition to one of: {', '.join(others)}" if others else ""

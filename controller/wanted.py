"""What people want of a service, resolved: from its row, its recipe and this site's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from api.contract.identity import SERVICE_NAME
from api.contract.launch import LaunchSpec
from api.contract.recipes.book import Library
from api.contract.recipes.errors import ConfigError, printable
from api.contract.recipes.resolve import resolve
from api.contract.recipes.spec import decode_spec, digest
from api.contract.settings import SlurmSettings
from controller.core.desired import Desired, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRow:
    """A row of `services`, with the launch spec that was stored for its generation, if it still holds."""

    id: str
    name: str
    recipe_name: str
    config: Mapping[str, Any]
    replicas: int | None
    desired_state: str
    deletion_requested: bool
    generation: int
    stored_spec: str | None
    rollout_paused: bool = False


class Wanted:
    """Resolves rows of `services`. `newest_key` tells under which key doors are made."""

    def __init__(
        self,
        installation: str,
        library: Library,
        site: SlurmSettings,
        newest_key: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._installation = installation
        self._library = library
        self._site = site
        self._newest_key = newest_key

    def of(self, row: ServiceRow) -> Desired:
        """Return what is wanted. What can't be resolved is a refusal in it, never an exception.

        A generation is resolved once: a recipe that changes on disk does not touch running services.
        """
        refusal = None
        try:
            spec = self._resolve(row) if row.stored_spec is None else self._warned(row, decode_spec(row.stored_spec))
        except ConfigError as error:
            spec, refusal = None, Refusal(reason="BadConfig" if error.key else "BadRecipe", message=str(error))
        return Desired(
            installation=self._installation,
            service_id=row.id,
            name=row.name,
            generation=row.generation,
            running=row.desired_state == "running" and not row.deletion_requested,
            replicas=spec.replicas if spec is not None else row.replicas or 1,
            spec=spec,
            digest=digest(spec) if spec is not None else "",
            refusal=refusal,
            paused=row.rollout_paused,
            door=self._newest_key(),
        )

    def _warned(self, row: ServiceRow, spec: LaunchSpec) -> LaunchSpec:
        """Return a stored spec with what is to be said about its config, where an older release has not looked."""
        if spec.warnings is not None:
            return spec
        try:
            return replace(spec, warnings=self._resolve(row).warnings)
        except ConfigError:
            return replace(spec, warnings=())

    def _resolve(self, row: ServiceRow) -> LaunchSpec:
        book = self._library.book()
        recipe = book.find(row.recipe_name)
        if recipe is None:
            problem = book.problem(row.recipe_name)
            raise ConfigError("", problem or f"There is no recipe {row.recipe_name!r}.{book.similar(row.recipe_name)}")
        spec = resolve(recipe, row.config, replicas=row.replicas, site=self._site)
        return replace(spec, warnings=(*(spec.warnings or ()), *_of_its_name(row)))


def _of_its_name(row: ServiceRow) -> tuple[str, ...]:
    """Warn of a name that only SQL gives, unless it is the one that a service without a name gets."""
    if SERVICE_NAME.fullmatch(row.name) or row.name.endswith(f"-{row.id}"):
        return ()
    what = f"name: {printable(row.name, 160)} is not 1 to 63 lower-case letters, digits and hyphens"
    return (f"{what}: `ai-factory apply` and the API make no service of this name. Give it another one.",)

"""What a job asks of Slurm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from api.contract.gpus import OPTIONS, ask_in_gres, ask_in_options, name_of, without_gpus
from api.contract.launch import Resources
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.schema import RecipeFile, ResourcesPart
from api.contract.recipes.units import gpus, memory_mb, minutes, whole_number
from api.contract.recipes.values import Quantity, read_quantity, table
from api.contract.sbatch_options import check_extra_options, check_value
from api.contract.settings import SlurmSettings

OLDER_SPELLINGS = {
    "nodes": "nodes",
    "cpu": "cpu",
    "cpus": "cpu",
    "memory": "memory",
    "gpu": "gpu",
    "time": "time_limit",
    "time_limit": "time_limit",
}
"""Top-level keys of older clients -> the key in `resources`."""


SITE = "site"
"""In the place of a value: the job does not ask for it, and Slurm chooses."""


@dataclass(frozen=True, slots=True)
class _Level:
    """What one of those says who have a say."""

    fields: Mapping[str, tuple[str, Any]]
    """Key in `resources` -> the key as it was written, and its value."""
    options: Sequence[str] = ()

    @property
    def _asks_in_gres(self) -> bool:
        gres = self.fields.get("gres", ("", None))[1]
        return isinstance(gres, str) and ask_in_gres(gres)

    @property
    def tells_gpus(self) -> bool:
        """Whether it says anything about GPUs, if only that there are to be none."""
        return "gpu" in self.fields or self._asks_in_gres or ask_in_options(self.options)

    def in_one_way(self) -> _Level:
        """Ask for GPUs in one way: by options, else by `gres`, else by `gpu`."""
        if ask_in_options(self.options):
            return _Level(self._without_gpus(), self.options)
        return _Level({k: v for k, v in self.fields.items() if k != "gpu" or not self._asks_in_gres}, self.options)

    def without_gpus(self) -> _Level:
        """Leave out whatever asks for GPUs."""
        return _Level(self._without_gpus(), [option for option in self.options if name_of(option) not in OPTIONS])

    def _without_gpus(self) -> dict[str, tuple[str, Any]]:
        fields = {name: found for name, found in self.fields.items() if name != "gpu"}
        if self._asks_in_gres:
            key, gres = fields["gres"]
            fields["gres"] = key, without_gpus(gres)
        return fields


def resolve_resources(content: RecipeFile, config: Mapping[str, Any], site: SlurmSettings) -> Resources:
    """Site, recipe, older top-level spellings, `resources`: each outweighs the one before, key by key.

    Options are added up. GPUs are one thing, in whichever words: who outweighs says all of it.
    """
    levels = [
        _Level(_given(site, ("partition", "account", "qos", "constraint", "reservation", "gres")), site.extra_options),
        _Level(_given(content.resources, _FIELDS), content.resources.extra_options or ()),
        _Level(
            {
                name: (older, config[older])
                for older, name in OLDER_SPELLINGS.items()
                if config.get(older) is not None and older not in content.parameters
            }
        ),
        _own(table(config, "resources")),
    ]
    merged: dict[str, tuple[str, Any]] = {}
    options: list[str] = []
    for level in _asking_once(levels):
        merged |= level.fields
        options += level.options
    return leave_out(_read_resources(merged, options), site)


def leave_out(resources: Resources, site: SlurmSettings) -> Resources:
    """Return what a job asks for on a site that wants some of it left to Slurm."""
    return replace(
        resources,
        cpu=None if "cpu" in site.leave_out else resources.cpu,
        memory_mb=None if "memory" in site.leave_out else resources.memory_mb,
        time_limit=None if "time_limit" in site.leave_out else resources.time_limit,
    )


_FIELDS = tuple(name for name in ResourcesPart.__struct_fields__ if name != "extra_options")


def _given(part: object, names: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """Return what is set; an empty text is not."""
    found = {name: getattr(part, name) for name in names}
    return {name: (name, value) for name, value in found.items() if value not in (None, "")}


def _own(given: Mapping[str, Any]) -> _Level:
    """Return what a service says. Raises `ConfigError`."""
    fields: dict[str, tuple[str, Any]] = {}
    options: list[str] = []
    for name, value in given.items():
        plain = OLDER_SPELLINGS.get(name, name)
        if plain not in ResourcesPart.__struct_fields__:
            known = ", ".join(ResourcesPart.__struct_fields__)
            raise ConfigError(f"resources.{name}", f"There is no such resource. There are: {known}.")
        if plain == "extra_options":
            options += _extra_options(value)
        elif value is not None:
            fields[plain] = f"resources.{name}", value
    return _Level(fields, options)


def _asking_once(levels: Sequence[_Level]) -> list[_Level]:
    """Let the strongest that says anything about GPUs say it alone."""
    speaks = max((at for at, level in enumerate(levels) if level.tells_gpus), default=0)
    return [
        level.in_one_way() if at == speaks else level.without_gpus() if at < speaks else level
        for at, level in enumerate(levels)
    ]


def _read_resources(merged: Mapping[str, tuple[str, Any]], options: Sequence[str]) -> Resources:
    def text(name: str) -> str | None:
        key, value = merged.get(name, (name, None))
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise ConfigError(key, "must be text.")
        return read_quantity(key, lambda: check_value(name, value))

    def read(name: str, reader: Callable[[Any], Quantity], default: Any) -> Quantity:
        key, value = merged.get(name, (name, default))
        return read_quantity(key, lambda: reader(value))

    def read_or_leave(name: str, reader: Callable[[Any], int], default: int | None) -> int | None:
        value = merged.get(name, ("", default))[1]
        return None if value in (None, SITE) else read(name, reader, default)

    count, kind = read("gpu", gpus, 0)
    time_limit = read_or_leave("time_limit", minutes, 60)
    return Resources(
        nodes=read("nodes", lambda v: whole_number(v, least=1, most=10_000), 1),
        cpu=read_or_leave("cpu", lambda v: whole_number(v, least=1, most=10_000), 1),
        memory_mb=read_or_leave("memory", memory_mb, 1024),
        gpu=count,
        gpu_type=kind,
        time_limit=time_limit,
        time_min=_fitting(merged, read_or_leave("time_min", minutes, None), time_limit),
        partition=text("partition"),
        account=text("account"),
        qos=text("qos"),
        constraint=text("constraint"),
        reservation=text("reservation"),
        gres=text("gres"),
        extra_options=read_quantity("resources.extra_options", lambda: check_extra_options(options)),
    )


def _fitting(merged: Mapping[str, tuple[str, Any]], least: int | None, limit: int | None) -> int | None:
    """Return the least time limit; a recipe's is no more than the limit that a service says. Raises `ConfigError`."""
    if least is None or limit is None or least <= limit:
        return least
    key, of_limit = merged["time_min"][0], merged.get("time_limit", ("time_limit", None))[0]
    if key == "time_min" and of_limit != "time_limit":
        return limit
    raise ConfigError(key, f"must not be more than {of_limit}, which is {limit} minutes, but is {least}.")


def _extra_options(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError("resources.extra_options", 'must be a list of texts such as "--exclusive".')
    return value

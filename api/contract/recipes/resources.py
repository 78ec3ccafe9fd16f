"""What a job asks of Slurm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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


def resolve_resources(content: RecipeFile, config: Mapping[str, Any], site: SlurmSettings) -> Resources:
    """Site, recipe, older top-level spellings, `resources`: each outweighs the one before, key by key."""
    part = content.resources
    merged: dict[str, tuple[str, Any]] = {}
    for name in ("partition", "account", "qos", "constraint", "reservation", "gres"):
        if getattr(site, name):
            merged[name] = (name, getattr(site, name))
    for name in ResourcesPart.__struct_fields__:
        if name != "extra_options" and getattr(part, name) is not None:
            merged[name] = (name, getattr(part, name))
    for older, name in OLDER_SPELLINGS.items():
        if config.get(older) is not None and older not in content.parameters:
            merged[name] = (older, config[older])
    extra = [*site.extra_options, *(part.extra_options or ())]
    for name, value in table(config, "resources").items():
        plain = OLDER_SPELLINGS.get(name, name)
        if plain not in ResourcesPart.__struct_fields__:
            known = ", ".join(ResourcesPart.__struct_fields__)
            raise ConfigError(f"resources.{name}", f"There is no such resource. There are: {known}.")
        if plain == "extra_options":
            extra += _extra_options(value)
        elif value is not None:
            merged[plain] = (f"resources.{name}", value)
    return _read_resources(merged, extra)


def _read_resources(merged: Mapping[str, tuple[str, Any]], extra: list[str]) -> Resources:
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

    count, kind = read("gpu", gpus, 0)
    return Resources(
        nodes=read("nodes", lambda v: whole_number(v, least=1, most=10_000), 1),
        cpu=read("cpu", lambda v: whole_number(v, least=1, most=10_000), 1),
        memory_mb=read("memory", memory_mb, 1024),
        gpu=count,
        gpu_type=kind,
        time_limit=read("time_limit", minutes, 60),
        partition=text("partition"),
        account=text("account"),
        qos=text("qos"),
        constraint=text("constraint"),
        reservation=text("reservation"),
        gres=text("gres"),
        extra_options=read_quantity("resources.extra_options", lambda: check_extra_options(extra)),
    )


def _extra_options(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError("resources.extra_options", 'must be a list of texts such as "--exclusive".')
    return value

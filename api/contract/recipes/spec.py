"""A launch spec as it is stored, and the digest that tells one launch from another."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from api.contract.launch import LaunchSpec
from api.contract.recipes.errors import ConfigError


class SpecHead(msgspec.Struct, frozen=True):
    """The part of a stored launch spec that tells which engine serves what: read where all else is not needed."""

    engine: str
    model: str | None = None
    further_models: tuple[str, ...] = ()
    exposed: bool = False


def digest(spec: LaunchSpec) -> str:
    """Return what identifies a launch: two specs that differ in more than the number of replicas differ here."""
    value = msgspec.to_builtins(spec) | {"replicas": 0}
    _leave_out_later(value)
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:32]


def _leave_out_later(value: dict[str, Any]) -> None:
    """Leave out what came later and is not used, so that an upgrade changes the digest of nothing that runs."""
    del value["paths"], value["further_models"]  # which follow from the command
    del value["warnings"]  # which are for people
    del value["exposed"]  # which is nothing to the job
    del value["surge"], value["max_unavailable"], value["no_room"]  # which say how to change, not what to launch
    health = value["health"]
    if health is not None:
        del health["startup_guess"]  # which is nothing to the job
    if health is not None and health["kind"] == "http":
        del health["kind"], health["command"]
    if value["resources"]["time_min"] is None:
        del value["resources"]["time_min"]
    if not value["volumes"]:
        del value["volumes"]
    if value["restarted_at"] is None:
        del value["restarted_at"]
    if value["gpu_vendor"] is None:
        del value["gpu_vendor"]
    if value["access"] == "direct":
        del value["access"]
    if value["network"] == "host":
        del value["network"]


def encode_spec(spec: LaunchSpec) -> bytes:
    """Return the spec as JSON, keys in order."""
    return msgspec.json.encode(spec, order="deterministic")


def decode_spec(text: str | bytes) -> LaunchSpec:
    """Read what `encode_spec` wrote; raises `ConfigError` for what is none."""
    try:
        return msgspec.json.decode(text, type=LaunchSpec)
    except msgspec.MsgspecError as error:
        raise ConfigError("", f"The stored launch spec can't be read: {error}.") from error

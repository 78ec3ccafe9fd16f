"""What travels to a job: the parameters for its wrapper. Nothing of it is ever read by a shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.contract.launch import REPLICA, Health, LaunchSpec, Volume

PARAMETERS_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What is the same for all jobs of this site."""

    apptainer: str
    image_cache: str
    port_range: tuple[int, int] | None
    volumes: str
    """The folder on the nodes below which services have volumes of their own."""
    python: str
    """The Python on the nodes that runs the wrapper."""
    log_megabytes: int = 0
    """How long each log of a job may grow before it is rotated; 0: for ever."""


def parameters(spec: LaunchSpec, token: str, digest: str, lane: str, secret: str, site: Site) -> dict[str, Any]:
    """Return the parameter file of an attempt. It holds the attempt's secret: mode 0600, removed by the job."""
    return {
        "version": PARAMETERS_VERSION,
        "token": token,
        "digest": digest,
        "lane": lane,
        "image": {"source": spec.image.source, "definition": spec.image.definition} if spec.image else None,
        "image_cache": site.image_cache,
        "apptainer": site.apptainer,
        "command": list(spec.command),
        "environment": dict(spec.environment),
        "environment_from": dict(spec.environment_from),
        "binds": list(spec.binds),
        "volumes": [_volume(volume, token, site) for volume in spec.volumes],
        "files": dict(spec.files),
        "nv": spec.resources.gpu > 0,
        "listens": spec.health is not None,
        # Engines are reached from the controller's and the API's hosts.
        "host": "0.0.0.0",  # noqa: S104
        "secret": secret if spec.secret_variable else None,
        "secret_variable": spec.secret_variable,
        "port_range": list(site.port_range) if site.port_range else None,
        "stop_grace": spec.stop_grace,
        "check": _check(spec.health),
        "log_bytes": site.log_megabytes * 1_000_000,
    }


def _volume(volume: Volume, token: str, site: Site) -> dict[str, Any]:
    """Return a volume as one replica has it: `{replica}` becomes its number."""
    front, replica, _ = token.rsplit("-", 2)
    source = volume.path or f"{site.volumes}/{front.rpartition('-')[2]}/{volume.name}"
    return {"source": source.replace(REPLICA, replica), "target": volume.target, "root": volume.root}


def _check(health: Health | None) -> dict[str, Any] | None:
    if health is None or health.kind != "command":
        return None
    return {"command": list(health.command), "interval": health.interval, "timeout": health.timeout}

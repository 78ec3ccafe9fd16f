"""What travels to a job: the parameters for its wrapper. Nothing of it is ever read by a shell."""

from __future__ import annotations

from dataclasses import dataclass, field

from api.contract.gpus import has_gpus
from api.contract.job.parameters import Door, HealthCommand, Parameters, SecretFiles, VolumeMount
from api.contract.launch import REPLICA, Health, LaunchSpec, Resources, Volume
from controller.core.attempt import Attempt


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
    secret_files: SecretFiles = field(default_factory=SecretFiles)
    model_folders: tuple[str, ...] = ()
    """Folders on the nodes that every container sees, read-only."""
    model_cache: str | None = None
    """The one into which engines download models."""
    log_megabytes: int = 0
    """How long each log of a job may grow before it is rotated; 0: for ever."""
    drain_most: float = 300.0
    """Seconds that what is in flight on an engine has where somebody else has told its job to end."""
    time_warning: int = 0
    """Seconds before its time limit in which Slurm warns a job; 0: never."""


EARLIEST = 180.0
"""A warning may come so many seconds sooner than was asked for: up to 60 by sbatch(1), `--signal`, and what a node
takes from a job's start to its wrapper's."""


def parameters(
    spec: LaunchSpec, attempt: Attempt, secret: str | None, site: Site, door: Door | None = None
) -> Parameters:
    """Return what the job of an attempt is told. An engine that takes a secret gets `secret`."""
    return Parameters(
        token=attempt.token,
        digest=attempt.digest,
        lane=attempt.lane,
        alone=attempt.beside is None or not spec.may_overlap,
        image=spec.image,
        image_cache=site.image_cache,
        apptainer=site.apptainer,
        command=spec.command,
        environment=spec.environment,
        environment_from=spec.environment_from,
        secret_files=site.secret_files,
        binds=spec.binds,
        volumes=tuple(_mount(volume, attempt, site) for volume in spec.volumes),
        files=spec.files,
        model_folders=site.model_folders,
        model_cache=site.model_cache,
        paths=spec.paths,
        nv=has_gpus(spec.resources),
        gpu_vendor=spec.gpu_vendor,
        network=spec.network,
        listens=spec.health is not None,
        secret=secret if spec.secret_variable else None,
        secret_variable=spec.secret_variable,
        door=door,
        port_range=site.port_range,
        stop_grace=spec.stop_grace,
        drain_most=site.drain_most,
        warned_after=_warned_after(spec.resources, site),
        check=_check(spec.health),
        log_bytes=site.log_megabytes * 1_000_000,
    )


def _warned_after(resources: Resources, site: Site) -> float:
    """Return the seconds from a job's start in which no warning of its time limit can come; 0: that is not known."""
    least = resources.time_min or resources.time_limit
    if least is None or not site.time_warning:
        return 0.0
    return max(least * 60 - site.time_warning - EARLIEST, 0.0)


def _mount(volume: Volume, attempt: Attempt, site: Site) -> VolumeMount:
    """Return a volume as one replica has it: `{replica}` becomes its number."""
    source = volume.path or f"{site.volumes}/{attempt.service_id}/{volume.name}"
    return VolumeMount(source.replace(REPLICA, str(attempt.replica)), volume.target, volume.root)


def _check(health: Health | None) -> HealthCommand | None:
    if health is None or health.kind != "command":
        return None
    return HealthCommand(health.command, health.interval, health.timeout)

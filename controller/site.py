"""What this site's settings mean to the parts of the controller."""

from __future__ import annotations

from api.contract.job.parameters import SecretFiles
from api.contract.settings import Settings
from controller.core.limits import Limits
from controller.core.observed import Quota
from controller.core.script import Site


def site(settings: Settings) -> Site:
    """Return what all jobs of this site have in common."""
    return Site(
        apptainer=settings.apptainer.command,
        image_cache=str(settings.run_dir / "images"),
        port_range=settings.slurm.port_range,
        volumes=settings.slurm.volumes or str(settings.run_dir / "volumes"),
        python=settings.slurm.python,
        secret_files=SecretFiles(roots=settings.slurm.secret_roots, never=_own_places(settings)),
        model_folders=settings.models.folders,
        model_cache=settings.model_cache,
        log_megabytes=settings.slurm.log_megabytes,
        drain_most=settings.controller.drain_most,
        time_warning=settings.slurm.time_warning,
    )


def _own_places(settings: Settings) -> tuple[str, ...]:
    """Return where keys and job folders lie: a service could have them told, since its jobs run as we do."""
    places = (settings.state_dir, settings.run_dir, settings.key_file, settings.api.admin_key_file)
    return tuple(str(place) for place in places if place is not None)


def limits(settings: Settings) -> Limits:
    """Return the protocol's waiting times under this site's settings."""
    chosen = settings.controller
    return Limits(
        absence_grace=chosen.absence_grace,
        accounting_grace=chosen.accounting_grace,
        backoff_first=chosen.backoff_first,
        backoff_most=chosen.backoff_most,
        quick_end=chosen.quick_end,
        steady_after=chosen.steady_after,
        doubt_grace=chosen.doubt_grace,
        drain_settles=chosen.drain_settles,
        drain_most=chosen.drain_most,
    )


def ceilings(settings: Settings) -> Quota:
    """Return this site's ceilings on GPUs, of which nothing is used yet."""
    chosen = settings.quota
    return Quota(
        gpus=chosen.gpus,
        gpus_per_service=chosen.gpus_per_service,
        gpu_hours=chosen.gpu_hours,
        gpu_hours_per_service=chosen.gpu_hours_per_service,
    )

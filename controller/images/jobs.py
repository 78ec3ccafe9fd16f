"""Jobs that make images: the batch script and the wrapper of a service's job, given no command, and no GPUs.

Each has a folder of its own, RUN_DIR/images/making/NAME.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import dataclass

from api.contract.identity import new_id
from api.contract.job.parameters import Image, Parameters
from api.contract.launch import Resources
from api.contract.recipes.resources import leave_out
from api.contract.recipes.units import memory_mb
from api.contract.sbatch_options import check_extra_options, check_value
from api.contract.settings import Settings
from controller.core.attempt import SendOutcome, Sent
from controller.core.jobs import Job, JobPhase
from controller.ports import JobFolder, UnreadableError
from controller.rundir import SharedRunDirs
from controller.slurm.runner import Runner
from controller.slurm.scheduler import SlurmScheduler
from controller.wrapper import cache
from controller.wrapper.cache import Entry

log = logging.getLogger(__name__)

PREFIX = "af-image-"
"""Of the names of these jobs. No installation's id holds an i, so none of its tokens begins so."""

FOLDER = ("images", "making")


class ResourcesError(ValueError):
    """A setting of these jobs can't be what it is; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """What makes one image: its unique name, which is its job's, and its folder."""

    name: str
    folder: JobFolder


class ImageJobs:
    """Prepares such jobs, submits them, and finds them again."""

    def __init__(self, settings: Settings, runner: Runner) -> None:
        self._settings = settings
        self._scheduler = SlurmScheduler(runner, PREFIX)
        self._run_dirs = SharedRunDirs(settings.run_dir, FOLDER[0], settings.slurm.prologue)
        self._one_at_a_time = asyncio.Lock()

    async def prepare(self, image: Image, *, refresh: bool) -> Maker:
        """Write the folder of a maker; raises `OSError`."""
        name = f"{PREFIX}{cache.key(image)}-{new_id(6)}"
        told = Parameters(
            token=name,
            image=image,
            refresh=refresh,
            image_cache=str(self._settings.run_dir / "images"),
            apptainer=self._settings.apptainer.command,
        )
        return Maker(name=name, folder=await self._run_dirs.prepare(FOLDER[1], name, told.to_json().encode()))

    async def submit(self, maker: Maker) -> Sent:
        """Submit its job. Raises `ResourcesError`."""
        site = self._settings.slurm
        submission = maker.folder.submission(
            maker.name,
            resources(self._settings),
            python=site.python,
            comment="an image for AI Factory Server",
            warning=site.time_warning,
        )
        return await self._scheduler.submit(submission)

    async def find(self, name: str) -> Job | None:
        """Return the first job whose name begins so and that has not ended; raises `UnreadableError`."""
        jobs = (job for job in (await self._scheduler.list_jobs()).jobs if job.token.startswith(name))
        alive = (job for job in jobs if job.phase is not JobPhase.ENDED)
        return min(alive, key=lambda job: job.job_id, default=None)

    async def cancel(self, name: str, job_id: int) -> None:
        """Cancel it; raises `UnreadableError`."""
        await self._scheduler.cancel(name, job_id)

    async def awaited(self, image: Image | None) -> int | None:
        """Return the id of the job that makes an image which is not there yet, submitting one if there is none.

        `None`: there is nothing to wait for; or no such job can be had, then the service's own makes the image.
        """
        if image is None:
            return None
        try:
            async with self._one_at_a_time:
                if not await asyncio.to_thread(has_to_be_made, self._settings, image):
                    return None
                found = await self.find(f"{PREFIX}{cache.key(image)}-")
                return found.job_id if found is not None else await self._begin(image)
        except (UnreadableError, ResourcesError, OSError) as error:
            log.warning("no job can make the image beforehand", extra={"image": cache.key(image), "error": str(error)})
            return None

    async def _begin(self, image: Image) -> int | None:
        maker = await self.prepare(image, refresh=False)
        sent = await self.submit(maker)
        about = {"image": cache.key(image), "job_id": sent.job_id, "folder": maker.folder.path, "answer": sent.message}
        if sent.outcome is SendOutcome.ACCEPTED:
            log.info("a job makes the image beforehand", extra=about)
        else:
            log.warning("no job can make the image beforehand", extra=about)
        if sent.outcome in (SendOutcome.REJECTED, SendOutcome.DEFERRED):
            await asyncio.to_thread(shutil.rmtree, maker.folder.path, ignore_errors=True)
        return sent.job_id


def has_to_be_made(settings: Settings, image: Image) -> bool:
    """Whether an image belongs into the cache and is not there; raises `OSError`."""
    return cache.is_cached(image) and not Entry(settings.run_dir / "images", cache.key(image)).image.exists()


def resources(settings: Settings) -> Resources:
    """Return what a job that makes an image asks for: no GPUs. Raises `ResourcesError`."""
    own, site = settings.images, settings.slurm

    def place(name: str) -> str | None:
        value = getattr(own, name) or getattr(site, name)
        return check_value(name, value) if value else None

    try:
        asked = Resources(
            cpu=own.cpu,
            memory_mb=memory_mb(own.memory),
            time_limit=own.time_limit,
            partition=place("partition"),
            account=place("account"),
            qos=place("qos"),
            extra_options=check_extra_options(own.extra_options),
        )
        return leave_out(asked, site)
    except ValueError as error:
        raise ResourcesError(f"A setting of `images` has a bad value: {error}. See: ai-factory config") from error

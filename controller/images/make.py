"""Makes an image before a service needs it: by the jobs' own script and wrapper, on this host or in a job without GPUs.

The wrapper is given the parameters of a service's job, but no command. What it writes into its job folder, RUN_DIR/
images/making/NAME, is shown here; the folder ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from api.contract.identity import new_id
from api.contract.launch import Image, Resources
from api.contract.recipes.units import memory_mb
from api.contract.sbatch_options import check_extra_options, check_value
from api.contract.settings import Settings, process_environment
from controller.app import runner
from controller.core.model import Job, JobPhase, SendOutcome
from controller.core.script import PARAMETERS_VERSION
from controller.images.stock import Stored, read
from controller.ports import JobFolder, UnreadableError
from controller.rundir import SharedRunDirs, read_job_files
from controller.slurm.argv import submit_options
from controller.slurm.environment import FAMILIES
from controller.slurm.scheduler import SlurmScheduler
from controller.wrapper import cache
from controller.wrapper.cache import Entry
from controller.wrapper.logs import NAMES

PREFIX = "af-image-"
"""Of the names of these jobs. No installation's id holds an i, so none of its tokens begins so."""

MAKING = ("images", "making")
LOOK_SECONDS = 0.2
SQUEUE_SECONDS = 2.0
APPEAR_SECONDS = 15.0
"""How long the last word of an ended job may take to be seen here (network file systems cache)."""
END_SECONDS = 20.0
"""How long a cancelled maker may take to clean up."""
ENDING = (JobPhase.COMPLETING, JobPhase.ENDED)

Tell = Callable[[str], None]


class MakeError(Exception):
    """The image could not be made; the message says why."""


async def make(settings: Settings, image: Image, *, in_job: bool, refresh: bool, tell: Tell) -> tuple[Stored, bool]:
    """Return the image, and whether it was made now; `tell` is given what its maker writes. Raises `MakeError`.

    Cancelled, it ends the maker, and leaves nothing behind.
    """
    entry = Entry(settings.run_dir / "images", cache.key(image))
    there = read(entry)
    if there is not None and not refresh:
        return there, False
    name = f"{PREFIX}{entry.key}-{new_id(6)}"
    run_dirs = SharedRunDirs(settings.run_dir, MAKING[0], settings.slurm.prologue)
    try:
        job = await run_dirs.prepare(MAKING[1], name, _parameters(settings, image, name, refresh=refresh))
    except OSError as error:
        raise MakeError(f"RUN_DIR ({settings.run_dir}) can't be written: {error.strerror or error}.") from error
    folder = Path(job.path)
    try:
        async with _showing(folder, tell):
            await (_in_job(settings, name, job, tell) if in_job else _here(job))
        _judge(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    made = read(entry)
    if made is None:
        raise MakeError(f"its maker says that {entry.image} is there, but it is not seen here: is RUN_DIR shared?")
    return made, True


def _parameters(settings: Settings, image: Image, name: str, *, refresh: bool) -> bytes:
    values = {
        "version": PARAMETERS_VERSION,
        "token": name,
        "image": {"source": image.source, "definition": image.definition},
        "refresh": refresh,
        "image_cache": str(settings.run_dir / "images"),
        "apptainer": settings.apptainer.command,
    }
    return json.dumps(values).encode()


def resources(settings: Settings) -> Resources:
    """Return what a job that makes an image asks for: no GPUs. Raises `MakeError` for a setting that can't be."""
    own, site = settings.images, settings.slurm

    def place(name: str) -> str | None:
        value = getattr(own, name) or getattr(site, name)
        return check_value(name, value) if value else None

    try:
        return Resources(
            cpu=own.cpu,
            memory_mb=memory_mb(own.memory),
            time_limit=own.time_limit,
            partition=place("partition"),
            account=place("account"),
            qos=place("qos"),
            extra_options=check_extra_options(own.extra_options),
        )
    except ValueError as error:
        raise MakeError(f"A setting of `images` has a bad value: {error}. See: ai-factory config") from error


async def _here(job: JobFolder) -> None:
    """Run the batch script as a child of ours; the wrapper ends all that it started when it is told to."""
    command = ("/bin/bash", job.launch_script, job.path, job.wrapper, sys.executable)
    environment = _without_slurm(process_environment()) | {"SLURM_JOB_ID": "0"}
    outputs = [os.open(Path(job.path, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for name in NAMES]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=outputs[0], stderr=outputs[1], env=environment,
            cwd=job.path, start_new_session=True,
        )  # fmt: skip
    finally:
        for output in outputs:
            os.close(output)
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), END_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


def _without_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(FAMILIES)}


async def _in_job(settings: Settings, name: str, job: JobFolder, tell: Tell) -> None:
    """Submit the batch script, and wait for the job's end."""
    asked = resources(settings)
    options = submit_options(
        name, asked, output=f"{job.path}/stdout.log", error=f"{job.path}/stderr.log", chdir=job.path,
        warning_seconds=settings.slurm.time_warning, comment="an image for AI Factory Server",
    )  # fmt: skip
    scheduler = SlurmScheduler(runner(settings), PREFIX)
    job_id: int | None = None
    ended = False
    try:
        sent = await scheduler.submit(name, job.launch_script, (job.path, job.wrapper, settings.slurm.python), options)
        job_id = sent.job_id
        if sent.outcome in (SendOutcome.REJECTED, SendOutcome.DEFERRED):
            ended = True
            raise MakeError(f"Slurm did not take the job: {sent.message}")
        tell(f"job {job_id} is submitted\n" if job_id is not None else f"sbatch did not say whether: {sent.message}\n")
        await _until_ended(scheduler, name, Path(job.path), tell)
        ended = True
    finally:
        if not ended:
            await _cancel(scheduler, name, job_id)


async def _until_ended(scheduler: SlurmScheduler, name: str, folder: Path, tell: Tell) -> None:
    """Wait until the job has said its last word, or has been gone for a while without it. Raises `MakeError`.

    A silent Slurm is waited for: the job goes on without it.
    """
    said, silent = "", False
    gone_at: float | None = None
    while read_job_files(folder).exit is None:
        if gone_at is not None and time.monotonic() - gone_at > APPEAR_SECONDS:
            raise MakeError(f"the job {name} ended without a word: {said or 'Slurm does not list it'}.")
        try:
            found = await _find(scheduler, name)
        except UnreadableError as error:
            if not silent:
                tell(f"Slurm does not answer: {error.message}\n")
            silent = True
        else:
            silent = False
            if found is not None and (now := _told(found)) != said:
                tell(f"{now}\n")
                said = now
            over = found is None or found.phase in ENDING
            gone_at = (gone_at or time.monotonic()) if over else None
        await asyncio.sleep(SQUEUE_SECONDS)


def _told(job: Job) -> str:
    where = f" on {job.node}" if job.node else ""
    reason = f" ({job.reason})" if job.phase is JobPhase.PENDING and job.reason not in ("", "None") else ""
    return f"job {job.job_id} is {job.state}{where}{reason}"


async def _find(scheduler: SlurmScheduler, name: str) -> Job | None:
    return next((job for job in (await scheduler.list_jobs()).jobs if job.token == name), None)


async def _cancel(scheduler: SlurmScheduler, name: str, job_id: int | None) -> None:
    """Cancel the job and wait for its end, for a while. Its id is asked for where sbatch was interrupted."""
    deadline = time.monotonic() + END_SECONDS
    told = False
    while time.monotonic() < deadline:
        with contextlib.suppress(UnreadableError):
            found = await _find(scheduler, name)
            if found is None or found.phase is JobPhase.ENDED:
                return
            if not told:
                await scheduler.cancel(name, job_id or found.job_id)
                told = True
        await asyncio.sleep(LOOK_SECONDS)


@contextlib.asynccontextmanager
async def _showing(folder: Path, tell: Tell) -> AsyncIterator[None]:
    """Show what is written to the job's logs, to its end."""
    offsets = dict.fromkeys(NAMES, 0)

    def show() -> None:
        for name in NAMES:
            with contextlib.suppress(OSError), (folder / name).open("rb") as file:
                file.seek(offsets[name])
                text = file.read()
                offsets[name] += len(text)
                if text:
                    tell(text.decode(errors="replace"))

    async def follow() -> None:
        while True:
            show()
            await asyncio.sleep(LOOK_SECONDS)

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        show()


def _judge(folder: Path) -> None:
    """Raise `MakeError` unless the maker's last word is a good one; what led to a bad one was shown already."""
    last = read_job_files(folder).exit
    if last is None:
        raise MakeError("its maker ended without a word")
    if last.code != 0:
        raise MakeError(f"the image was not made: {(last.message or last.reason).splitlines()[0]}. See its log above.")

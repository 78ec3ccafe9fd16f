"""Makes an image before a service needs it, on this host or in a job, and shows what its maker writes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from api.contract.configuration import process_environment
from api.contract.exits import ExitError
from api.contract.job.folder import LOGS
from api.contract.job.parameters import Image
from api.contract.settings import Settings
from controller.core.attempt import SendOutcome
from controller.core.jobs import Job, JobPhase
from controller.images.jobs import ImageJobs, Maker, ResourcesError
from controller.images.stock import Stored, read
from controller.ports import JobFolder, UnreadableError
from controller.rundir import read_job_files
from controller.slurm.environment import FAMILIES
from controller.slurm.runner import ProcessRunner
from controller.wrapper import cache
from controller.wrapper.cache import Entry

LOOK_SECONDS = 0.2
SQUEUE_SECONDS = 2.0
APPEAR_SECONDS = 15.0
"""How long the last word of an ended job may take to be seen here (network file systems cache)."""
END_SECONDS = 20.0
"""How long a cancelled maker may take to clean up."""

Tell = Callable[[str], None]


class MakeError(ExitError):
    """The image could not be made; the message says why."""


async def make(settings: Settings, image: Image, *, in_job: bool, refresh: bool, tell: Tell) -> tuple[Stored, bool]:
    """Return the image, and whether it was made now; `tell` is given what its maker writes. Raises `MakeError`.

    Cancelled, it ends the maker, and leaves nothing behind.
    """
    entry = Entry(settings.run_dir / "images", cache.key(image))
    there = read(entry)
    if there is not None and not refresh:
        return there, False
    jobs = ImageJobs(settings, ProcessRunner.of(settings.slurm))
    try:
        maker = await jobs.prepare(image, refresh=refresh)
    except OSError as error:
        raise MakeError(f"RUN_DIR ({settings.run_dir}) can't be written: {error.strerror or error}.") from error
    folder = Path(maker.folder.path)
    try:
        async with _showing(folder, tell):
            await (_in_job(jobs, maker, tell) if in_job else _here(maker.folder))
        _judge(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    made = read(entry)
    if made is None:
        raise MakeError(f"its maker says that {entry.image} is there, but it is not seen here: is RUN_DIR shared?")
    return made, True


async def _here(job: JobFolder) -> None:
    """Run the batch script as a child of ours; the wrapper ends all that it started when it is told to."""
    command = ("/bin/bash", job.launch_script, *job.arguments(sys.executable))
    environment = _without_slurm(process_environment()) | {"SLURM_JOB_ID": "0"}
    outputs = [os.open(Path(job.path, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for name in LOGS]
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
                async with asyncio.timeout(END_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def _without_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(FAMILIES)}


async def _in_job(jobs: ImageJobs, maker: Maker, tell: Tell) -> None:
    """Submit the job, and wait for its end."""
    job_id: int | None = None
    ended = False
    try:
        try:
            sent = await jobs.submit(maker)
        except ResourcesError as error:
            ended = True
            raise MakeError(str(error)) from error
        job_id = sent.job_id
        if sent.outcome in (SendOutcome.REJECTED, SendOutcome.DEFERRED):
            ended = True
            raise MakeError(f"Slurm did not take the job: {sent.message}")
        tell(f"job {job_id} is submitted\n" if job_id is not None else f"sbatch did not say whether: {sent.message}\n")
        await _until_ended(jobs, maker, tell)
        ended = True
    finally:
        if not ended:
            await _cancel(jobs, maker.name, job_id)


async def _until_ended(jobs: ImageJobs, maker: Maker, tell: Tell) -> None:
    """Wait until the job has said its last word, or has been gone for a while without it. Raises `MakeError`.

    A silent Slurm is waited for: the job goes on without it.
    """
    said, silent = "", False
    gone_at: float | None = None
    while read_job_files(Path(maker.folder.path)).exit is None:
        if gone_at is not None and time.monotonic() - gone_at > APPEAR_SECONDS:
            raise MakeError(f"{said or 'the job is not listed by Slurm'}, and ended without a word.")
        try:
            found = await jobs.find(maker.name)
        except UnreadableError as error:
            if not silent:
                tell(f"Slurm does not answer: {error.message}\n")
            silent = True
        else:
            silent = False
            if found is not None and (now := _told(found)) != said:
                tell(f"{now}\n")
                said = now
            over = found is None or found.phase is JobPhase.COMPLETING
            gone_at = (gone_at or time.monotonic()) if over else None
        await asyncio.sleep(SQUEUE_SECONDS)


def _told(job: Job) -> str:
    where = f" on {job.node}" if job.node else ""
    reason = f" ({job.reason})" if job.phase is JobPhase.PENDING and job.reason not in ("", "None") else ""
    return f"job {job.job_id} is {job.state}{where}{reason}"


async def _cancel(jobs: ImageJobs, name: str, job_id: int | None) -> None:
    """Cancel the job and wait for its end, for a while. Its id is asked for where sbatch was interrupted."""
    deadline = time.monotonic() + END_SECONDS
    told = False
    while time.monotonic() < deadline:
        with contextlib.suppress(UnreadableError):
            found = await jobs.find(name)
            if found is None:
                return
            if not told:
                await jobs.cancel(name, job_id or found.job_id)
                told = True
        await asyncio.sleep(LOOK_SECONDS)


@contextlib.asynccontextmanager
async def _showing(folder: Path, tell: Tell) -> AsyncIterator[None]:
    """Show what is written to the job's logs, to its end."""
    offsets = dict.fromkeys(LOGS, 0)

    def show() -> None:
        for name in LOGS:
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

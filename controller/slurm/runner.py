"""The only place that starts Slurm's commands: argv in, what became of it out. It neither judges nor retries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from api.contract.configuration import process_environment
from api.contract.settings import SlurmSettings
from controller.slurm.environment import reading_environment, submitting_environment

SUBMISSIONS_AT_ONCE = 4
"""sbatch, scancel and `scontrol update` at a time; more did not make slurmctld any faster (measured)."""

OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes of one command's output; 5,000 jobs are under 1 MB."""

_CHUNK = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What became of one command."""

    argv: tuple[str, ...]
    exit_code: int | None
    """`None` if it was killed because its time was up, or because it printed too much."""
    stdout: str
    stderr: str

    @property
    def command(self) -> str:
        """The program's name."""
        return self.argv[0]


class NotStartedError(Exception):
    """The program could not be started on this host: nothing was asked of Slurm, or nearly surely nothing."""

    def __init__(self, command: str, cause: OSError) -> None:
        super().__init__(f"{command} can't be started: {cause.strerror or cause}")
        self.command = command
        self.missing = isinstance(cause, FileNotFoundError | PermissionError)
        """Whether there is no such program, or none that may be run."""
        self.is_certain = self.missing or cause.filename is not None
        """Whether it surely has not run: a file is named, its own or one that is opened before. What else its start
        lacked may have been lacking when it ran already: from Python 3.12 on asyncio opens a descriptor for a child."""


class Runner(Protocol):
    """What the scheduler needs of a runner."""

    async def read(self, argv: tuple[str, ...]) -> Completed:
        """Run a command that changes nothing."""
        ...

    async def change(self, argv: tuple[str, ...]) -> Completed:
        """Run sbatch, scancel or `scontrol update`, a few at a time."""
        ...


class ProcessRunner:
    """Runs Slurm's commands as child processes, each in a process group of its own, without standard input.

    When its time is up, or the caller is cancelled, the whole group is killed. For sbatch this settles nothing:
    the request may have been sent, and may yet be carried out.
    """

    def __init__(
        self,
        reading_environment: Mapping[str, str],
        submitting_environment: Mapping[str, str],
        *,
        reading_seconds: float = 30.0,
        changing_seconds: float = 60.0,
        output_limit: int = OUTPUT_LIMIT,
    ) -> None:
        self._reading_environment = reading_environment
        self._submitting_environment = submitting_environment
        self._reading_seconds = reading_seconds
        self._changing_seconds = changing_seconds
        self._output_limit = output_limit
        self._gate = asyncio.Semaphore(SUBMISSIONS_AT_ONCE)
        self.calls: Counter[tuple[str, str]] = Counter()
        """(command, `ok` | `failed` | `killed` | `not started`) -> how often, for the metrics."""

    @classmethod
    def of(cls, settings: SlurmSettings) -> Self:
        """Return the runner of this site's commands."""
        given, seconds = process_environment(), settings.command_timeout
        return cls(
            reading_environment(given, settings.conf, settings.bin_dir),
            submitting_environment(given, settings.conf, settings.bin_dir),
            reading_seconds=seconds,
            changing_seconds=seconds * 2,
        )

    async def read(self, argv: tuple[str, ...]) -> Completed:
        """Run a command that changes nothing. Raises NotStartedError."""
        return await self._counted(argv, self._reading_environment, self._reading_seconds)

    async def change(self, argv: tuple[str, ...]) -> Completed:
        """Run what changes something, a few at a time; waiting for one's turn costs no time. Raises NotStartedError."""
        environment = self._submitting_environment if argv[0] == "sbatch" else self._reading_environment
        async with self._gate:
            return await self._counted(argv, environment, self._changing_seconds)

    async def _counted(self, argv: tuple[str, ...], environment: Mapping[str, str], seconds: float) -> Completed:
        outcome = "killed"
        try:
            completed = await self._run(argv, environment, seconds)
            if completed.exit_code is not None:
                outcome = "ok" if completed.exit_code == 0 else "failed"
        except NotStartedError:
            outcome = "not started"
            raise
        finally:
            self.calls[argv[0], outcome] += 1
        return completed

    async def _run(self, argv: tuple[str, ...], environment: Mapping[str, str], seconds: float) -> Completed:
        process = await _start(argv, environment)
        out, err = _Output(self._output_limit), _Output(self._output_limit)
        exit_code: int | None = None
        try:
            async with asyncio.timeout(seconds):
                async with asyncio.TaskGroup() as readers:
                    readers.create_task(out.fill(process.stdout))
                    readers.create_task(err.fill(process.stderr))
                exit_code = await process.wait()
        except* (TimeoutError, _TooMuchError):
            exit_code = None
        finally:
            await _end(process)
        return Completed(argv=argv, exit_code=exit_code, stdout=out.text(), stderr=err.text())


LAST_WORDS = 5.0
"""Seconds for a killed command to be gone; one that a broken file system holds is left to the kernel."""


class _TooMuchError(Exception):
    pass


class _Output:
    """What one stream has brought so far."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()

    async def fill(self, stream: asyncio.StreamReader | None) -> None:
        while stream is not None and (chunk := await stream.read(_CHUNK)):
            self._bytes += chunk
            if len(self._bytes) > self._limit:
                raise _TooMuchError

    def text(self) -> str:
        return self._bytes.decode(errors="replace")


async def _start(argv: tuple[str, ...], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start a command; raises NotStartedError.

    A start that is cancelled half-way would be waited for without end (CPython 3.11): it is let finish, then ended.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except OSError as error:
        raise NotStartedError(argv[0], error) from error
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await _end(await starting)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the process's group, and take its exit status even if the caller is cancelled."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await asyncio.shield(_ended(process))


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for the end. asyncio knows of it only when all output was read, which it stops while nobody takes it."""
    await asyncio.gather(_drain(process.stdout), _drain(process.stderr), process.wait())


async def _drain(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(_CHUNK):
        pass

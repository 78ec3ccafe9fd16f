"""The container image: used where it lies, or made once for all jobs.

An image gets its name only when it is whole and on the disk; a lock beside it keeps two jobs from making the same one.
A killed maker leaves a partial file, which the next one removes. See `cache` for what lies where.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from api.contract.job.parameters import Image
from api.contract.job.private import make_folder
from api.contract.job.words import ExitReason, Step
from controller.wrapper import cache
from controller.wrapper.cache import CacheRecord, Entry
from controller.wrapper.files import remove, say, write_new
from controller.wrapper.logs.output import Output
from controller.wrapper.logs.telling import reason
from controller.wrapper.process import Child
from controller.wrapper.report import FailedError, Report
from controller.wrapper.signals import Signals

LOCK_INTERVAL = 0.5
"""Seconds between two tries at the lock."""

BUILD_GRACE = 2.0
"""Seconds that a build may take to clean up when we are told to stop."""


class Images:
    """Where images come from, for one job."""

    def __init__(self, cache: Path, apptainer: str, report: Report, signals: Signals) -> None:
        self._cache = cache
        self._apptainer = apptainer
        self._report = report
        self._signals = signals
        self._waits = False

    def prepare(self, image: Image, output: Output, scratch: Path, *, refresh: bool = False) -> Path:
        """Return the image's path, making it if need be, or anew if `refresh`; it stays ours until we end.

        Raises `FailedError` (`ImageFailed`), or `StoppedError` when we are told to stop meanwhile.
        """
        if not cache.is_cached(image):
            self._report.image = ""
            return _existing(Path(str(image.source)))
        entry = Entry(self._cache, cache.key(image))
        self._report.image = entry.key
        try:
            while refresh or not self._take(entry):
                self._report.step(Step.IMAGE, f"waiting for {entry.image.name}")
                make_folder(self._cache)
                with cache.locked(entry.lock, self._wait):
                    if refresh or not entry.image.exists():
                        self._build(image, entry, output, scratch)
                refresh = False
        except OSError as error:
            raise FailedError(
                ExitReason.IMAGE_FAILED, f"cannot make {entry.image}: {error.strerror or error}"
            ) from error
        cache.touch(entry)
        return entry.image

    def _take(self, entry: Entry) -> bool:
        """Hold an image, and see that it is what was made; whether there is one. Raises `FailedError`, `OSError`."""
        while True:
            descriptor = cache.hold(entry.image, self._wait)
            if descriptor is None:
                return False
            trouble = cache.disproof(entry, descriptor, self._beat)
            if trouble is None:
                return True
            if cache.is_in_place(descriptor, entry.image):
                raise FailedError(
                    ExitReason.IMAGE_FAILED,
                    f"{entry.image} is not run: {trouble}. See: ai-factory images verify {entry.key}",
                )
            os.close(descriptor)  # it was made anew meanwhile

    def _beat(self) -> None:
        """Live on while a long file is read, and say so."""
        self._report.step(Step.IMAGE, "reading the image to compare it with its digest")
        self._signals.check()
        self._signals.wait(0.0)

    def _build(self, image: Image, entry: Entry, output: Output, scratch: Path) -> None:
        partial = entry.partial
        remove(partial)
        if image.definition is not None:
            definition = scratch / "image.def"
            write_new(definition, image.definition)
            command = [self._apptainer, "build", str(partial), str(definition)]
        else:
            command = [self._apptainer, "pull", "--disable-cache", str(partial), str(image.source)]
        self._report.step(Step.IMAGE, " ".join(["apptainer", command[1], image.source or "from a definition"]))
        log = output.logs()
        try:
            code = self._run(command, {"APPTAINER_TMPDIR": str(scratch), **os.environ}, scratch)
            if code != 0 or not partial.exists():
                raise FailedError(
                    ExitReason.IMAGE_FAILED, f"apptainer {command[1]} ended with {code}\n{reason(log.lines())}"
                )
            partial.chmod(0o600)
            cache.publish(entry, self._record(image, partial))
        finally:
            remove(partial)

    def _record(self, image: Image, made: Path) -> CacheRecord:
        return CacheRecord(
            source=image.source,
            definition=image.definition,
            sha256=cache.sha256(made, self._beat),
            size=made.stat().st_size,
            made_at=time.time(),
            host=socket.gethostname(),
        )

    def _run(self, command: list[str], environment: Mapping[str, str], folder: Path) -> int:
        try:
            child = Child(command, environment, folder)
        except OSError as error:
            raise FailedError(ExitReason.IMAGE_FAILED, cannot_start(self._apptainer, error)) from error
        try:
            while True:
                code = child.exit_code()
                if code is not None:
                    return code
                if self._signals.stop is not None:
                    self._interrupt(child)
                self._signals.check()
                self._signals.wait(1.0)
        finally:
            child.end()

    def _interrupt(self, child: Child) -> None:
        child.send(signal.SIGTERM)
        deadline = time.monotonic() + BUILD_GRACE
        while child.exit_code() is None and time.monotonic() < deadline:
            self._signals.wait(0.1)

    def _wait(self) -> None:
        if not self._waits:
            say("somebody else is making or removing this image: waiting")
        self._waits = True
        self._signals.check()
        self._signals.wait(LOCK_INTERVAL)


def _existing(path: Path) -> Path:
    try:
        path.stat()
    except OSError as error:
        raise FailedError(
            ExitReason.IMAGE_FAILED, f"image {path} on {socket.gethostname()}: {error.strerror}"
        ) from error
    return path


def cannot_start(program: str, error: OSError) -> str:
    """Say why a program could not be started, and where it was looked for."""
    if isinstance(error, FileNotFoundError):
        return f"{program} not found on {socket.gethostname()} (PATH={os.environ.get('PATH', '')})"
    return f"cannot start {program}: {error.strerror or error}"

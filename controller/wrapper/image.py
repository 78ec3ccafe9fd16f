"""The container image: used where it lies, or built once for all jobs.

A built image gets its name only when it is whole and on the disk; a lock beside it keeps two jobs from building the
same one. A killed builder leaves a partial file, which the next one removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from controller.wrapper.files import remove, write_new
from controller.wrapper.logs import Logs
from controller.wrapper.parameters import Image
from controller.wrapper.process import Child
from controller.wrapper.report import FailedError, Report
from controller.wrapper.signals import Signals
from controller.wrapper.telling import reason

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

    def prepare(self, image: Image, job_folder: Path, scratch: Path) -> Path:
        """Return the image's path, building it if need be.

        Raises `FailedError` (`ImageFailed`), or `StoppedError` when we are told to stop meanwhile.
        """
        if image.source is not None and "://" not in image.source:
            return _existing(Path(image.source))
        target = self._cache / f"{_digest(image)}.sif"
        try:
            if not target.exists():
                self._report.step("image", f"waiting for {target.name}")
                self._cache.mkdir(parents=True, exist_ok=True)
                with self._lock(target.with_suffix(".lock")):
                    if not target.exists():
                        self._build(image, target, job_folder, scratch)
        except OSError as error:
            raise FailedError("ImageFailed", f"cannot build {target}: {error.strerror or error}") from error
        return target

    def _build(self, image: Image, target: Path, job_folder: Path, scratch: Path) -> None:
        partial = target.with_name(f".{target.stem}.partial")
        remove(partial)
        if image.definition is not None:
            definition = scratch / "image.def"
            write_new(definition, image.definition)
            command = [self._apptainer, "build", str(partial), str(definition)]
        else:
            command = [self._apptainer, "pull", "--disable-cache", str(partial), str(image.source)]
        self._report.step("image", " ".join(["apptainer", command[1], image.source or "from a definition"]))
        log = Logs(job_folder)
        try:
            code = self._run(command, {"APPTAINER_TMPDIR": str(scratch), **os.environ}, scratch)
            if code != 0 or not partial.exists():
                raise FailedError("ImageFailed", f"apptainer {command[1]} ended with {code}\n{reason(log.lines())}")
            _flush(partial)
            partial.replace(target)
            _flush(self._cache)
        finally:
            remove(partial)

    def _run(self, command: list[str], environment: Mapping[str, str], folder: Path) -> int:
        try:
            child = Child(command, environment, folder)
        except OSError as error:
            raise FailedError("ImageFailed", cannot_start(self._apptainer, error)) from error
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

    @contextlib.contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        """Hold the lock file; POSIX locks work over NFS and end with the process."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _try_lock(descriptor):
                self._signals.check()
                self._signals.wait(LOCK_INTERVAL)
            yield
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _existing(path: Path) -> Path:
    try:
        path.stat()
    except OSError as error:
        raise FailedError("ImageFailed", f"image {path} on {socket.gethostname()}: {error.strerror}") from error
    return path


def _digest(image: Image) -> str:
    what = f"definition\n{image.definition}" if image.definition is not None else f"source\n{image.source}"
    return hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _flush(path: Path) -> None:
    """Bring a file or folder to the disk; file systems that can't are not held up."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def cannot_start(program: str, error: OSError) -> str:
    """Say why a program could not be started, and where it was looked for."""
    if isinstance(error, FileNotFoundError):
        return f"{program} not found on {socket.gethostname()} (PATH={os.environ.get('PATH', '')})"
    return f"cannot start {program}: {error.strerror or error}"

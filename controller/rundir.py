"""The job folders on the shared file system: `api.contract.job.folder` says where they lie.

Files here are the only channel from job to controller. They come late on NFS, and may be garbled: both read as absent.
What this host could not look at, for want of descriptors or memory, is neither: `OSError` is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import stat
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from api.contract.job.folder import (
    CLAIM,
    CLOSED,
    DRAIN,
    EXIT,
    PARAMETERS,
    PROBE,
    PROLOGUE,
    STATE,
    STDERR,
    job_folder,
    jobs_folder,
    library,
    name_of,
    read_object,
)
from api.contract.job.own_trouble import is_own_trouble
from api.contract.job.private import BY_OTHERS, is_trusted, make_folder, open_regular, require_private
from controller.bundle import bundle, file_name, launch_script
from controller.core.attempt import ProbeSpec
from controller.core.job_files import Claim, Held, JobExit, JobFiles, Revoked, Unreadable, Verdict
from controller.ports import JobFolder, UsedTokenError
from controller.signs import Sign, Signs

log = logging.getLogger(__name__)

LARGEST_FILE = 1_000_000

LONGEST_DETAIL = 200
LAST_LINES = 4
LAST_BYTES = 2000
"""Of what a job said at last."""
"""Characters of what a job says of its step."""


class SharedRunDirs:
    """RUN_DIR of one installation."""

    def __init__(self, run_dir: Path, installation: str, prologue: str) -> None:
        self._run_dir = run_dir
        self._jobs = jobs_folder(run_dir, installation)
        self._library = library(run_dir)
        self._prologue = prologue
        self._bundle = bundle()
        self._launch = launch_script().encode()
        self._supplied: dict[Path, tuple[int, ...]] = {}
        self._signs = Signs()

    def folder(self, service_id: str, token: str) -> Path:
        """Return the folder of an attempt's job."""
        return job_folder(self._jobs, service_id, token)

    def job_folder(self, service_id: str, token: str) -> JobFolder:
        """Return where an attempt's job finds its things, none of which this makes."""
        return JobFolder(
            path=str(self.folder(service_id, token)),
            launch_script=str(self._library / name_of(self._launch, "launch", ".sh")),
            wrapper=str(self._library / file_name(self._bundle)),
        )

    async def prepare(
        self, service_id: str, token: str, parameters: bytes, probe: ProbeSpec | None = None
    ) -> JobFolder:
        """Create the folder (0700) of an attempt with its parameters and how it is probed (0600); raises `OSError`.

        What its job will run is compared with what it has to be, and written anew where it differs.
        """
        return await asyncio.to_thread(self._prepare, self.job_folder(service_id, token), parameters, probe)

    async def read(self, service_id: str, tokens: Collection[str]) -> Mapping[str, JobFiles]:
        """Read what each of these jobs has written."""
        if not tokens:
            return {}
        return await asyncio.to_thread(self._read, service_id, tokens)

    async def launched(self, service_id: str, token: str) -> ProbeSpec | None:
        """Return how the engine of an attempt is probed, as noted when it was launched; `None`: that is not known."""
        path = self.folder(service_id, token) / PROBE
        return await asyncio.to_thread(_probe_spec, path)

    async def verdict(self, service_id: str, token: str) -> Verdict | None:
        """Read what the job's own health checks say."""
        return await asyncio.to_thread(self._verdict, service_id, token)

    def _read(self, service_id: str, tokens: Collection[str]) -> dict[str, JobFiles]:
        found = {token: _read(self.folder(service_id, token)) for token in tokens}
        quiet_for = self._signs.take(service_id, {token: sign for token, (_, sign) in found.items()})
        return {token: replace(files, quiet_for=quiet_for[token]) for token, (files, _) in found.items()}

    def _verdict(self, service_id: str, token: str) -> Verdict | None:
        folder = self.folder(service_id, token)
        told = _health(_json(folder / STATE).get("health"))
        return replace(told, age=self._signs.oldest(service_id, token)) if told is not None else None

    async def last_words(self, service_id: str, token: str) -> str:
        """Return the last lines that a job which has ended left in its standard error; "" if there are none."""
        return await asyncio.to_thread(_last_words, self.folder(service_id, token) / STDERR)

    async def revoke(self, service_id: str, token: str) -> None:
        """Link the claim as revoked, if nobody has it; raises `OSError` if that can't be tried."""
        await asyncio.to_thread(self._revoke, self.folder(service_id, token))

    async def tell_door(self, service_id: str, token: str, *, drains: bool) -> None:
        """Have an attempt's door let nobody new in, or let them in again; raises `OSError` if that can't be told."""
        path = self.folder(service_id, token) / DRAIN
        if drains:
            await asyncio.to_thread(_leave, path)
        else:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _prepare(self, job: JobFolder, parameters: bytes, probe: ProbeSpec | None) -> JobFolder:
        folder = Path(job.path)
        self._make_own(self._library)
        self._supply(Path(job.wrapper), self._bundle)
        self._supply(Path(job.launch_script), self._launch)
        self._make_own(folder)
        if (folder / CLAIM).exists():
            raise UsedTokenError(f"{folder} is claimed")
        if self._prologue:
            _write(folder / PROLOGUE, (self._prologue.rstrip() + "\n").encode())
        if probe is not None:
            _write(folder / PROBE, msgspec.json.encode(probe))
        _write(folder / PARAMETERS, parameters)
        return job

    def _make_own(self, folder: Path) -> None:
        """Make a folder below RUN_DIR. Raises `OSError` where it, or one above it, is not ours alone to write to.

        Jobs run what lies in it.
        """
        make_folder(folder)
        for path in (folder, *folder.parents):
            require_private(path)
            if path == self._run_dir:
                return

    def _supply(self, path: Path, content: bytes) -> None:
        """Have a file of the library hold this content, and be ours; one that was seen so is not read again."""
        mark = _mark(path)
        if mark and mark == self._supplied.get(path):
            return
        if not mark or not _holds(path, content):
            if mark:
                log.error("a file that jobs run was changed by somebody; it is written anew", extra={"file": path})
            _write(path, content)
        self._supplied[path] = _mark(path)

    async def say_closed(self, service_id: str, token: str) -> None:
        """Leave the file by which a job knows that it is the controller who ends it; raises `OSError`."""
        await asyncio.to_thread(_leave, self.folder(service_id, token) / CLOSED)

    async def clear(self, service_id: str, token: str) -> None:
        """Remove what the job of an attempt that is gone has not taken: its parameters, which hold the secret."""
        await asyncio.to_thread(_forget_secret, self.folder(service_id, token))

    def _revoke(self, folder: Path) -> None:
        self._make_own(folder)
        draft = folder / f".revoked.{secrets.token_hex(6)}"
        _write(draft, b'{"revoked": true}')
        try:
            with contextlib.suppress(FileExistsError):
                os.link(draft, folder / CLAIM)
        finally:
            draft.unlink()
        if isinstance(_claim(folder / CLAIM), Revoked):
            _forget_secret(folder)


def _mark(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content, owner and mode; nothing of one that is not there."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _holds(path: Path, content: bytes) -> bool:
    """Whether it is a file of ours, nobody else's to write to, with this content; raises `OSError`."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or not is_trusted(found.st_uid) or found.st_mode & BY_OTHERS:
        return False
    with open_regular(path) as file:
        return file.read(len(content) + 1) == content


def _leave(path: Path) -> None:
    """Make an empty file, if there is none; where the folder is gone there is nobody to read it."""
    with contextlib.suppress(FileNotFoundError):
        path.touch(mode=0o600)


def _forget_secret(folder: Path) -> None:
    """Remove the parameters of a job that will not read them any more."""
    with contextlib.suppress(OSError):
        (folder / PARAMETERS).unlink()


def read_job_files(folder: Path) -> JobFiles:
    """Read a job's claim, state and exit record; what is absent or garbled is `None`. Raises `OSError`."""
    return _read(folder)[0]


def _read(folder: Path) -> tuple[JobFiles, Sign | None]:
    """Read a job's files, and its sign of life, if its wrapper gives any."""
    state, changed = _json(folder / STATE), _changed(folder / STATE)
    files = JobFiles(
        claim=_claim(folder / CLAIM),
        step=_text(state.get("step")) or None,
        detail=" ".join(_text(state.get("detail")).split())[:LONGEST_DETAIL],
        port=_port(state.get("port")),
        network_refusal=" ".join(_text(state.get("network_refusal")).split())[:LONGEST_DETAIL],
        told_to_end_at=_time(state.get("told_to_end_at")),
        exit=_exit(_json(folder / EXIT)),
        is_told_to_drain=_changed(folder / DRAIN) is not None,
        is_empty=state.get("empty") is True,
    )
    return files, changed if "sign_interval" in state else None


def _last_words(path: Path) -> str:
    """Return the last lines of a text that another may have written, fit for a message."""
    try:
        with open_regular(path) as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LAST_BYTES, 0))
            lines = file.read(LAST_BYTES).decode(errors="replace").splitlines()
    except OSError as error:
        if is_own_trouble(error):
            raise
        return ""
    words = (" ".join("".join(c if c.isprintable() else " " for c in line).split()) for line in lines)
    return "\n".join([line for line in words if line][-LAST_LINES:])


def _changed(path: Path) -> Sign | None:
    """Return when a file was last changed, in nanoseconds of whoever keeps it."""
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        if is_own_trouble(error):
            raise
        return None


def _probe_spec(path: Path) -> ProbeSpec | None:
    try:
        with open_regular(path) as file:
            return msgspec.json.decode(file.read(LARGEST_FILE), type=ProbeSpec)
    except (OSError, msgspec.MsgspecError) as error:
        if is_own_trouble(error):
            raise
        return None


def _claim(path: Path) -> Claim | None:
    """Tell an absent claim, which may still be won, from one that somebody has but that can't be read."""
    value = _json(path)
    job_id = value.get("job_id")
    if value.get("revoked") is True:
        return Revoked()
    if _is_number(job_id, 1, 2**63 - 1):
        return Held(job_id=job_id)
    return Unreadable() if path.exists() else None


def _exit(value: dict[str, Any]) -> JobExit | None:
    code, reason = value.get("code"), _text(value.get("reason"))
    if not _is_number(code, -(2**31), 2**31 - 1) or not reason:
        return None
    return JobExit(code=code, reason=reason[:64], message=_text(value.get("message"))[:4000])


def _health(value: object) -> Verdict | None:
    told = value if isinstance(value, dict) else {}
    ok, failures = told.get("ok"), told.get("failures")
    if not isinstance(ok, bool) or not _is_number(failures, 0, 2**31 - 1):
        return None
    return Verdict(ok=ok, failures=failures, message=_text(told.get("message"))[:4000])


def _port(value: object) -> int | None:
    return value if _is_number(value, 1, 65535) else None


def _time(value: object) -> float | None:
    """Return Unix seconds; `None` for what is none, infinite or not a number."""
    return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None


def _is_number(value: object, least: int, most: int) -> TypeGuard[int]:
    """Whether it is a whole number that the database can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _text(value: object) -> str:
    """Return a text that the database can hold: no NUL, no half of a surrogate pair."""
    return value.replace("\0", "").encode(errors="replace").decode() if isinstance(value, str) else ""


def _json(path: Path) -> dict[str, Any]:
    return read_object(path, LARGEST_FILE)


def _write(path: Path, content: bytes) -> None:
    """Write a whole file or none, mode 0600."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise

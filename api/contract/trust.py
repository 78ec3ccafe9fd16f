"""Whether what lies in STATE_DIR and RUN_DIR is this user's alone: jobs and programs run it and believe it.

Every program asks when it starts, `ai-factory doctor` tells, `ai-factory secure` mends. Root counts as this user.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from api.contract.database_url import sqlite_file
from api.contract.exits import Exit, ExitError
from api.contract.job.folder import is_what_its_name_says, library
from api.contract.job.private import BY_OTHERS, is_trusted, open_regular, owner
from api.contract.settings import Settings
from api.contract.traces import PLANS, job_folders

VOLUMES, IMAGES = "volumes", "images"
"""Folders in RUN_DIR."""


class TrustError(ExitError):
    """Others may have put what they like where this user runs it; the message says what to do."""

    code = Exit.SETUP


class Fault(StrEnum):
    """What may be wrong with a folder or file."""

    READABLE = "readable"
    """It is ours, and more for others to see than it has to be."""
    SHARED = "shared"
    """A folder above it is another user's, or a group may write there: who that is was somebody's decision."""
    WRITABLE = "writable"
    """It is ours, and others may write to it."""
    EXPOSED = "exposed"
    """Anybody could put another folder in its place."""
    FOREIGN = "foreign"
    """It belongs to another user."""
    CHANGED = "changed"
    """It does not hold what its name says."""


HARMLESS = frozenset({Fault.READABLE, Fault.SHARED})
"""What no program refuses to start for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault of one folder or file."""

    path: Path
    fault: Fault
    what: str
    """What is the matter, without a full stop."""
    remedy: str
    mode: int = 0
    """The mode it is to have, of what is readable or writable."""

    def tighten(self) -> str:
        """Take from others what they need not have, and say so. Raises `OSError`."""
        before = stat.S_IMODE(self.path.stat().st_mode)
        after = before & (self.mode | stat.S_ISVTX)
        self.path.chmod(after)
        return f"mode {before:04o} → {after:04o}"


def require_trust(settings: Settings) -> tuple[str, ...]:
    """Tighten what others could only read; return that, and what else people should know, as sentences.

    Raises `TrustError` where others may write, own what is there, or have changed it.
    """
    notes = []
    for finding in inspect(settings):
        if finding.fault not in HARMLESS:
            raise TrustError(f"{finding.what}. {finding.remedy}")
        notes.append(f"{finding.what}: {_tightened(finding)}" if finding.mode else f"{finding.what}. {finding.remedy}")
    return tuple(notes)


def _tightened(finding: Finding) -> str:
    try:
        return finding.tighten()
    except OSError as error:
        return f"that can't be changed: {error.strerror}"


def inspect(settings: Settings) -> Iterator[Finding]:
    """Look at both folders, from above. What is not there is no fault; an inner folder is read after it was told of."""
    yield from _above(settings.state_dir, "state_dir")
    yield from _look(settings.state_dir, "state_dir", 0o700)
    database = sqlite_file(settings.database_url)
    if database is not None and settings.state_dir not in database.parents:
        yield from _above(database, "database_url")
    for file in _state_files(settings):
        yield from _look(file, "state_dir", 0o600)
    yield from _above(settings.run_dir, "run_dir")
    yield from _look(settings.run_dir, "run_dir", 0o755)
    for folder in (library(settings.run_dir), settings.run_dir / IMAGES, *job_folders(settings.run_dir)):
        yield from _look(folder, "run_dir", 0o700)
    yield from _look(settings.run_dir / VOLUMES, "run_dir", 0o755)
    for file in _files(library(settings.run_dir)):
        yield from _look(file, "run_dir", 0o600)
        yield from _content(file)
    for file in _files(settings.run_dir / IMAGES):
        yield from _look(file, "run_dir", 0o600)


def _state_files(settings: Settings) -> Iterator[Path]:
    database = sqlite_file(settings.database_url)
    if database is not None:
        yield from (database.with_name(f"{database.name}{suffix}") for suffix in ("", "-wal", "-shm", "-journal"))
    yield from (settings.state_dir / f"{PLANS}{suffix}" for suffix in ("", ".1"))


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if not path.is_dir())
    except OSError:
        return


def _above(folder: Path, setting: str) -> Iterator[Finding]:
    """Look at the folders above one: who may write there can put another in its place."""
    for path in sorted({*folder.parents, *folder.resolve().parents}):
        try:
            user, mode = owner(path), path.stat().st_mode
            laid_by_another = path.is_symlink() and not is_trusted(path.lstat().st_uid)
        except OSError:
            continue
        is_sticky = bool(mode & stat.S_ISVTX)
        if laid_by_another or (mode & stat.S_IWOTH and not is_sticky):
            who = f"user {user}, who laid that link," if laid_by_another else "anybody"
            what = f"{who} could put another folder in the place of {folder} ({setting}), through {path}"
            yield Finding(path=path, fault=Fault.EXPOSED, what=_capital(what), remedy=_elsewhere(setting))
        elif not is_trusted(user) or (mode & stat.S_IWGRP and not is_sticky):
            who = f"its group {path.stat().st_gid}" if is_trusted(user) else f"user {user}, who owns it,"
            what = f"Above {folder} ({setting}) lies {path}, where {who} could put another folder in its place"
            yield Finding(path=path, fault=Fault.SHARED, what=what, remedy=f"Else set {setting} to another folder.")


def _look(path: Path, setting: str, mode: int) -> Iterator[Finding]:
    """Look at one of ours, which is to have no more than a mode."""
    try:
        user, found = owner(path), stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if not is_trusted(user):
        what = f"{path} belongs to user {user}, who may have put there what they like"
        yield Finding(path=path, fault=Fault.FOREIGN, what=what, remedy=_elsewhere(setting))
    elif found & BY_OTHERS:
        what, remedy = f"{path} may be written by others (mode {found:04o})", "Run: ai-factory secure"
        yield Finding(path=path, fault=Fault.WRITABLE, what=what, remedy=remedy, mode=mode)
    elif found & 0o077 & ~mode and user == os.getuid():
        what, remedy = f"{path} could be read by others", "Run: ai-factory secure"
        yield Finding(path=path, fault=Fault.READABLE, what=what, remedy=remedy, mode=mode)


def _content(file: Path) -> Iterator[Finding]:
    """Look whether a file of the library is what was put there."""
    if file.name.startswith("."):
        return  # on its way
    try:
        with open_regular(file) as opened:
            content = opened.read()
    except OSError:
        return
    if not is_what_its_name_says(file.name, content):
        remedy = f"{_elsewhere('run_dir')} If a broken disk did it, and nobody else, remove the file: it is made anew."
        yield Finding(path=file, fault=Fault.CHANGED, what=f"{file} does not hold what its name says", remedy=remedy)


def _elsewhere(setting: str) -> str:
    """Say what to do where others may have planted something: nothing that lies there can be believed."""
    what = f"Set {setting} to a new folder, which only this user and root can reach by name."
    if setting == "state_dir":
        return f"{what} The database comes there by: ai-factory restore FILE, of a backup that you trust."
    return f"{what} Let running jobs end before: they write to the old one."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]

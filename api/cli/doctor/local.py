"""Checks of this host: folders, database, keys, recipes; and whether API and controller are at work."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from api.cli.context import server_url
from api.cli.doctor.check import Check, CheckFailedError, SkippedError, WarnedError
from api.cli.errors import CliError
from api.cli.programs.beginning import lost
from api.cli.rest.client import Client, admin_key
from api.cli.rest.server_tls import tls_of
from api.cli.terminal.text import duration
from api.contract.configuration import process_environment
from api.contract.database import (
    NETWORK_FILE_SYSTEMS,
    Database,
    SchemaError,
    cause,
    driver_url,
    file_system,
    open_database,
)
from api.contract.database_url import shown_url
from api.contract.exits import Exit
from api.contract.identity import KeyFileError, load_keys
from api.contract.job.private import make_folder
from api.contract.recipes.book import Library
from api.contract.settings import Settings
from api.contract.tables import EventRow, LeaseRow
from api.contract.traces import find_traces
from api.contract.trust import Fault, inspect

LEAST_FOR_STATE = 2**28
LEAST_FOR_JOBS = 2**30
LEFT_OUT_FOR = 3600.0
"""Seconds for which jobs are kept off a node, at most, before it is tried again."""
QUOTA_BYTES = 16 * 2**20
FULL = (errno.ENOSPC, errno.EDQUOT)
START = "Start it with: ai-factory up"


class Local:
    """The checks, over one set of settings."""

    def __init__(self, settings: Settings, server: str | None) -> None:
        self._settings = settings
        self._url = server or server_url(settings)
        self._is_chosen = bool(server)

    def checks(self) -> list[Check]:
        """Return what can be checked before any program runs."""
        return [
            Check("state_dir", self._state_dir),
            Check("room in state_dir", self._room_for_state, needs=("state_dir",)),
            Check("run_dir", self._run_dir),
            Check("only this user writes", self._permissions, needs=("state_dir", "run_dir")),
            Check("room in run_dir", self._room_for_jobs, needs=("run_dir",)),
            Check("database", self._database, needs=("state_dir",)),
            Check("key file", self._key_file),
            Check("administrator's key", self._admin_key),
            Check("recipes", self._recipes),
            Check("Apptainer here", self._apptainer),
        ]

    def program_checks(self) -> list[Check]:
        """Return what can be checked of running programs."""
        return [
            Check("API", self._api),
            Check("controller", self._controller, needs=("database",)),
            Check("nodes that jobs are kept off", self._left_out, needs=("database",)),
        ]

    def _state_dir(self) -> str:
        folder = self._settings.state_dir
        database = driver_url(self._settings.database_url)
        kind = file_system(Path(database.database or "")) if database.get_backend_name() == "sqlite" else ""
        if kind in NETWORK_FILE_SYSTEMS:
            raise CheckFailedError(
                f"the SQLite database lies on {kind}, a network file system",
                "Set state_dir to a folder on a local disk, or database_url to a PostgreSQL server.",
            )
        _require_writable(folder, "state_dir")
        return f"{folder} on {file_system(folder) or 'an unknown file system'}"

    def _run_dir(self) -> str:
        folder = self._settings.run_dir
        _require_writable(folder, "run_dir")
        return f"{folder} on {file_system(folder) or 'an unknown file system'}"

    def _permissions(self) -> str:
        """Ask who may write where database, key and jobs' programs lie: whoever can, runs jobs as this user."""
        state, jobs = self._settings.state_dir, self._settings.run_dir
        found = tuple(inspect(self._settings))
        for finding in found:
            if finding.fault is not Fault.SHARED:
                raise CheckFailedError(finding.what, finding.remedy)
        modes = f"{state} has mode {_mode(state)}, {jobs} {_mode(jobs)}"
        return ". ".join([modes, *(finding.what for finding in found)])

    def _room_for_state(self) -> str:
        return _room(self._settings.state_dir, LEAST_FOR_STATE, "Make room there, or set state_dir to another folder.")

    def _room_for_jobs(self) -> str:
        remedy = "Make room there, or set run_dir to another shared folder; vLLM's image alone takes 10 GB."
        return _room(self._settings.run_dir, LEAST_FOR_JOBS, remedy)

    def _database(self) -> str:
        try:
            asyncio.run(self._require_database())
        except SchemaError as error:
            what, _, remedy = str(error).partition(". ")
            raise CheckFailedError(what, remedy or "Run: ai-factory migrate") from error
        return f"{shown_url(self._settings.database_url)}, schema as it should be"

    async def _require_database(self) -> None:
        """Raise `SchemaError`, or `CheckFailedError` where it is empty, and an installation was run from here."""
        url = self._settings.database_url
        database = Database(url)
        try:
            if await database.revision() is None:
                traces = find_traces(self._settings)
                if traces.run_from_here:
                    raise CheckFailedError(*lost(traces, shown_url(url)))
                raise SkippedError(f"{shown_url(url)} has no tables yet: the first `ai-factory up` makes them")
            await database.check()
        finally:
            await database.close()

    def _key_file(self) -> str:
        path = self._settings.key_file
        if not path.exists():
            raise SkippedError(f"{path} will be made by the first program that starts")
        try:
            load_keys(path)
        except KeyFileError as error:
            what, _, remedy = str(error).partition(". ")
            raise CheckFailedError(what, remedy or "See that this user may read it.") from error
        return str(path)

    def _admin_key(self) -> str:
        path = self._settings.api.admin_key_file
        if path is None:
            raise SkippedError("none set: only this user is served, and only on a loopback address")
        if path.exists() and (mode := path.stat().st_mode & 0o777) != 0o600:
            raise CheckFailedError(f"{path} has mode {mode:04o}", f"Run: chmod 600 {path}")
        try:
            admin_key(path)
        except CliError as error:
            raise CheckFailedError(str(error), f"Write a key: (umask 077; openssl rand -hex 32 > {path})") from error
        return f"{path}; over TCP all need it, this user too" if self._settings.api.require_key else str(path)

    def _recipes(self) -> str:
        book = Library(self._settings.recipes, self._settings.recipe).book()
        folders = ", ".join(map(str, self._settings.recipes))
        if book.problems:
            raise CheckFailedError(next(iter(book.problems.values())), "See all: ai-factory recipes validate")
        if not book.recipes:
            raise CheckFailedError(f"there are none in {folders}", "Set recipes to the folders that hold them.")
        if missing := [str(folder) for folder in self._settings.recipes if not folder.is_dir()]:
            raise WarnedError(
                f"{len(book.recipes)} in {folders}, but there is no folder {', '.join(missing)}",
                "Make it, or correct recipes.",
            )
        return f"{len(book.recipes)} in {folders}"

    def _apptainer(self) -> str:
        command = [self._settings.apptainer.command, "--version"]
        try:
            ended = subprocess.run(
                command, env=process_environment(), capture_output=True, text=True, timeout=20, check=False
            )
        except FileNotFoundError as error:
            raise SkippedError(f"{command[0]} is not on this host; only jobs need it") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CheckFailedError(f"{command[0]} does not run: {error}", "Set apptainer.command.") from error
        if ended.returncode != 0:
            raise CheckFailedError(f"{' '.join(command)}: {ended.stderr.strip()}", "Set apptainer.command.")
        return ended.stdout.strip()

    def _api(self) -> str:
        try:
            key = admin_key(self._settings.api.admin_key_file)
            tls = tls_of(self._settings, self._url if self._is_chosen else None)
            with Client(self._url, key, is_chosen=self._is_chosen, tls=tls) as client:
                status = client.health()
        except CliError as error:
            if error.code is Exit.UNREACHABLE and "can't be reached" in str(error):
                raise SkippedError(f"nothing listens at {self._url}. {START}") from error
            raise CheckFailedError(
                str(error),
                "See what the API printed. If another program has this port (ss -ltnp), set api.port to another one.",
            ) from error
        if status.get("status") != "healthy":
            raise CheckFailedError(f"{self._url} says: {status}", "See what the API printed.")
        return f"{self._url} is healthy"

    def _controller(self) -> str:
        lease = asyncio.run(_lease(self._settings.database_url))
        if lease is None or lease[0] is None:
            raise SkippedError(f"none is at work. {START}")
        _, host, renewed_at = lease
        silent = time.time() - renewed_at
        if silent > 2 * self._settings.controller.lease:
            raise CheckFailedError(f"the one on {host} has not been heard of for {duration(silent)}", START)
        return f"at work on {host}, heard of {max(0.0, silent):.0f} s ago"

    def _left_out(self) -> str:
        found = asyncio.run(_newest_event(self._settings.database_url, "NodesExcluded", time.time() - LEFT_OUT_FOR))
        if found is not None:
            raise WarnedError(found, "See what failed there (services describe NAME), and tell the site.")
        return "none in the last hour"


def _require_writable(folder: Path, setting: str) -> None:
    """Raise `CheckFailedError` unless files can be written there; a folder that is missing is made."""
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            os.fsync(file.fileno())
    except OSError as error:
        is_full = error.errno in FULL
        raise CheckFailedError(
            f"{folder} can't be written: {error.strerror}",
            f"Make room there, or set {setting} to another folder."
            if is_full
            else f"Set {setting} to a folder that this user may write.",
        ) from error


def _mode(folder: Path) -> str:
    return f"{stat.S_IMODE(folder.stat().st_mode):04o}"


def _room(folder: Path, least: int, remedy: str) -> str:
    """Ask whether a folder takes more: a quota shows itself only when something is written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, QUOTA_BYTES)
    except OSError as error:
        if error.errno not in FULL:
            raise SkippedError(f"{folder}: {error.strerror}") from error
        what = "your quota is used up" if error.errno == errno.EDQUOT else "it is full"
        raise CheckFailedError(f"{folder}: {what}", remedy) from error
    room = shutil.disk_usage(folder).free
    if room < least:
        raise CheckFailedError(f"{folder} has only {room / 2**30:.1f} GB left", remedy)
    return f"{room / 2**30:.0f} GB"


async def _newest_event(url: str, reason: str, since: float) -> str | None:
    """Return what the newest event of that reason says; `None`: there was none."""
    database = await open_database(url)
    try:
        query = select(EventRow.message).where(EventRow.reason == reason, EventRow.last_at > since)
        query = query.order_by(EventRow.last_at.desc()).limit(1)
        return await database.read(lambda connection: connection.scalar(query))
    except SQLAlchemyError as error:
        raise CheckFailedError(
            f"the database can't be read: {cause(error)}", "See the check of the database."
        ) from error
    finally:
        await database.close()


async def _lease(url: str) -> tuple[str | None, str | None, float] | None:
    """Return holder, host and last renewal (Unix seconds) of the lease that was renewed last."""
    database = await open_database(url)
    try:
        query = (
            select(LeaseRow.holder, LeaseRow.host, LeaseRow.renewed_at).order_by(LeaseRow.renewed_at.desc()).limit(1)
        )
        row = await database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else (row[0], row[1], float(row[2]))
    except SQLAlchemyError as error:
        raise CheckFailedError(
            f"the database can't be read: {cause(error)}", "See the check of the database."
        ) from error
    finally:
        await database.close()

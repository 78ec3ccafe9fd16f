"""A backup: one tar file of mode 0600 that holds the database as it was at one moment, and the installation's key.

It is made while everything runs. It is restored to an empty place, with the programs stopped.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.engine import URL

from api.contract.configuration import process_environment
from api.contract.database import Database, head
from api.contract.database_url import shown_url
from api.contract.exits import ExitError
from api.contract.identity import keys_in
from api.contract.job.private import make_folder
from api.contract.tables import EndpointRow, InstallationRow, LeaseRow, ServiceStatus
from api.contract.transfer import transfer

FORMAT = 1
ABOUT, KEY, SQLITE, POSTGRESQL = "about.json", "installation.key", "ai-factory.db", "ai-factory.pgdump"


class BackupError(ExitError):
    """It can't be made, or not be restored; the message says why and what to do. Nothing was changed."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself."""

    format: int
    made_at: float
    """Unix seconds."""
    program: str
    installation: str
    schema: str
    """The revision of the database."""
    database: str
    """The name of the dump in the file, which tells SQLite from PostgreSQL."""


async def backup(database: Database, key_file: Path, target: Path, program: str) -> About:
    """Write a new file. Raises `BackupError`."""
    if target.exists():
        raise BackupError(f"{target} is there already. Name another file.")
    try:
        with _folder_beside(target) as folder:
            about = await _about(database, program)
            dump = folder / about.database
            _copy_sqlite(_path(database), dump) if database.is_sqlite else _dump(database.url, dump)
            draft = folder / "backup.tar"
            with _private(draft) as file, tarfile.open(fileobj=file, mode="w") as archive:
                _add(archive, ABOUT, msgspec.json.encode(about))
                _add(archive, KEY, key_file.read_bytes())
                archive.add(dump, about.database)
                file.flush()
            os.link(draft, target)  # unlike a rename, it replaces nothing
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"The backup can't be written: {error}.") from error
    return about


async def restore(database: Database, key_file: Path, source: Path) -> About:
    """Fill an empty database, and put the keys in their place. Raises `BackupError`."""
    if await database.revision() is not None:
        where = shown_url(database.url)
        raise BackupError(f"{where} is not empty. Point state_dir or database_url to a new place, or move it away.")
    try:
        with source.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            about = _read_about(archive, source)
            moves = about.database == SQLITE and not database.is_sqlite
            if moves and about.schema != head():
                raise BackupError(
                    f"{source} has the schema {about.schema}, not {head()}, under which it can be moved to PostgreSQL. "
                    "Restore it to SQLite, run ai-factory migrate, make a backup of that, and restore it here."
                )
            if about.database == POSTGRESQL and database.is_sqlite:
                raise BackupError(f"{source} holds {about.database}: database_url must be PostgreSQL's.")
            key = _member(archive, KEY).read()
            if key_file.exists() and not {*keys_in(key_file.read_bytes())} & {*keys_in(key)}:
                raise BackupError(f"{key_file} is the key of another installation. Move it away, or set key_file.")
            dump = _member(archive, about.database)
            if moves:
                await _move(database, dump, about)
            else:
                _fill(database, dump, about.database)
            _restore_key(key_file, key)
    except (OSError, sqlite3.Error, tarfile.TarError, KeyError) as error:
        raise BackupError(f"{source} can't be restored: {error}.") from error
    await _forget_observations(database)
    return about


async def _forget_observations(database: Database) -> None:
    """Drop what was true when the backup was made: who led, what answered, and where. A controller sees it afresh."""
    async with database.write() as connection:
        await connection.execute(update(LeaseRow).values(holder=None))
        await connection.execute(update(ServiceStatus).values(ready_replicas=0, conditions=[]))
        await connection.execute(delete(EndpointRow))


async def _about(database: Database, program: str) -> About:
    installation = await database.read(lambda connection: connection.execute(select(InstallationRow.id)).scalar_one())
    return About(
        format=FORMAT,
        made_at=time.time(),
        program=program,
        installation=str(installation),
        schema=str(await database.revision()),
        database=SQLITE if database.is_sqlite else POSTGRESQL,
    )


def _copy_sqlite(source: Path, target: Path) -> None:
    """Copy it as it is at one moment; writers go on meanwhile (sqlite.org/backup.html)."""
    with (
        _private(target),
        contextlib.closing(sqlite3.connect(source)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


def _dump(url: URL, target: Path) -> None:
    _run(url, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}")


async def _move(database: Database, dump: IO[bytes], about: About) -> None:
    """Fill a PostgreSQL database from what is of SQLite."""
    with _folder_beside(Path(tempfile.gettempdir()) / about.database) as folder:
        await transfer(_unpacked(dump, folder / about.database), database, installation=about.installation)


def _unpacked(dump: IO[bytes], copy: Path) -> Path:
    """Write SQLite's file; raises `BackupError` for one that is damaged."""
    with _private(copy) as file:
        shutil.copyfileobj(dump, file)
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        connection.text_factory = lambda text: text.decode(errors="replace")  # damage may be told in any bytes
        (found,) = connection.execute("PRAGMA integrity_check").fetchone()
    if found != "ok":
        raise BackupError(f"The database in the backup is damaged: {found}.")
    return copy


def _fill(database: Database, dump: IO[bytes], name: str) -> None:
    near = _path(database) if database.is_sqlite else Path(tempfile.gettempdir()) / name
    if database.is_sqlite:
        _refuse_remnants(near)
    with _folder_beside(near) as folder:
        copy = folder / name
        if database.is_sqlite:
            os.link(_unpacked(dump, copy), near)
            return
        with _private(copy) as file:
            shutil.copyfileobj(dump, file)
        options = ("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error")
        _run(database.url, "pg_restore", *options, f"--dbname={database.url.database}", str(copy))


def _refuse_remnants(path: Path) -> None:
    """Raise `BackupError` for an empty file, or for a log without its database, which SQLite would replay into ours."""
    for remnant in (path, *(path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-journal"))):
        if remnant.exists():
            raise BackupError(f"{remnant} is left of another database. Move it away.")


def _restore_key(path: Path, content: bytes) -> None:
    """Put the key where it belongs, unless there is one: that file may hold newer keys, which jobs need by now."""
    if path.exists():
        return
    with _folder_beside(path) as folder:
        draft = folder / path.name
        with _private(draft) as file:
            file.write(content)
        os.link(draft, path)


def _read_about(archive: tarfile.TarFile, source: Path) -> About:
    try:
        about = msgspec.json.decode(_member(archive, ABOUT).read(), type=About)
    except (KeyError, msgspec.MsgspecError) as error:
        raise BackupError(f"{source} is no backup of AI Factory Server.") from error
    if about.format > FORMAT:
        raise BackupError(f"{source} has the format {about.format}, this version reads {FORMAT}. Install a newer one.")
    return about


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open a plain file of the archive; nothing is ever unpacked under a name that the archive chose."""
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(content))


def _run(url: URL, *command: str) -> None:
    """Run one of PostgreSQL's own programs; the password goes by the environment (libpq, PGPASSWORD)."""
    try:
        done = subprocess.run(
            command, env=_libpq(url), check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise BackupError(f"{command[0]} is not on PATH: install PostgreSQL's client programs.") from error
    if done.returncode != 0:
        raise BackupError(f"{command[0]} failed: {' '.join(done.stderr.split())}")


def _libpq(url: URL) -> Mapping[str, str]:
    """Say in libpq's variables what the database URL says."""
    given = {
        "PGHOST": url.query.get("host") or url.host,
        "PGPORT": url.query.get("port") or url.port,
        "PGUSER": url.username or url.query.get("user"),
        "PGPASSWORD": url.password or url.query.get("password"),
        "PGDATABASE": url.database,
        "PGSSLMODE": url.query.get("ssl"),
    }
    return process_environment() | {name: str(value) for name, value in given.items() if value}


def _path(database: Database) -> Path:
    return Path(database.url.database or "")


@contextlib.contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Give a private folder on the same file system, and remove it."""
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=".ai-factory-", dir=target.parent) as folder:
        yield Path(folder)


def _private(path: Path) -> IO[bytes]:
    """Open a new file of mode 0600."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")

"""The engine and its transactions, the same for SQLite and PostgreSQL.

Every write transaction is immediate (measured: a deferred one loses hundreds of concurrent writes to SQLITE_BUSY);
readers use an engine whose transactions are not. On SQLite a whole reading transaction is one hop to a thread:
aiosqlite takes four for every statement, which is most of what a short one costs (measured: two thirds of the CPU).
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from api.contract.configuration import shared_folder
from api.contract.database_url import parse_url, shown_url
from api.contract.exits import Exit, ExitError
from api.contract.job.private import make_folder
from api.contract.json_columns import read_json

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "lustre", "beegfs", "gpfs", "ceph", "glusterfs", "afs", "fuse.sshfs", "9p"}
)
BUSY_SECONDS = 10
PRIMARY_CODE = 0xFF
"""The bits of SQLite's result codes that name the kind of error."""
READERS = 4
"""Reading transactions on SQLite at a time."""

BROKEN_FILE = "See that this user may read it; if it is broken, restore a backup (ai-factory restore)."

_Found = TypeVar("_Found")


class SchemaError(ExitError):
    """The database can't be used as it is; the message says which command mends it."""

    code = Exit.SETUP


class Database:
    """One database by URL: `read` and `write` transactions."""

    def __init__(self, url: str) -> None:
        self.url = driver_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _refuse_network_file_system(Path(self.url.database or ""))
            self._writer = _sqlite_engine(self.url, "BEGIN IMMEDIATE", pool_size=1)
            self._reader: _ThreadedReader | None = _ThreadedReader(self.url)
        else:
            self._reader = None
            # A writer waits for another's lock as long as on SQLite, not for ever.
            waits = {"lock_timeout": f"{int(BUSY_SECONDS * 1000)}ms"}
            self._writer = create_async_engine(
                self.url,
                pool_pre_ping=True,
                pool_size=8,
                json_deserializer=read_json,
                connect_args={"timeout": BUSY_SECONDS, "server_settings": waits},
            )

    @property
    def engine(self) -> AsyncEngine:
        """The engine of write transactions, for migrations."""
        return self._writer

    async def read(self, query: Callable[[Connection], _Found]) -> _Found:
        """Return what `query` finds in one reading transaction. It may run in another thread: it takes what it is
        given, and returns rows, no open result.
        """
        if self._reader is not None:
            return await self._reader.read(query)
        async with self._writer.begin() as connection:
            return await connection.run_sync(query)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open an immediate writing transaction; it is committed at the end, or rolled back by an exception."""
        async with self._writer.begin() as connection:
            yield connection

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        if self._reader is not None:
            await self._reader.close()

    async def revision(self) -> str | None:
        """Return the schema's revision, `None` for an empty database. Raises `SchemaError` if it can't be reached."""
        if self.is_sqlite and not Path(self.url.database or "").exists():
            return None
        try:
            return await self.read(_revision)
        except (SQLAlchemyError, OSError, TypeError) as error:  # TypeError: an option that the driver does not know
            raise SchemaError(
                f"The database {shown_url(self.url)} can't be reached: {cause(error)}. "
                + (BROKEN_FILE if self.is_sqlite else "Check database_url, and that the server runs.")
            ) from error

    async def installation(self) -> str | None:
        """Return the id of its installation, `None` for an empty database. Raises `SchemaError` as `revision` does."""
        if await self.revision() is None:
            return None
        query = text("SELECT id FROM installation")
        return str(await self.read(lambda connection: connection.execute(query).scalar_one()))

    async def check(self) -> None:
        """Raise `SchemaError` unless the schema is the one this program was written for."""
        found, wanted = await self.revision(), head()
        if found == wanted:
            return
        where = shown_url(self.url)
        if found is None:
            raise SchemaError(f"The database {where} has no tables yet. Run: ai-factory migrate")
        if found not in revisions():
            raise SchemaError(
                f"The database {where} has the schema {found}, which this version does not know: "
                "it was made by a newer one. Install that version, or restore a backup."
            )
        raise SchemaError(f"The database {where} has the schema {found}, needed is {wanted}. Run: ai-factory migrate")


def driver_url(url: str) -> URL:
    """Complete a database URL with the asynchronous driver; raises `SchemaError` for what can't be used."""
    parsed = parse_url(url)
    if parsed is None:  # it may hold a password in the wrong place, so it is not shown
        raise SchemaError("database_url is not a database URL. Write it like postgresql://USER@HOST/NAME")
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    driver = drivers.get(parsed.drivername.split("+")[0])
    if driver is None:
        raise SchemaError(f"database_url must begin with sqlite:// or postgresql://, not {parsed.drivername}://.")
    if driver.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
        raise SchemaError("database_url must name a file: several programs share it.")
    if "sslmode" in parsed.query:  # psql's word for what asyncpg calls ssl
        mode = parsed.query["sslmode"]
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed.set(drivername=driver)


def cause(error: BaseException) -> str:
    """Return the driver's own words for a database error, on one line; where a password fails, where it belongs."""
    inner = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    words = " ".join(str(inner).split()) or type(inner).__name__
    if "no password supplied" in words or "password authentication failed" in words:
        return f"{words} (a line HOST:PORT:DATABASE:USER:PASSWORD in ~/.pgpass, mode 0600, gives the password)"
    return words


def migration_config() -> Config:
    """Return Alembic's configuration with the place of the migrations."""
    config = Config()
    config.set_main_option("script_location", str(shared_folder("migrations")).replace("%", "%%"))
    return config


def head() -> str:
    """Return the revision this program was written for."""
    return str(ScriptDirectory.from_config(migration_config()).get_current_head())


def revisions() -> frozenset[str]:
    """Return all revisions that this program knows."""
    return frozenset(r.revision for r in ScriptDirectory.from_config(migration_config()).walk_revisions())


async def migrate(database: Database, revision: str = "head", *, installation: str | None = None) -> None:
    """Bring the schema to a revision, upwards or downwards, in one transaction.

    `installation` is the id that an empty database gets; `None`: a new one. Raises `SchemaError` if it has another.
    """
    if database.is_sqlite:
        _make_file(Path(database.url.database or ""))
    async with database.write() as connection:
        await connection.run_sync(_migrate, revision, installation)


def _make_file(path: Path) -> None:
    """Make an empty file of mode 0600; SQLite gives its log the mode of the database."""
    make_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _migrate(connection: Connection, revision: str, installation: str | None) -> None:
    config = migration_config()
    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(7241)"))
    script = ScriptDirectory.from_config(config)
    current = _revision(connection)
    ordered = [r.revision for r in script.walk_revisions()]
    target = script.get_current_head() if revision == "head" else revision
    if current in ordered and (target == "base" or ordered.index(str(target)) > ordered.index(current)):
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)
    if installation is not None:
        _name(connection, installation, is_new=current is None)


def _name(connection: Connection, installation: str, *, is_new: bool) -> None:
    """Have a new database be that installation's; raises `SchemaError` for one that is another's already."""
    if is_new:
        connection.execute(text("UPDATE installation SET id = :id"), {"id": installation})
    found = connection.execute(text("SELECT id FROM installation")).scalar_one()
    if found != installation:
        where = shown_url(connection.engine.url)
        raise SchemaError(f"The database {where} is that of installation {found}. An id is only given to an empty one.")


class _ThreadedReader:
    """Reading transactions on SQLite, in threads of their own."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            pool_size=READERS,
            max_overflow=0,
            json_deserializer=read_json,
            connect_args={"timeout": BUSY_SECONDS},
        )
        _set_up(self._engine, "BEGIN", time.sleep)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="database")

    async def read(self, query: Callable[[Connection], _Found]) -> _Found:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, query)

    def _read(self, query: Callable[[Connection], _Found]) -> _Found:
        with self._engine.begin() as connection:
            return query(connection)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()


def _sqlite_engine(url: URL, begin: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        json_deserializer=read_json,
        connect_args={"timeout": BUSY_SECONDS},
    )
    _set_up(engine.sync_engine, begin, lambda seconds: await_only(asyncio.sleep(seconds)))
    return engine


def _set_up(engine: Engine, begin: str, pause: Callable[[float], object]) -> None:
    """Have an engine's connections to SQLite set up, looked at before each use, and begin their transactions so."""
    path = Path(engine.url.database or "")

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        _use_wal(cursor, pause)
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()
        record.info["file"] = file_identity(path)

    @event.listens_for(engine, "checkout")
    def _checked_out(_: object, record: Any, __: object) -> None:
        # What is written to a file that a restored backup has replaced would be lost without a word.
        if record.info["file"] != file_identity(path):
            raise DisconnectionError(f"{path} was replaced")

    @event.listens_for(engine, "handle_error")
    def _failed(context: ExceptionContext) -> None:
        # A file that can't be written is opened for reading alone, and a connection stays as it was opened.
        code = getattr(context.original_exception, "sqlite_errorcode", 0)
        if code & PRIMARY_CODE == sqlite3.SQLITE_READONLY:
            context.is_disconnect = True

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _use_wal(cursor: Any, pause: Callable[[float], object]) -> None:
    """Switch to WAL. Of several that do so at once on a new file, SQLite refuses some without waiting (measured)."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            pause(0.01)
        else:
            return


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another that was put in its place; `None` if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse_network_file_system(path: Path) -> None:
    kind = file_system(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise SchemaError(
            f"SQLite does not work on a network file system, and {path} lies on {kind}. "
            "Set state_dir to a folder on a local disk, or database_url to a PostgreSQL server."
        )


def file_system(path: Path) -> str:
    """Return the type of the file system that holds `path`, from /proc/self/mounts (proc(5))."""
    resolved = path.resolve()
    best, kind = "", ""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, mount, this, *_ = line.split(" ")
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount)
        if resolved.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, this
    return kind


async def open_database(url: str) -> Database:
    """Open a database and check its schema; raises `SchemaError`."""
    database = await asyncio.to_thread(Database, url)
    try:
        await database.check()
    except SchemaError:
        await database.close()
        raise
    return database

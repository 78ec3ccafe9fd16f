"""`backup` and `restore` on both databases: everything comes back, secrets stay secret, nothing is overwritten."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import sqlite3
import tarfile
from pathlib import Path

import msgspec
import pytest
from backends import Backend, on_sqlite
from postgres_server import PostgresServer
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from api.contract.backup import FORMAT, About, BackupError, backup, restore
from api.contract.database import Database
from api.contract.tables import Service

INSERT = "INSERT INTO services (id, recipe_name) VALUES ('s{}', 'simple/hello')"
EVENT = (
    "INSERT INTO events (service_id, type, reason, message, count, first_at, last_at)"
    " VALUES ('s1', 'Normal', 'R{}', 'it''s', 1, 1.5, 2.5)"
)
_numbers = itertools.count()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "installation.key"
    path.parent.mkdir()
    path.write_bytes(b"k" * 32)
    return path


@pytest.fixture
def elsewhere(backend: Backend, tmp_path: Path) -> Backend:
    """An empty place of the same kind."""
    if backend.server is None:
        path = tmp_path / "new" / "ai-factory.db"
        return Backend(kind=backend.kind, url=f"sqlite:///{path}", name=str(path))
    name = f"restored_{next(_numbers)}"
    backend.server.psql(f"CREATE DATABASE {name}")
    return Backend(kind=backend.kind, url=backend.server.url(name), name=name, server=backend.server)


async def make(backend: Backend, key_file: Path, target: Path) -> About:
    database = Database(backend.url)
    try:
        return await backup(database, key_file, target, "1.2.3")
    finally:
        await database.close()


async def fill(backend: Backend, key_file: Path, source: Path) -> About:
    database = Database(backend.url)
    try:
        return await restore(database, key_file, source)
    finally:
        await database.close()


async def test_everything_comes_back_elsewhere(
    backend: Backend, elsewhere: Backend, key_file: Path, tmp_path: Path
) -> None:
    await backend.run(INSERT.format(1), "UPDATE services SET replicas = 3 WHERE id = 's1'")
    await backend.run("INSERT INTO leases VALUES ('controller', 7, 'a/1/2', 'host', 4, 1.5)")
    conditions = '[{"type": "Ready", "status": "True", "reason": "R", "message": "", "since": 1, "generation": 1}]'
    await backend.run(f"INSERT INTO service_status VALUES ('s1', 1, 3, 3, '{conditions}', 'spec', 'd', 1.0, 3)")
    await backend.run(
        "INSERT INTO endpoints (token, service_id, replica, models, host, port, state)"
        " VALUES ('t', 's1', 0, '[]', 'h', 1, 'ready')"
    )
    made = await make(backend, key_file, tmp_path / "b.tar")
    await backend.run(INSERT.format(2))
    new_key = tmp_path / "new" / "installation.key"
    assert await fill(elsewhere, new_key, tmp_path / "b.tar") == made
    query = "SELECT id, name, replicas, generation, version, change_seq FROM services"
    assert await elsewhere.run(query) == await backend.run(f"{query} WHERE id = 's1'")
    assert await elsewhere.run("SELECT id FROM installation") == await backend.run("SELECT id FROM installation")
    assert await elsewhere.run("SELECT epoch, holder FROM leases") == [(7, None)]
    assert await elsewhere.run("SELECT ready_replicas, spec FROM service_status") == [(0, "spec")]
    assert await elsewhere.run("SELECT * FROM endpoints") == []
    await elsewhere.run("UPDATE services SET replicas = 4")  # its rules came with it
    assert await elsewhere.run("SELECT generation FROM services") == [(3,)]
    assert new_key.read_bytes() == b"k" * 32
    assert (made.program, made.format) == ("1.2.3", FORMAT)


async def test_what_holds_secrets_is_for_its_owner_alone(
    backend: Backend, elsewhere: Backend, key_file: Path, tmp_path: Path
) -> None:
    await make(backend, key_file, tmp_path / "b.tar")
    new_key = tmp_path / "new" / "installation.key"
    await fill(elsewhere, new_key, tmp_path / "b.tar")
    files = [tmp_path / "b.tar", new_key, *([Path(elsewhere.name)] if backend.server is None else [])]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    assert [path.name for path in tmp_path.glob(".*")] == []


async def test_a_backup_is_of_one_moment_while_others_write(
    backend: Backend, elsewhere: Backend, key_file: Path, tmp_path: Path
) -> None:
    over = asyncio.Event()

    async def write() -> int:
        for count in itertools.count():
            if over.is_set():
                return count
            await backend.run("BEGIN", INSERT.format(f"a{count}"), INSERT.format(f"b{count}"), "COMMIT")

        raise AssertionError

    writing = asyncio.create_task(write())
    while (await backend.one("SELECT count(*) FROM services"))[0] < 4:
        await asyncio.sleep(0.01)
    await make(backend, key_file, tmp_path / "b.tar")
    over.set()
    written = await writing
    await fill(elsewhere, key_file, tmp_path / "b.tar")
    (count,) = await elsewhere.one("SELECT count(*) FROM services")
    assert 4 <= count <= 2 * written
    assert count % 2 == 0


async def test_a_key_file_that_was_rotated_since_stays(
    backend: Backend, elsewhere: Backend, key_file: Path, tmp_path: Path
) -> None:
    """Jobs may need the newer key by now; and the older one is in it too."""
    await make(backend, key_file, tmp_path / "b.tar")
    key_file.write_bytes(b"n" * 32 + b"k" * 32)
    await fill(elsewhere, key_file, tmp_path / "b.tar")
    assert key_file.read_bytes() == b"n" * 32 + b"k" * 32


async def test_nothing_is_overwritten(backend: Backend, elsewhere: Backend, key_file: Path, tmp_path: Path) -> None:
    source = tmp_path / "b.tar"
    await make(backend, key_file, source)
    with pytest.raises(BackupError, match=r"b\.tar is there already\. Name another file\."):
        await make(backend, key_file, source)
    with pytest.raises(BackupError, match=r"is not empty\. Point state_dir or database_url to a new place"):
        await fill(backend, key_file, source)
    key_file.write_bytes(b"x" * 32)
    with pytest.raises(BackupError, match="is the key of another installation"):
        await fill(elsewhere, key_file, source)
    database = Database(elsewhere.url)
    assert await database.revision() is None
    await database.close()


@pytest.fixture
def on_postgresql(postgres_server: PostgresServer) -> Backend:
    """An empty PostgreSQL database, beside the SQLite one that is moved."""
    name = f"moved_{next(_numbers)}"
    postgres_server.psql(f"CREATE DATABASE {name}")
    return Backend(kind="postgresql", url=postgres_server.url(name), name=name, server=postgres_server)


@on_sqlite
async def test_an_installation_moves_from_sqlite_to_postgresql(
    backend: Backend, on_postgresql: Backend, key_file: Path, tmp_path: Path
) -> None:
    config = '{"note": "é", "list": [1, 2.5, null], "nested": {"deep": true}}'
    await backend.run(INSERT.format(1), INSERT.format(2), f"UPDATE services SET replicas = 3, config = '{config}'")
    await backend.run(
        "DELETE FROM services WHERE id = 's2'", "INSERT INTO leases VALUES ('other', 7, 'a', 'h', 4, 1.5)"
    )
    for number in (1, 2):
        await backend.run(EVENT.format(number))
    await make(backend, key_file, tmp_path / "b.tar")
    await fill(on_postgresql, key_file, tmp_path / "b.tar")
    for query in (
        "SELECT id FROM installation",
        "SELECT seq FROM feed",
        "SELECT service_id, seq FROM service_changes ORDER BY service_id",
        "SELECT id, name, recipe_name, replicas, desired_state, generation, version, change_seq, created_at,"
        " updated_at, deletion_requested_at, purge FROM services ORDER BY id",
        "SELECT id, service_id, reason, message, count, first_at FROM events ORDER BY id",
    ):
        assert list(map(tuple, await on_postgresql.run(query))) == list(map(tuple, await backend.run(query))), query
    database = Database(on_postgresql.url)
    rows = await database.read(lambda connection: connection.execute(select(Service.id, Service.config)).all())
    await database.close()
    assert {row.id: row.config for row in rows}["s1"] == json.loads(config)
    generation = "SELECT generation FROM services WHERE id = 's1'"
    ((before,),) = await on_postgresql.run(generation)
    await on_postgresql.run("UPDATE services SET replicas = 4 WHERE id = 's1'")  # its rules hold again
    assert await on_postgresql.run(generation) == [(before + 1,)]
    await on_postgresql.run(EVENT.format(3))
    assert await on_postgresql.run("SELECT max(id) FROM events") == [(3,)]


@on_sqlite
async def test_what_can_not_be_moved_leaves_nothing(
    backend: Backend, on_postgresql: Backend, key_file: Path, tmp_path: Path
) -> None:
    key = key_file.read_bytes()
    old = tar(tmp_path / "old.tar", about__json=about(), installation__key=key, **{"ai-factory__db": b""})
    with pytest.raises(BackupError, match="Restore it to SQLite, run ai-factory migrate"):
        await fill(on_postgresql, key_file, old)
    too_much = EVENT.replace("1, 1.5", "1000000000000, 1.5")  # SQLite's integers are larger
    await backend.run(INSERT.format(1), too_much.format(1))
    await make(backend, key_file, tmp_path / "b.tar")
    with pytest.raises(DBAPIError):
        await fill(on_postgresql, key_file, tmp_path / "b.tar")
    database = Database(on_postgresql.url)
    assert await database.revision() is None
    await database.close()


def tar(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name.replace("__", "."))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def about(**changes: object) -> bytes:
    values = {
        "format": FORMAT, "made_at": 1.0, "program": "1", "installation": "i", "schema": "0001",
        "database": "ai-factory.db",
    }  # fmt: skip
    return msgspec.json.encode(values | changes)


@on_sqlite
@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"other": b""}, "is no backup of AI Factory Server"),
        ({"about__json": b"{}"}, "is no backup of AI Factory Server"),
        ({"about__json": about(format=FORMAT + 1)}, "Install a newer one"),
        ({"about__json": about(database="ai-factory.pgdump")}, "database_url must be PostgreSQL's"),
        ({"about__json": about()}, r"installation\.key"),
        (
            {"about__json": about(), "installation__key": b"k" * 32, "ai-factory__db": b"no"},
            "can't be restored",
        ),
    ],
)
async def test_what_is_no_backup_leaves_no_database(
    elsewhere: Backend, key_file: Path, tmp_path: Path, members: dict[str, bytes], words: str
) -> None:
    key_file.unlink()
    with pytest.raises(BackupError, match=words):
        await fill(elsewhere, key_file, tar(tmp_path / "b.tar", **members))
    assert not Path(elsewhere.name).exists()
    assert not key_file.exists()


@on_sqlite
async def test_a_file_that_is_no_archive_or_not_there(elsewhere: Backend, key_file: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello" * 1000)
    for name in ("text", "absent"):
        with pytest.raises(BackupError, match=f"{name} can't be restored"):
            await fill(elsewhere, key_file, tmp_path / name)


@on_sqlite
async def test_a_damaged_database_is_refused(
    backend: Backend, elsewhere: Backend, key_file: Path, tmp_path: Path
) -> None:
    with sqlite3.connect(backend.name) as connection:
        connection.executemany(
            "INSERT INTO services (id, recipe_name) VALUES (?, 'simple/hello')", [(f"s{n}",) for n in range(500)]
        )
    connection.close()
    copy = tmp_path / "copy.db"
    with sqlite3.connect(backend.name) as old, sqlite3.connect(copy) as new:
        old.backup(new)
    old.close()
    new.close()
    content = bytearray(copy.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"\xff" * 4096
    members = {"about__json": about(), "installation__key": b"k" * 32, "ai-factory__db": bytes(content)}
    with pytest.raises(BackupError, match=r"damaged|malformed"):
        await fill(elsewhere, key_file, tar(tmp_path / "b.tar", **members))
    assert not Path(elsewhere.name).exists()


@on_sqlite
@pytest.mark.parametrize("left", ["ai-factory.db", "ai-factory.db-wal"])
async def test_what_a_lost_database_left_is_not_mixed_with_the_restored_one(
    backend: Backend, elsewhere: Backend, key_file: Path, tmp_path: Path, left: str
) -> None:
    """SQLite would replay a log that lies beside a file, whatever file it was written for."""
    await make(backend, key_file, tmp_path / "b.tar")
    Path(elsewhere.name).parent.mkdir()
    remnant = Path(elsewhere.name).with_name(left)
    remnant.touch()
    with pytest.raises(BackupError, match=rf"{left} is left of another database\. Move it away"):
        await fill(elsewhere, key_file, tmp_path / "b.tar")
    remnant.unlink()
    await fill(elsewhere, key_file, tmp_path / "b.tar")
    assert await elsewhere.run("SELECT id FROM installation") == await backend.run("SELECT id FROM installation")

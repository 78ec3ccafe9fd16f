"""SQL is an API: what people may type, what the constraints refuse, what the triggers do; and transactions."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from backends import Backend, Refused, on_postgresql, on_sqlite
from sqlalchemy import Connection, Select, select, text, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

import api.contract.database
from api.contract.database import (
    READERS,
    Database,
    SchemaError,
    cause,
    driver_url,
    file_system,
    migrate,
    open_database,
)
from api.contract.tables import Feed, Service
from api.http.requests import RESERVED_NAMES
from tests.modes import bound_by_modes

ATTEMPT = (
    "INSERT INTO attempts (token, service_id, replica, incarnation, lane, generation, digest, failures, intent_at,"
    " message) VALUES ('{token}', 'one', {replica}, {incarnation}, '{lane}', 1, 'd', 0, 1.0, '')"
)
ENDPOINT = (
    "INSERT INTO endpoints (token, service_id, replica, models, host, port, state)"
    " VALUES ('{token}', 'one', 0, '[]', 'h', 80, 'ready')"
)
WHOLE = "replicas must be a whole number from 0 to 1000, or NULL"
RECIPE = "recipe_name must name a recipe, like inference/vllm"
OBJECT = "config must be a JSON object, like "
LEASE = "INSERT INTO leases (name, epoch, renewals, renewed_at) VALUES ('controller', 3, 0, 0)"


def attempt(token: str = "t1", *, replica: int = 0, incarnation: int = 1, lane: str = "main") -> str:
    return ATTEMPT.format(token=token, replica=replica, incarnation=incarnation, lane=lane)


async def service(backend: Backend, key: str = "one") -> dict[str, Any]:
    names = "name", "generation", "version", "change_seq", "created_at", "updated_at", "deletion_requested_at"
    return dict(
        zip(names, await backend.one(f"SELECT {', '.join(names)} FROM services WHERE id = '{key}'"), strict=True)
    )


async def refused(backend: Backend, statement: str, told: str) -> None:
    """Make sure that a statement is refused, in words that match."""
    with pytest.raises(Refused) as error:
        await backend.run(statement)
        pytest.fail(f"not refused: {statement}")
    assert re.search(told, str(error.value)), statement


async def read(database: Database, query: Select[Any]) -> Any:
    """Return the one value that a query finds in a reading transaction."""
    return await database.read(lambda connection: connection.execute(query).scalar_one())


async def positions(database: Database, since: int) -> Sequence[int]:
    query = select(Service.change_seq).where(Service.change_seq > since).order_by(Service.change_seq)
    return await database.read(lambda connection: connection.scalars(query).all())


async def feed(backend: Backend) -> int:
    return int((await backend.one("SELECT seq FROM feed"))[0])


@pytest.fixture
async def one(backend: Backend) -> Backend:
    """A database with the service `one`."""
    await backend.run("INSERT INTO services (id, recipe_name) VALUES ('one', 'inference/vllm')")
    return backend


class TestServices:
    async def test_a_recipe_is_enough(self, backend: Backend) -> None:
        await backend.run("INSERT INTO services (recipe_name) VALUES ('inference/vllm')")
        key, replicas, config, state, purge = await backend.one(
            "SELECT id, replicas, config, desired_state, purge FROM services"
        )
        found = await service(backend, key)
        assert len(key) == 8
        assert (replicas, json.loads(config), state, purge) == (None, {}, "running", 0)
        assert (found["name"], found["generation"], found["version"]) == (f"vllm-{key}", 1, 1)
        assert found["change_seq"] == await feed(backend) == 1
        assert found["created_at"] == pytest.approx(time.time(), abs=30)
        assert found["updated_at"] == found["created_at"]
        assert found["deletion_requested_at"] is None

    async def test_the_name_is_the_recipes_stem_and_the_id(self, backend: Backend) -> None:
        for recipe, stem in (("vllm", "vllm"), ("inference/vllm", "vllm"), ("a/b/vllm", "vllm"), ("aaa/aa", "aa")):
            await backend.run(f"INSERT INTO services (id, recipe_name) VALUES ('{stem}{len(recipe)}', '{recipe}')")
            assert (await service(backend, f"{stem}{len(recipe)}"))["name"] == f"{stem}-{stem}{len(recipe)}"

    async def test_what_the_database_counts_is_not_given(self, backend: Backend) -> None:
        for column in ("generation", "version", "change_seq", "created_at", "updated_at"):
            statement = f"INSERT INTO services (recipe_name, {column}) VALUES ('r', 9)"
            await refused(backend, statement, f"{column}.* set by the database: leave them out")

    async def test_a_change_of_what_is_wanted_is_counted(self, one: Backend) -> None:
        for change in (
            "replicas = 3",
            "replicas = 0",
            "replicas = NULL",
            """config = '{"model": "m"}'""",
            "desired_state = 'stopped'",
            "recipe_name = 'other'",
            "replicas = 7, desired_state = 'running'",
        ):
            before = await service(one)
            await asyncio.sleep(0.005)
            await one.run(f"UPDATE services SET {change} WHERE id = 'one'")
            after = await service(one)
            assert after["generation"] == before["generation"] + 1, change
            assert after["version"] > before["version"]
            assert after["change_seq"] == await feed(one) > before["change_seq"]
            assert after["updated_at"] > before["updated_at"]
            assert after["created_at"] == before["created_at"]
            assert after["name"] == before["name"]

    async def test_a_change_of_nothing_wanted_is_no_generation(self, one: Backend) -> None:
        for change in ("replicas = replicas", "config = config", "name = 'other'", "recipe_name = 'inference/vllm'"):
            await one.run(f"UPDATE services SET {change} WHERE id = 'one'")
            assert (await service(one))["generation"] == 1, change

    async def test_each_row_of_one_statement_is_counted(self, one: Backend) -> None:
        await one.run("INSERT INTO services (id, recipe_name) VALUES ('two', 'r'), ('three', 'r')")
        await one.run("UPDATE services SET replicas = 2")
        rows = await one.run("SELECT generation, change_seq FROM services ORDER BY change_seq")
        assert [generation for generation, _ in rows] == [2, 2, 2]
        assert len({position for _, position in rows}) == 3

    async def test_an_upsert_by_name_is_an_update(self, one: Backend) -> None:
        await one.run(
            "INSERT INTO services (name, recipe_name, replicas) VALUES ('vllm-one', 'inference/vllm', 4)"
            " ON CONFLICT (name) WHERE deletion_requested_at IS NULL DO UPDATE SET replicas = excluded.replicas"
        )
        assert await one.run("SELECT id, replicas, generation FROM services") == [("one", 4, 2)]

    async def test_counters_are_the_databases(self, one: Backend) -> None:
        before = await service(one)
        for column, value in (
            ("generation", 9),
            ("version", 9),
            ("change_seq", 0),
            ("change_seq", 99),
            ("created_at", 9),
            ("updated_at", 9),
        ):
            for more in ("", ", replicas = 5"):
                await refused(one, f"UPDATE services SET {column} = {value}{more}", "by the database")
        assert await service(one) == before

    async def test_the_id_never_changes(self, one: Backend) -> None:
        with pytest.raises(Refused, match="the id of a service never changes"):
            await one.run("UPDATE services SET id = 'two' WHERE id = 'one'")

    async def test_a_name_can_not_be_taken_away(self, one: Backend) -> None:
        with pytest.raises(Refused, match="a service must have a name"):
            await one.run("UPDATE services SET name = NULL WHERE id = 'one'")

    async def test_living_names_are_unique(self, one: Backend) -> None:
        with pytest.raises(Refused, match="name"):
            await one.run("INSERT INTO services (name, recipe_name) VALUES ('vllm-one', 'r')")
        await one.run("INSERT INTO services (id, recipe_name) VALUES ('two', 'r')")
        with pytest.raises(Refused, match="name"):
            await one.run("UPDATE services SET name = 'vllm-one' WHERE id = 'two'")
        assert await one.run("SELECT id, name FROM services ORDER BY id") == [("one", "vllm-one"), ("two", "r-two")]


class TestDeletion:
    async def test_it_leaves_a_tombstone(self, one: Backend) -> None:
        await one.run("DELETE FROM services WHERE id = 'one'")
        found = await service(one)
        assert found["deletion_requested_at"] == pytest.approx(time.time(), abs=30)
        assert found["generation"] == 2
        assert found["change_seq"] == await feed(one) == 2

    async def test_of_many_leaves_as_many(self, one: Backend) -> None:
        await one.run("INSERT INTO services (id, recipe_name) VALUES ('two', 'r'), ('three', 'r')")
        await one.run("DELETE FROM services")
        assert await one.run("SELECT count(*), count(deletion_requested_at) FROM services") == [(3, 3)]

    async def test_twice_keeps_the_first_time(self, one: Backend) -> None:
        await one.run("DELETE FROM services")
        first = await service(one)
        await asyncio.sleep(0.01)
        await one.run("DELETE FROM services")
        second = await service(one)
        assert second["deletion_requested_at"] == first["deletion_requested_at"]
        assert second["generation"] == first["generation"]

    async def test_can_not_be_undone(self, one: Backend) -> None:
        await one.run("DELETE FROM services")
        with pytest.raises(Refused, match="can not be brought back: create a new one"):
            await one.run("UPDATE services SET deletion_requested_at = NULL")

    async def test_frees_the_name(self, one: Backend) -> None:
        await one.run("DELETE FROM services")
        await one.run("INSERT INTO services (id, name, recipe_name) VALUES ('two', 'vllm-one', 'r')")
        await one.run("DELETE FROM services WHERE id = 'two'")
        assert await one.run("SELECT count(*) FROM services WHERE name = 'vllm-one'") == [(2,)]

    async def test_purging_removes_the_service_and_all_of_it(self, one: Backend) -> None:
        await one.run(
            attempt(), ENDPOINT.format(token="t1"),
            "INSERT INTO events (service_id, type, reason, message, count, first_at, last_at)"
            " VALUES ('one', 'Normal', 'R', 'm', 1, 1, 1)",
            "INSERT INTO user_events (service_id, action, message, at) VALUES ('one', 'create', 'm', 1)",
            "INSERT INTO service_status (service_id, observed_generation, wanted_replicas, ready_replicas, conditions,"
            " digest, updated_at) VALUES ('one', 1, 1, 0, '[]', '', 1)",
            "DELETE FROM services",
            "UPDATE attempts SET closed_at = 1, outcome = 'Stopped', gone_at = 2",
        )  # fmt: skip
        before = await feed(one)
        await one.run("UPDATE services SET purge = 1", "DELETE FROM services")
        for table in ("services", "attempts", "endpoints", "events", "user_events", "service_status"):
            assert await one.run(f"SELECT count(*) FROM {table}") == [(0,)], table
        assert await feed(one) > before

    async def test_purging_waits_for_the_jobs(self, one: Backend) -> None:
        """A job whose attempt is forgotten would have no owner, and nobody would dare to cancel it."""
        await one.run(attempt(), "UPDATE services SET purge = 1")
        await refused(one, "DELETE FROM services", "not gone yet")
        await one.run("UPDATE attempts SET closed_at = 1, outcome = 'Stopped'")
        await refused(one, "DELETE FROM services", "not gone yet")
        assert await one.run("SELECT count(*) FROM services, attempts") == [(1,)]


class TestNonsense:
    async def test_is_refused(self, one: Backend) -> None:
        for column, value, told in (
            ("replicas", "-1", WHOLE),
            ("replicas", "1001", WHOLE),
            ("replicas", "1.5", WHOLE),
            ("replicas", "'many'", f"{WHOLE}|invalid input syntax for type numeric"),
            ("desired_state", "'RUNNING'", "desired_state must be running or stopped; .*DELETE it"),
            ("desired_state", "'a little bit of everything'", "desired_state must be running or stopped"),
            ("desired_state", "NULL", "desired_state must be running or stopped"),
            ("name", "''", "name must be 1 to 160 letters"),
            ("name", f"'{'n' * 161}'", "name must be 1 to 160 letters"),
            ("name", "'../x'", "name must be 1 to 160 letters"),
            ("name", "'-x'", "name must be .* a letter or digit first"),
            ("name", "'a b'", "name must be 1 to 160 letters"),
            ("name", "'ä'", "name must be 1 to 160 letters"),
            *(("name", f"'{word}'", "words of the API: choose another name") for word in RESERVED_NAMES),
            ("recipe_name", "''", RECIPE),
            ("recipe_name", "'  '", RECIPE),
            ("recipe_name", f"'{'r' * 161}'", RECIPE),
            ("recipe_name", "NULL", RECIPE),
            ("config", "'[]'", OBJECT),
            ("config", "'7'", OBJECT),
            ("config", "'null'", OBJECT),
            ("config", "'\"text\"'", OBJECT),
            ("config", "NULL", OBJECT),
            ("config", "'{\"a\":'", f"{OBJECT}|invalid input syntax for type json"),
            ("config", r"""'{"a": "\u0000"}'""", r"NUL \(.u0000\) can not stand in a config: take it out"),
            ("purge", "2", "purge must be 0: .* or 1: "),
            ("purge", "NULL", "purge must be 0: .* or 1: "),
            (
                "deletion_requested_at",
                "-1",
                "Unix seconds; better say DELETE FROM services|leave deletion_requested_at",
            ),
            ("deletion_requested_at", "1e300", "Unix seconds; better say DELETE|leave deletion_requested_at out"),
        ):
            await refused(one, f"UPDATE services SET {column} = {value}", told)
            values = {"recipe_name": "'r'", column: value}
            columns, given = ", ".join(values), ", ".join(values.values())
            await refused(one, f"INSERT INTO services ({columns}) VALUES ({given})", told)
        assert await one.run("SELECT count(*), max(version) FROM services") == [(1, 1)]

    async def test_ids_that_no_token_could_bear_are_refused(self, backend: Backend) -> None:
        for key in ("", "a" * 33, "../x", "a-b", "a b", "a.b", "ä"):
            statement = f"INSERT INTO services (id, recipe_name) VALUES ('{key}', 'r')"
            await refused(backend, statement, "id must be 1 to 32 letters .* left out, one is made|value too long")

    @on_sqlite
    async def test_wrong_types_are_refused_where_sqlite_would_take_them(self, one: Backend) -> None:
        for change, told in (
            ("replicas = x'01'", WHOLE),
            ("replicas = '3 of them'", WHOLE),
            ("purge = 'yes'", "purge must be 0"),
            ("purge = 0.5", "purge must be 0"),
            ("name = x'61'", "name must be"),
            ("name = 'a' || char(0) || 'b'", "name must be"),
            ("recipe_name = x'61'", RECIPE),
            ("recipe_name = 'a' || char(0)", RECIPE),
            ("desired_state = x'72756e6e696e67'", "desired_state must be running or stopped"),
            ("config = x'7b7d'", OBJECT),
            ("deletion_requested_at = 'yesterday'", "Unix seconds; better say DELETE"),
        ):
            await refused(one, f"UPDATE services SET {change}", told)
        assert await one.one("SELECT version FROM services") == (1,)

    async def test_a_recipe_that_gives_no_name_asks_for_one(self, backend: Backend) -> None:
        for recipe in ("inference/", "my recipe", "inference/_x", "r" * 160):
            statement = f"INSERT INTO services (recipe_name) VALUES ('{recipe}')"
            await refused(backend, statement, "no name can be made of this recipe_name: give a name as well")
            await backend.run(f"INSERT INTO services (recipe_name, name) VALUES ('{recipe}', 'x{len(recipe)}')")

    async def test_one_bad_row_of_many_refuses_them_all(self, one: Backend) -> None:
        rows = "INSERT INTO services (recipe_name, replicas) SELECT 'r', {} FROM (VALUES (1), (2), (3)) AS v (n)"
        if one.kind == "sqlite":
            rows = "INSERT INTO services (recipe_name, replicas) SELECT 'r', {} FROM (SELECT 1 AS n UNION SELECT 2)"
        await refused(one, rows.format("n - 2"), WHOLE)
        await one.run(rows.format("n"))
        await refused(one, "UPDATE services SET replicas = replicas - 2", WHOLE)
        assert await one.one("SELECT min(replicas), max(version) FROM services") == (1, 1)

    async def test_rows_from_before_a_rule_can_be_changed_and_deleted(self, one: Backend, database: Database) -> None:
        await migrate(database, "0001")
        await one.run("INSERT INTO services (id, name, recipe_name, purge) VALUES ('old', '../old', ' ', 7)")
        await migrate(database)
        await one.run("UPDATE services SET replicas = 2, desired_state = 'stopped' WHERE id = 'old'")
        await refused(one, "UPDATE services SET name = '../older' WHERE id = 'old'", "name must be")
        await one.run("UPDATE services SET purge = 0 WHERE id = 'old'", "DELETE FROM services WHERE id = 'old'")
        assert await one.one("SELECT generation, deletion_requested_at > 0 FROM services WHERE id = 'old'") == (3, True)

    @on_sqlite
    async def test_replacing_a_service_is_refused(self, one: Backend) -> None:
        """It would not be deleted but gone, its jobs with nobody to end them; the shell checks no foreign keys."""
        await one.run(attempt(), "INSERT INTO services (id, recipe_name) VALUES ('two', 'r')")
        before = await one.run("SELECT * FROM services")
        for row in ("'one', 'new'", "'three', 'vllm-one'"):
            statement = f"INSERT OR REPLACE INTO services (id, name, recipe_name) VALUES ({row}, 'r')"
            await refused(one, statement, r"would forget the jobs .*ON CONFLICT \(name\).* DO UPDATE")
        await refused(one, "UPDATE OR REPLACE services SET name = 'vllm-one' WHERE id = 'two'", "is taken by another")
        assert await one.run("SELECT * FROM services") == before
        # What was noted for a row that was left out does not touch the next one.
        await one.run(
            "INSERT OR IGNORE INTO services (name, recipe_name) VALUES ('vllm-one', 'r')",
            "INSERT OR REPLACE INTO services (id, recipe_name) VALUES ('three', 'r')",
        )
        assert await one.one("SELECT count(*) FROM services") == (3,)

    @on_postgresql
    async def test_truncating_is_refused(self, one: Backend) -> None:
        await refused(one, "TRUNCATE services CASCADE", "would forget jobs that run: use DELETE")

    @on_postgresql
    async def test_whole_numbers_are_whole_however_they_are_written(self, one: Backend, database: Database) -> None:
        await one.run("UPDATE services SET replicas = 3", "UPDATE services SET replicas = 3.00")
        assert await one.one("SELECT replicas::text, generation FROM services") == ("3", 2)
        assert repr(await read(database, select(Service.replicas))) == "3"

    async def test_what_is_sense_is_not(self, one: Backend) -> None:
        for replicas in ("0", "1000", "NULL", "'7'"):
            await one.run(f"UPDATE services SET replicas = {replicas}")
        assert await one.one("SELECT replicas FROM services") == (7,)

    async def test_of_programs_is_refused_too(self, one: Backend) -> None:
        await one.run(attempt(), ENDPOINT.format(token="t1"))
        for statement, told in (
            (attempt("t2", replica=-1), "ck_attempts_replica_range"),
            (attempt("t2", incarnation=0), "ck_attempts_incarnation_range"),
            ("UPDATE attempts SET port = 0", "ck_attempts_port_range"),
            ("UPDATE attempts SET closed_at = 1", "ck_attempts_closed_has_outcome"),
            ("UPDATE attempts SET gone_at = 1", "ck_attempts_gone_is_closed"),
            ("UPDATE endpoints SET state = 'well'", "ck_endpoints_state_word"),
            ("UPDATE endpoints SET port = 65536", "ck_endpoints_port_range"),
            ("INSERT INTO feed VALUES (2, 0)", "ck_feed_one_row"),
            ("INSERT INTO installation VALUES (2, 'x', 0)", "ck_installation_one_row"),
        ):
            await refused(one, statement, told)


class TestAttempts:
    async def test_only_one_is_open_for_a_replica_and_lane(self, one: Backend) -> None:
        await one.run(attempt("t1"))
        with pytest.raises(Refused, match=r"uq_attempts_open|attempts.lane"):
            await one.run(attempt("t2", incarnation=2))
        await one.run(attempt("t2", incarnation=2, lane="b"), attempt("t3", replica=1))
        await one.run("UPDATE attempts SET closed_at = 1, outcome = 'X' WHERE token = 't1'")
        await one.run(attempt("t4", incarnation=3))

    async def test_an_incarnation_comes_once(self, one: Backend) -> None:
        await one.run(attempt("t1"))
        with pytest.raises(Refused, match=r"uq_attempts_incarnation|attempts.incarnation"):
            await one.run(attempt("t2", lane="b"))

    async def test_a_closed_one_stays_closed(self, one: Backend) -> None:
        await one.run(attempt(), "UPDATE attempts SET closed_at = 1, outcome = 'Stopped'")
        for change in ("closed_at = NULL", "closed_at = 9", "outcome = 'Other'", "outcome = NULL"):
            await refused(one, f"UPDATE attempts SET {change}", "a closed attempt stays closed")
        await one.run("UPDATE attempts SET gone_at = 2, message = 'more is known'")
        assert await one.one("SELECT closed_at, outcome, gone_at FROM attempts") == (1.0, "Stopped", 2.0)

    async def test_of_no_service_are_refused(self, backend: Backend, database: Database) -> None:
        with pytest.raises(IntegrityError):
            async with database.write() as connection:
                await connection.exec_driver_sql(attempt())


class TestLeases:
    async def test_an_epoch_only_grows(self, backend: Backend) -> None:
        await backend.run(LEASE)
        with pytest.raises(Refused, match="an epoch only grows"):
            await backend.run("UPDATE leases SET epoch = 2")
        await backend.run("UPDATE leases SET epoch = 3, holder = 'x'", "UPDATE leases SET epoch = 4")
        assert await backend.one("SELECT epoch, holder FROM leases") == (4, "x")

    async def test_nor_does_it_begin_again(self, backend: Backend) -> None:
        await backend.run(LEASE)
        with pytest.raises(Refused, match="an epoch only grows"):
            await backend.run("DELETE FROM leases")


class TestEndpoints:
    async def test_each_change_moves_the_feed(self, one: Backend) -> None:
        positions = [await feed(one)]
        for statement in (
            ENDPOINT.format(token="t1"),
            ENDPOINT.format(token="t2"),
            "UPDATE endpoints SET state = 'unready' WHERE token = 't1'",
            """UPDATE endpoints SET models = '["m"]' WHERE token = 't1'""",
            "DELETE FROM endpoints WHERE token = 't1'",
            "DELETE FROM endpoints WHERE token = 't2'",
        ):
            await one.run(statement)
            positions.append(await feed(one))
            newest = await one.run("SELECT max(change_seq) FROM endpoints")
            assert newest in ([(positions[-1],)], [(None,)]), statement
        assert positions == sorted(set(positions))
        assert (await service(one))["generation"] == 1


class TestTransactions:
    async def test_640_concurrent_changes_lose_none(self, one: Backend, database: Database) -> None:
        async def count_up() -> None:
            async with database.write() as connection:
                query = select(Service.replicas).where(Service.id == "one").with_for_update()
                replicas = (await connection.execute(query)).scalar_one() or 0
                await connection.execute(update(Service).where(Service.id == "one").values(replicas=replicas + 1))

        await asyncio.gather(*(count_up() for _ in range(640)))
        assert await one.one("SELECT replicas, generation FROM services") == (640, 641)

    async def test_two_programs_lose_none(self, one: Backend) -> None:
        databases = [Database(one.url), Database(one.url)]

        async def count_up(database: Database) -> None:
            async with database.write() as connection:
                query = select(Service.replicas).where(Service.id == "one").with_for_update()
                replicas = (await connection.execute(query)).scalar_one() or 0
                await asyncio.sleep(0)
                await connection.execute(update(Service).where(Service.id == "one").values(replicas=replicas + 1))

        try:
            await asyncio.gather(*(count_up(database) for database in databases for _ in range(50)))
        finally:
            await asyncio.gather(*(database.close() for database in databases))
        assert await one.one("SELECT replicas FROM services") == (100,)

    async def test_a_writer_waits_for_another(self, one: Backend, database: Database) -> None:
        other = Database(one.url)
        written = asyncio.Event()

        async def slow() -> None:
            async with other.write() as connection:
                await connection.execute(update(Service).values(replicas=1))
                written.set()
                await asyncio.sleep(0.3)

        try:
            holding = asyncio.create_task(slow())
            await written.wait()
            async with database.write() as connection:
                query = select(Service.replicas).with_for_update()
                assert (await connection.execute(query)).scalar_one() == 1
            await holding
        finally:
            await other.close()

    async def test_but_not_for_ever(self, one: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api.contract.database, "BUSY_SECONDS", 0.3)
        holder, waiter = Database(one.url), Database(one.url)
        try:
            async with holder.write() as holding:
                await holding.execute(update(Service).values(replicas=1))
                began = time.monotonic()
                with pytest.raises(SQLAlchemyError, match="lock"):
                    async with asyncio.timeout(60), waiter.write() as connection:
                        await connection.execute(update(Service).values(replicas=2))
                assert 0.2 < time.monotonic() - began < 30
            async with waiter.write() as connection:
                await connection.execute(update(Service).values(desired_state="stopped"))
        finally:
            await holder.close()
            await waiter.close()
        assert await one.one("SELECT replicas, desired_state FROM services") == (1, "stopped")

    @pytest.mark.parametrize("how", ["an exception", "a cancellation"])
    async def test_what_ends_early_writes_nothing(self, one: Backend, database: Database, how: str) -> None:
        inside = asyncio.Event()

        async def write() -> None:
            async with database.write() as connection:
                await connection.execute(update(Service).values(replicas=9))
                inside.set()
                if how == "an exception":
                    raise RuntimeError("no")
                await asyncio.sleep(60)

        task = asyncio.create_task(write())
        await inside.wait()
        if how == "a cancellation":
            task.cancel()
        with pytest.raises((RuntimeError, asyncio.CancelledError)):
            await task
        async with asyncio.timeout(60), database.write() as connection:
            assert (await connection.execute(select(Service.replicas))).scalar_one() is None

    async def test_readers_do_not_wait_for_a_writer(self, one: Backend, database: Database) -> None:
        async with database.write() as writing:
            await writing.execute(update(Service).values(replicas=2))
            async with asyncio.timeout(60):
                assert await read(database, select(Service.replicas)) is None

    @on_sqlite
    async def test_a_reader_sees_one_state(self, one: Backend, database: Database) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def twice(connection: Connection) -> list[int | None]:
            found = [connection.scalar(select(Service.replicas))]
            begun.set()
            go_on.wait(60)
            return [*found, connection.scalar(select(Service.replicas))]

        reading = asyncio.create_task(database.read(twice))
        await asyncio.to_thread(begun.wait, 5)
        async with database.write() as connection:
            await connection.execute(update(Service).values(replicas=2))
        go_on.set()
        assert await reading == [None, None]
        assert await read(database, select(Service.replicas)) == 2

    async def test_reads_wait_for_their_turn(self, one: Backend, database: Database) -> None:
        found = await asyncio.gather(*(read(database, select(Service.id)) for _ in range(100)))
        assert found == ["one"] * 100

    async def test_what_a_query_raises_is_raised(self, one: Backend, database: Database) -> None:
        def broken(connection: Connection) -> None:
            connection.execute(text("SELECT 1"))
            raise RuntimeError("no")

        for _ in range(READERS + 1):
            with pytest.raises(RuntimeError, match="no"):
                await database.read(broken)
        with pytest.raises(SQLAlchemyError, match="nothing_of_that_name"):
            await database.read(lambda connection: connection.execute(text("SELECT * FROM nothing_of_that_name")))
        assert await read(database, select(Service.id)) == "one"

    async def test_a_read_that_is_given_up_keeps_no_connection(self, one: Backend, database: Database) -> None:
        tasks = [asyncio.create_task(read(database, select(Service.id))) for _ in range(50)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(60):
            assert await read(database, select(Service.id)) == "one"

    async def test_positions_are_seen_in_the_order_of_commits(self, backend: Backend) -> None:
        """A reader that has seen a position will never find a smaller one later."""
        databases = [Database(backend.url) for _ in range(3)]
        seen: list[int] = []
        done = asyncio.Event()

        async def insert(database: Database, number: int) -> None:
            async with database.write() as connection:
                statement = f"INSERT INTO services (id, recipe_name) VALUES ('x{number}', 'r')"
                await connection.exec_driver_sql(statement)
                await asyncio.sleep(0.001 * (number % 3))

        async def follow() -> None:
            while not done.is_set() or len(seen) < 60:
                seen.extend(await positions(databases[0], seen[-1] if seen else 0))

        try:
            async with asyncio.timeout(60):
                following = asyncio.create_task(follow())
                await asyncio.gather(*(insert(databases[n % 3], n) for n in range(60)))
                done.set()
                await following
        finally:
            await asyncio.gather(*(database.close() for database in databases))
        assert seen == list(range(1, 61))

    @on_postgresql
    async def test_the_server_may_restart(self, one: Backend, database: Database) -> None:
        await read(database, select(Feed.seq))
        one.postgres.stop()
        with pytest.raises((SQLAlchemyError, OSError)):
            await read(database, select(Feed.seq))
        one.postgres.start()
        async with database.write() as connection:
            await connection.execute(update(Service).values(replicas=3))
        assert await one.one("SELECT replicas FROM services") == (3,)

    @on_sqlite
    async def test_a_restored_file_is_the_one_that_counts(
        self, one: Backend, database: Database, tmp_path: Path
    ) -> None:
        backup = tmp_path / "backup.db"
        await one.run(f"VACUUM INTO '{backup}'")
        async with database.write() as connection:
            await connection.execute(update(Service).values(replicas=5))
        backup.replace(one.name)
        for leftover in ("-wal", "-shm"):
            Path(one.name + leftover).unlink(missing_ok=True)
        assert await read(database, select(Service.replicas)) is None
        async with database.write() as connection:
            await connection.execute(update(Service).values(replicas=7))
        assert await one.one("SELECT replicas FROM services") == (7,)


class TestUrls:
    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "not a url", ""])
    def test_what_can_not_be_used_is_refused(self, url: str) -> None:
        with pytest.raises(SchemaError, match="database_url"):
            driver_url(url)

    @pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"])
    def test_any_driver_becomes_ours(self, scheme: str) -> None:
        url = driver_url(f"{scheme}://u:p%40ss@host/db?sslmode=require")
        assert url.drivername == "postgresql+asyncpg"
        assert (url.password, url.query) == ("p@ss", {"ssl": "require"})

    @on_postgresql
    async def test_psqls_words_are_understood(self, backend: Backend) -> None:
        database = await open_database(backend.url + "&sslmode=disable")
        await database.close()

    @on_postgresql
    async def test_an_unknown_option_is_told(self, backend: Backend) -> None:
        with pytest.raises(SchemaError, match="colour"):
            await open_database(backend.url + "&colour=red")


class TestSchema:
    async def test_what_is_there_is_opened(self, backend: Backend) -> None:
        database = await open_database(backend.url)
        await database.close()

    async def test_an_empty_one_names_the_command(self, empty_backend: Backend) -> None:
        with pytest.raises(SchemaError, match=r"no tables yet. Run: ai-factory migrate"):
            await open_database(empty_backend.url)
        if empty_backend.kind == "sqlite":
            assert not Path(empty_backend.name).exists()

    async def test_an_older_one_names_the_command(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        found = api.contract.database.head()
        monkeypatch.setattr(api.contract.database, "head", lambda: "9999")
        with pytest.raises(SchemaError, match=rf"schema {found}, needed is 9999. Run: ai-factory migrate"):
            await open_database(backend.url)

    async def test_a_newer_one_says_what_to_do(self, backend: Backend) -> None:
        await backend.run("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(SchemaError, match=r"made by a newer one\. Install that version, or restore a backup"):
            await open_database(backend.url)

    async def test_one_that_is_away_says_so_and_no_password(self) -> None:
        with pytest.raises(SchemaError, match=r"can't be reached: .*Check database_url") as error:
            await open_database("postgresql://user:hidden@127.0.0.1:1/db")
        assert "hidden" not in str(error.value)

    async def test_a_file_that_is_none_says_what_brings_it_back(self, tmp_path: Path) -> None:
        (tmp_path / "garbage.db").write_text("garbage" * 100)
        with pytest.raises(SchemaError, match=r"not a database. .* restore a backup \(ai-factory restore\)"):
            await open_database(f"sqlite:///{tmp_path}/garbage.db")

    @pytest.mark.parametrize("words", ["no password supplied", 'password authentication failed for user "lab"'])
    def test_a_password_that_is_missing_says_where_it_belongs(self, words: str) -> None:
        told = "(a line HOST:PORT:DATABASE:USER:PASSWORD in ~/.pgpass, mode 0600, gives the password)"
        assert cause(OSError(words)).endswith(told)
        assert told not in cause(OSError("connection refused"))

    @on_postgresql
    async def test_one_that_does_not_exist_says_so(self, backend: Backend) -> None:
        with pytest.raises(SchemaError, match='database "nowhere" does not exist'):
            await open_database(backend.postgres.url("nowhere"))

    async def test_a_file_that_is_no_database_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "text.db"
        path.write_text("not a database\n" * 100)
        with pytest.raises(SchemaError, match="not a database"):
            await open_database(f"sqlite:///{path}")


class TestNetworkFileSystems:
    @pytest.fixture
    def mounts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Let /proc/self/mounts say that a folder of the test is a mount of some kind."""
        read_text = Path.read_text

        def mounts(folder: Path, kind: str, *more: str) -> None:
            folder.mkdir(exist_ok=True)
            spelled = str(folder).replace("\\", "\\134").replace(" ", "\\040")
            lines = ["/dev/root / ext4 rw 0 0", f"server:/export {spelled} {kind} rw 0 0", *more]

            def fake(path: Path, *args: Any, **options: Any) -> str:
                return "\n".join(lines) if str(path) == "/proc/self/mounts" else read_text(path, *args, **options)

            monkeypatch.setattr(Path, "read_text", fake)

        return mounts

    @pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "beegfs", "cifs", "fuse.sshfs"])
    def test_are_refused_for_sqlite(self, tmp_path: Path, mounts: Any, kind: str) -> None:
        mounts(tmp_path / "far", kind)
        with pytest.raises(
            SchemaError, match=f"lies on {kind}. Set state_dir to a folder on a local disk, or database_url"
        ):
            Database(f"sqlite:///{tmp_path / 'far' / 'sub' / 'ai-factory.db'}")

    @pytest.mark.parametrize("name", ["with space", "mit Ümläuten", "back\\slash"])
    def test_are_found_under_any_name(self, tmp_path: Path, mounts: Any, name: str) -> None:
        mounts(tmp_path / name, "nfs4")
        assert file_system(tmp_path / name / "x.db") == "nfs4"

    def test_are_found_behind_links(self, tmp_path: Path, mounts: Any) -> None:
        mounts(tmp_path / "far", "nfs4")
        (tmp_path / "near").symlink_to(tmp_path / "far")
        assert file_system(tmp_path / "near" / "x.db") == "nfs4"

    def test_the_innermost_and_latest_mount_counts(self, tmp_path: Path, mounts: Any) -> None:
        far = tmp_path / "far"
        mounts(
            far,
            "nfs4",
            f"tmpfs {far}/local tmpfs rw 0 0",
            f"/dev/sdb {far}/disk nfs rw 0 0",
            f"/dev/sdb {far}/disk xfs rw 0 0",
        )
        assert file_system(far / "local" / "x.db") == "tmpfs"
        assert file_system(far / "disk" / "x.db") == "xfs"
        assert file_system(tmp_path / "farther" / "x.db") == "ext4"

    async def test_a_local_disk_is_fine(self, tmp_path: Path, mounts: Any) -> None:
        mounts(tmp_path / "near", "xfs")
        database = Database(f"sqlite:///{tmp_path / 'near' / 'ai-factory.db'}")
        await migrate(database)
        await database.close()


WRITE_TWICE = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from api.contract.database import Database

async def write(database):
    try:
        async with database.write() as connection:
            await connection.execute(text("UPDATE feed SET seq = seq + 1"))
    except SQLAlchemyError as error:
        return str(error.orig)
    return "written"

async def main(path):
    path.chmod(0o400)
    database = Database(f"sqlite:///{path}")
    print(await write(database))
    for file in path.parent.glob(f"{path.name}*"):
        file.chmod(0o600)
    print(await write(database))
    await database.close()

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_file_that_could_not_be_written_is_written_once_it_can(sqlite_template: Path, tmp_path: Path) -> None:
    """SQLite opens such a file for reading alone; that connection must not be kept."""
    path = tmp_path / "ai-factory.db"
    shutil.copyfile(sqlite_template, path)
    command = [*bound_by_modes(), sys.executable, "-c", WRITE_TWICE, str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.splitlines() == ["attempt to write a readonly database", "written"], done.stderr

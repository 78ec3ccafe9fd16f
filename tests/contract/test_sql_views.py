"""The views for dashboards and scripts: they say what the API says, alike on both databases, and take no writes."""

from __future__ import annotations

import itertools
import json
import re
import time
from typing import Any

import pytest
from backends import Backend, Refused
from sqlalchemy import insert, text

from api.contract.database import Database
from api.contract.status import Condition, Progress, Truth, explanation, word
from api.contract.tables import AttemptRow, EndpointRow, ServiceStatus
from api.http.services import Services
from api.http.sight import Sight
from api.http.wire import service_response
from api.web.belonging import Access
from api.web.principal import OPERATOR

OVERVIEW = [
    "id", "name", "recipe", "desired_state", "status", "replicas", "ready", "message", "endpoint", "endpoints",
    "generation", "observed_generation", "created_at", "updated_at", "deleted_at",
]  # fmt: skip
HISTORY = [
    "service", "service_id", "replica", "incarnation", "generation", "token", "job_id", "node",
    "intent_at", "submitted_at", "claimed_at", "started_at", "launched_at", "serving_at", "ready_at", "ends_at",
    "closed_at", "gone_at", "seconds_queued", "seconds_starting", "seconds_ready", "outcome", "exit_code", "message",
]  # fmt: skip
REASONS = [*Progress, "OfALaterVersion"]


async def read(database: Database, query: str) -> list[dict[str, Any]]:
    rows = await database.read(lambda connection: connection.execute(text(query)).mappings().all())
    return [dict(row) for row in rows]


def condition(kind: str, status: Truth, reason: str = "X", message: str = "") -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message, since=0.5, generation=1)


def written(conditions: list[Condition]) -> list[dict[str, Any]]:
    names = "type", "status", "reason", "message", "since", "generation"
    return [{name: getattr(c, name) for name in names} for c in conditions]


def all_conditions() -> list[list[Condition]]:
    """Return every combination of truths, reasons and messages, some in another order and some twice."""

    def either(kind: str) -> list[Condition | None]:
        return [None, *(condition(kind, s, message=m) for s in Truth for m in ("", f"{kind} is {s}: 'mend' it."))]

    progress = [None, *(condition("Progressing", Truth.TRUE, r, f"{r}.") for r in REASONS)]
    progress.append(condition("Progressing", Truth.FALSE, Progress.FAILED))
    available = [None, *(condition("Available", s) for s in Truth)]
    sets = itertools.product(either("Accepted"), either("Observed"), available, progress)
    found = [[c for c in chosen if c is not None] for chosen in sets]
    for number, conditions in enumerate(found):
        if number % 3 == 1:
            conditions.reverse()
        if number % 5 == 2:
            conditions += [condition(kind, Truth.FALSE, "Starting", "second") for kind in ("Accepted", "Progressing")]
    return found


def status(key: str, conditions: list[Condition], **more: Any) -> dict[str, Any]:
    return {
        "service_id": key,
        "observed_generation": 1,
        "wanted_replicas": 2,
        "ready_replicas": 1,
        "conditions": written(conditions),
        "digest": "",
        "updated_at": 1.0,
        **more,
    }


@pytest.mark.parametrize("wanted", [True, False])
async def test_word_and_message_are_those_of_the_contract(database: Database, wanted: bool) -> None:
    sets = all_conditions() if wanted else all_conditions()[::50]
    rows = [{"id": f"s{number}", "state": "running" if wanted else "stopped"} for number in range(len(sets))]
    async with database.write() as connection:
        await connection.execute(
            text("INSERT INTO services (id, recipe_name, desired_state) VALUES (:id, 'r', :state)"), rows
        )
        await connection.execute(insert(ServiceStatus), [status(f"s{n}", c) for n, c in enumerate(sets)])
    found = {row["id"]: row for row in await read(database, "SELECT id, status, message FROM service_overview")}
    for number, conditions in enumerate(sets):
        row = found.pop(f"s{number}")
        assert (row["status"], row["message"]) == (
            word(wanted=wanted, conditions=conditions),
            explanation(conditions),
        ), conditions
    assert not found


async def test_the_overview_says_what_the_api_says(backend: Backend, database: Database) -> None:
    await backend.run(
        "INSERT INTO services (id, recipe_name) VALUES ('new', 'a/r'), ('down', 'r'), ('stopped', 'r'), ('gone', 'r')",
        "INSERT INTO services (id, recipe_name, replicas, config) VALUES ('up', 'r', 3, '{\"nodes\": 2}')",
        "UPDATE services SET desired_state = 'stopped' WHERE id = 'stopped'",
        "DELETE FROM services WHERE id = 'gone'",
    )
    up = [condition("Available", Truth.TRUE), condition("Progressing", Truth.TRUE, "Queued", "It's queued.")]
    down = [condition("Available", Truth.FALSE), condition("Progressing", Truth.TRUE, "Queued", "It's queued.")]
    async with database.write() as connection:
        for key in ("up", "stopped", "gone"):
            await connection.execute(insert(ServiceStatus).values(status(key, up)))
            for replica, host in enumerate(("n1", "fd00::1", "n3")):
                door = "k1" if host == "n3" else None
                values = {"replica": replica, "models": [], "host": host, "port": 8000, "service_id": key, "door": door}
                state = "unready" if host == "n1" else "ready"
                await connection.execute(insert(EndpointRow).values(token=f"{key}-{replica}", state=state, **values))
        await connection.execute(insert(ServiceStatus).values(status("down", down, ready_replicas=0)))
    rows = {row["id"]: row for row in await read(database, "SELECT * FROM service_overview")}
    services = Services(database, Sight(Access.OWNER))
    found = [await services.find(key, OPERATOR) for key in rows]
    told = {row.id: service_response(row, "http://gateway") for row in found if row is not None}
    assert rows.keys() == told.keys() >= {row.id for row in await services.list_all(OPERATOR)}
    for key, row in rows.items():
        assert list(row) == OVERVIEW
        api = told[key]
        assert row["name"] == api.name
        assert row["recipe"] == api.recipe_name
        assert (row["status"], row["message"]) == (api.status, api.message)
        assert (row["replicas"], row["ready"], row["endpoint"]) == (api.replicas, api.ready_replicas, api.endpoint)
        assert (row["generation"], row["observed_generation"]) == (api.generation, api.observed_generation)
        assert (row["created_at"], row["deleted_at"]) == (api.created_at, api.deleted_at)
        assert isinstance(row["replicas"], int | None)
    assert rows["up"]["endpoints"] == "http://[fd00::1]:8000 https://n3:8000"
    assert rows["up"]["endpoint"] == "http://[fd00::1]:8000"
    assert rows["stopped"]["endpoints"] is rows["gone"]["endpoints"] is rows["new"]["endpoints"] is None
    assert [rows[k]["status"] for k in ("new", "up", "down", "stopped", "gone")] == [
        "pending", "running", "pending", "cancelled", "cancelled",
    ]  # fmt: skip


def attempt(token: str, **more: Any) -> dict[str, Any]:
    return {
        "token": token, "service_id": "one", "replica": 0, "lane": "main", "generation": 1, "digest": "d",
        "failures": 0, "message": "", **more,
    }  # fmt: skip


async def test_the_history_tells_each_step(backend: Backend, database: Database) -> None:
    await backend.run("INSERT INTO services (id, name, recipe_name) VALUES ('one', 'chat', 'r')")
    began, now = 1700000000.0, time.time()
    whole = attempt(
        "t1", incarnation=1, intent_at=began, submitted_at=began + 0.25, job_id=7, claimed_at=began + 11,
        started_at=began + 10.5, node="n1", launched_at=began + 20, serving_at=began + 30, ready_at=began + 40.75,
        ends_at=began + 3600, closed_at=began + 100, outcome="EngineExited", message="It's over.", exit_code=3,
        gone_at=began + 101.123,
    )  # fmt: skip
    never = attempt(
        "t2", incarnation=2, intent_at=began, closed_at=began + 9, outcome="SubmitRejected", gone_at=began + 9
    )
    ready = attempt(
        "t3", incarnation=3, intent_at=now - 50, submitted_at=now - 50, started_at=now - 30, ready_at=now - 10
    )
    queued = attempt("t4", replica=1, incarnation=1, intent_at=now - 20)
    async with database.write() as connection:
        for values in (whole, never, ready, queued):
            await connection.execute(insert(AttemptRow).values(values))
    first, second, third, fourth = await read(database, "SELECT * FROM attempt_history ORDER BY token")
    assert list(first) == HISTORY
    assert first == {
        "service": "chat", "service_id": "one", "replica": 0, "incarnation": 1, "generation": 1, "token": "t1",
        "job_id": 7, "node": "n1",
        "intent_at": "2023-11-14T22:13:20.000+00:00", "submitted_at": "2023-11-14T22:13:20.250+00:00",
        "claimed_at": "2023-11-14T22:13:31.000+00:00", "started_at": "2023-11-14T22:13:30.500+00:00",
        "launched_at": "2023-11-14T22:13:40.000+00:00", "serving_at": "2023-11-14T22:13:50.000+00:00",
        "ready_at": "2023-11-14T22:14:00.750+00:00", "ends_at": "2023-11-14T23:13:20.000+00:00",
        "closed_at": "2023-11-14T22:15:00.000+00:00", "gone_at": "2023-11-14T22:15:01.123+00:00",
        "seconds_queued": 10.3, "seconds_starting": 30.3,
        "seconds_ready": 59.3, "outcome": "EngineExited", "exit_code": 3, "message": "It's over.",
    }  # fmt: skip
    spans = [
        tuple(row[f"seconds_{step}"] for step in ("queued", "starting", "ready")) for row in (second, third, fourth)
    ]
    assert spans[0] == (9.0, None, None)
    assert spans[1] == (20.0, 20.0, pytest.approx(10, abs=5))
    assert spans[2] == (pytest.approx(20, abs=5), None, None)


@pytest.mark.parametrize("view", ["service_overview", "attempt_history"])
async def test_writing_to_a_view_is_refused(backend: Backend, database: Database, view: str) -> None:
    await backend.run("INSERT INTO services (id, recipe_name) VALUES ('one', 'r')")
    async with database.write() as connection:
        await connection.execute(insert(AttemptRow).values(attempt("t", incarnation=1, intent_at=1.0)))
    for statement in (
        f"INSERT INTO {view} (generation) VALUES (1)",
        f"UPDATE {view} SET message = 'x'",
        f"DELETE FROM {view}",
    ):
        with pytest.raises(Refused) as error:
            await backend.run(statement)
        assert re.search(f"{view} is for reading only: write to the table services instead", str(error.value))


async def test_times_are_the_apis_to_the_millisecond(backend: Backend, database: Database) -> None:
    """Text of a time that a float can't hold exactly is the same everywhere."""
    await backend.run(*(f"INSERT INTO services (id, recipe_name) VALUES ('s{n}', 'r')" for n in range(40)))
    told = {
        row.id: service_response(row, "http://gateway").created_at
        for row in await Services(database, Sight(Access.OWNER)).list_all(OPERATOR)
    }
    found = {
        row["id"]: row["created_at"] for row in await read(database, "SELECT id, created_at FROM service_overview")
    }
    assert json.dumps(found, sort_keys=True) == json.dumps(told, sort_keys=True)

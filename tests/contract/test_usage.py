"""GPU-hours, counted from the records of attempts on both databases."""

from __future__ import annotations

import pytest
from backends import Backend

from api.contract.database import Database
from controller.usage import gpu_hours

HOUR = 3600.0
SINCE, UNTIL = 1_000_000.0, 1_000_000.0 + 10 * HOUR


async def attempt(backend: Backend, key: str, incarnation: int, gpus: int, **times: float) -> None:
    started, gone = (times.get(step, "NULL") for step in ("started", "gone"))
    outcome = "'Failed'" if "gone" in times else "NULL"
    await backend.run(
        f"INSERT INTO services (id, recipe_name) SELECT '{key}', 'simple/hello'"
        f" WHERE NOT EXISTS (SELECT 1 FROM services WHERE id = '{key}')",
        "INSERT INTO attempts (token, service_id, replica, incarnation, lane, generation, digest, gpus, failures,"
        " intent_at, message, started_at, closed_at, outcome, gone_at)"
        f" VALUES ('af-i-{key}-0-{incarnation}', '{key}', 0, {incarnation}, 'main', 1, 'd', {gpus}, 0, 1.0, '',"
        f" {started}, {gone}, {outcome}, {gone})",
    )


async def test_a_gpu_is_used_from_start_to_end_within_the_month(backend: Backend, database: Database) -> None:
    await attempt(backend, "over", 1, 2, started=SINCE - HOUR, gone=SINCE + 2 * HOUR)
    await attempt(backend, "over", 2, 3, started=SINCE + 3 * HOUR, gone=SINCE + 4 * HOUR)
    await attempt(backend, "lives", 1, 1, started=UNTIL - 1.5 * HOUR)
    await attempt(backend, "before", 1, 8, started=SINCE - 9 * HOUR, gone=SINCE - HOUR)
    await attempt(backend, "queued", 1, 8)
    await attempt(backend, "without", 1, 0, started=SINCE)
    found = await gpu_hours(database, SINCE, UNTIL)
    assert found == {"over": pytest.approx(2 * 2 + 3 * 1), "lives": pytest.approx(1.5)}


async def test_a_database_without_attempts_has_used_nothing(database: Database) -> None:
    assert await gpu_hours(database, SINCE, UNTIL) == {}

"""The bench must not stand in the way of what it measures."""

from __future__ import annotations

import asyncio
import itertools
import math
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import aiosqlite
import httpx
import pytest

from bench import doors
from bench.gateway_clients import put
from bench.gateway_engine import CHUNKS
from bench.leads import DAY, LASTS, MAINTENANCE, Months, Site, fixed, learnt, measure
from bench.processes import process
from bench.steady import declare


async def test_services_are_declared_while_the_controller_writes(tmp_path: Path) -> None:
    file = tmp_path / "ai-factory.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE services (id TEXT, recipe_name TEXT, config TEXT)")
    async with aiosqlite.connect(file) as writing:
        await writing.execute("BEGIN IMMEDIATE")
        declaring = asyncio.create_task(declare(file, 3))
        await writing.execute(
            "INSERT INTO services VALUES ('one', 'simple/hello', '{}')"
        )  # a turn of the loop, and more
        await writing.commit()
        await asyncio.wait_for(declaring, 20)
        found = await writing.execute_fetchall("SELECT count(*) FROM services")
    assert [tuple(row) for row in found] == [(4,)]


def test_the_imitation_of_vllm_streams() -> None:
    with process([sys.executable, "-m", "bench.gateway_engine", "-"]) as engine:
        assert engine.stdout is not None
        port = int(engine.stdout.readline())
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions", json={"stream": True}, timeout=60, trust_env=False
        )
        assert answer.text.count("data: {") == CHUNKS
        plan = {"port": port, "key": "none", "connections": 4, "settle": 0.0, "seconds": 3.0}
        streamed = put({**plan, "stream": True})
        whole = put({**plan, "stream": False})
    assert (streamed.problems, whole.problems) == ([], [])
    assert streamed.chunks > 0
    assert whole.requests > 0
    assert whole.chunks == 0


def test_the_door_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "KINDS": ((1, doors.AT_ONCE),),
        "SECONDS": 1.0,
        "SETTLE": 0.5,
        "IDLE": 2,
        "NGINX": "none",
    }.items():
        monkeypatch.setattr(doors, name, value)
    rows = {row[0]: row for row in doors.measure(tmp_path).rows if row[1] == "1"}
    assert {name: float(row[3]) > 0 for name, row in rows.items()} == {"none": True, "door": True}


def test_no_fixed_lead_is_better_than_what_is_learnt() -> None:
    table = measure(Path(), ("site-00", "site-01", "site-02", "site-03"))
    assert [cells[0] for cells in table.rows] == ["learnt", "5 min", "15 min", "60 min", "240 min"]
    assert table.goals[0].startswith("✓")


def test_months_keep_to_the_rules_of_the_site() -> None:
    site = replace(Site.of("site-00"), preempted_after=math.inf, has_room=False, wait=600.0)
    for policy in (learnt, fixed(60)):
        months = Months(site, policy).run()
        begun = sorted((run for run in months.runs if run.began_at < LASTS), key=lambda run: run.began_at)
        assert len(begun) > LASTS / site.time_limit
        assert all(
            run.ended_at <= run.ends_at <= run.began_at + site.time_limit for run in begun if run.ended_at < LASTS
        )
        assert not [r for r in begun if min(r.ended_at, LASTS - 1) % (30 * DAY) > 30 * DAY - MAINTENANCE]
        for replica in (0, 1):
            mine = [run for run in begun if run.replica == replica]
            assert all(a.ended_at <= b.began_at for a, b in itertools.pairwise(mine)), "there was no room for two"
        assert 0.9 < months.replicas_answer() < months.service_answers() <= 1

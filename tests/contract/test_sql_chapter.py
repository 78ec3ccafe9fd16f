"""The chapter on SQL is true: its statements are run in order on each database, and give what it shows.

After each block a stand-in for the controller looks: it resolves the rows as the real one does and lets jobs be ready.
"""

from __future__ import annotations

import ast
import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backends import Backend, Refused, on_postgresql
from postgres_server import binaries
from sqlalchemy import CursorResult, Row, delete, insert, select, text, update

from api.contract.database import Database
from api.contract.recipes.book import Library
from api.contract.settings import SlurmSettings
from api.contract.status import Condition, Truth
from api.contract.tables import AttemptRow, EndpointRow, Service, ServiceStatus
from controller.wanted import ServiceRow, Wanted

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = ROOT / "docs" / "sql.md"
FILE = "~/.local/state/ai-factory/ai-factory.db"
REMOTE = re.compile(r"postgresql://scripts@db\.example\.org/ai_factory\?sslmode=verify-full")


@dataclass(frozen=True)
class Block:
    """A fenced block, and what is shown below it."""

    language: str
    only: str
    """A database, or `now`: before the controller has looked."""
    code: str
    shown: str | None
    line: int


def blocks() -> list[Block]:
    content = CHAPTER.read_text()
    found: list[Block] = []
    for match in re.finditer(r"^```(\w+) ?(\w*)\n(.*?)^```$", content, re.MULTILINE | re.DOTALL):
        language, only, code = match.groups()
        line = content[: match.start()].count("\n") + 1
        if language == "text":
            before = found.pop()
            assert before.shown is None, f"line {line}: two results in a row"
            found.append(Block(before.language, before.only, before.code, code, before.line))
        else:
            found.append(Block(language, only, code, None, line))
    return found


def table(shown: str) -> list[tuple[str, ...]]:
    """Read a table as psql prints it."""
    lines = [line for line in shown.splitlines() if not re.fullmatch(r"[-+]+", line)]
    return [tuple(cell.strip() for cell in line.split("|")) for line in lines]


def cell(value: Any) -> str:
    return "" if value is None else str(int(value)) if isinstance(value, bool) else str(value)


@dataclass
class Controller:
    """Lets each service that can be resolved be ready at once, on nodes n1, n2, …"""

    database: Database
    wanted: Wanted = field(
        default_factory=lambda: Wanted("x", Library((ROOT / "recipes",), {}), SlurmSettings(partition="gpu"))
    )
    job: int = 4710

    async def look(self) -> None:
        async with self.database.write() as connection:
            for row in (await connection.execute(select(Service.__table__).order_by(Service.change_seq))).all():
                await self._settle(connection, row)

    async def _settle(self, connection: Any, row: Any) -> None:
        names = "id", "name", "recipe_name", "config", "replicas", "desired_state", "generation"
        values = {name: getattr(row, name) for name in names}
        desired = self.wanted.of(
            ServiceRow(**values, deletion_requested=row.deletion_requested_at is not None, stored_spec=None)
        )
        running = desired.running and desired.refusal is None
        number = desired.replicas if running else 0
        mine, now = AttemptRow.service_id == row.id, time.time()
        ended = {"closed_at": now, "gone_at": now, "outcome": "Stopped"}
        await connection.execute(
            update(AttemptRow).where(mine, AttemptRow.replica >= number, AttemptRow.closed_at.is_(None)).values(ended)
        )
        await connection.execute(
            delete(EndpointRow).where(EndpointRow.service_id == row.id, EndpointRow.replica >= number)
        )
        known = (await connection.execute(select(AttemptRow.replica, AttemptRow.closed_at).where(mine))).all()
        for replica in set(range(number)) - {k.replica for k in known if k.closed_at is None}:
            await self._run(connection, row, replica, 1 + sum(k.replica == replica for k in known))
        refused = desired.refusal
        conditions = [
            ("Accepted", Truth.FALSE, refused.reason, refused.message)
            if refused
            else ("Accepted", Truth.TRUE, "Valid", ""),
            ("Available", Truth.TRUE if number else Truth.FALSE, "X", ""),
            ("Progressing", Truth.TRUE, "AsWanted" if number else "Stopped", ""),
        ]
        told = [
            Condition(type=t, status=s, reason=r, message=m, since=now, generation=row.generation)
            for t, s, r, m in conditions
        ]
        await connection.execute(delete(ServiceStatus).where(ServiceStatus.service_id == row.id))
        await connection.execute(
            insert(ServiceStatus).values(
                service_id=row.id,
                observed_generation=row.generation,
                wanted_replicas=desired.replicas,
                ready_replicas=number,
                conditions=msgspec.to_builtins(told),
                digest="",
                updated_at=now,
            )
        )

    async def _run(self, connection: Any, row: Any, replica: int, incarnation: int) -> None:
        self.job += 1
        token, sent = f"t{self.job}", time.time() - 200
        steps = {"intent_at": sent, "submitted_at": sent, "started_at": sent + 12.5, "ready_at": sent + 107.5}
        place = {"service_id": row.id, "replica": replica, "token": token}
        await connection.execute(
            insert(AttemptRow).values(
                **place, **steps, incarnation=incarnation, lane="main", generation=row.generation, digest="",
                failures=0, job_id=self.job, node=f"n{replica + 1}", message="",
            )
        )  # fmt: skip
        await connection.execute(
            insert(EndpointRow).values(**place, models=[], host=f"n{replica + 1}", port=8000, door="k1", state="ready")
        )


@pytest.fixture
def role(backend: Backend) -> Iterator[None]:
    """Roles belong to the whole server: the chapter's must not stay."""
    yield
    if backend.server is not None:
        for name in ("scripts", "gateway"):
            owned = f"IF to_regrole('{name}') IS NOT NULL THEN DROP OWNED BY {name}; END IF;"
            backend.server.psql(f"DO $$ BEGIN {owned} END $$", backend.name)
            backend.server.psql(f"DROP ROLE IF EXISTS {name}")


async def run_sql(backend: Backend, database: Database, block: Block) -> None:
    statements = [s for s in re.split(r";\s*\n", block.code) if s.strip()]
    where = f"docs/sql.md:{block.line}"
    if block.shown is None:
        await backend.run(*statements)
    elif block.shown.startswith("ERROR:"):
        with pytest.raises(Refused) as error:
            await backend.run(*statements)
        assert block.shown.removeprefix("ERROR:").strip() in str(error.value), where
    else:
        query = text(block.code.strip().rstrip(";"))
        keys, rows = await database.read(lambda connection: keys_and_rows(connection.execute(query)))
        found = [keys, *(tuple(map(cell, row)) for row in rows)]
        shown = table(block.shown)
        cut = [
            tuple(a[: len(b) - 1] + "…" if b.endswith("…") else a for a, b in zip(row, told, strict=True))
            for row, told in zip(found, shown, strict=True)
        ]
        assert cut == shown, where


def keys_and_rows(result: CursorResult[Any]) -> tuple[tuple[str, ...], Sequence[Row[Any]]]:
    return tuple(result.keys()), result.all()


def run_shell(backend: Backend, line: str) -> str | None:
    """Run a line of the shell, on this test's database; `None` if it is the other database's, or has no program."""
    program = "sqlite3" if backend.kind == "sqlite" else "psql"
    if not line.startswith(program):
        return None
    environment = {**os.environ, "AI_FACTORY_DATABASE_URL": backend.url}
    if backend.server is not None:
        environment["PATH"] = f"{binaries()}:{environment['PATH']}"
        line = REMOTE.sub(backend.url.replace("owner@", "scripts@"), line)
    elif shutil.which(program) is None:
        return None
    done = subprocess.run(
        ["bash", "-c", line.replace(FILE, backend.name)],
        env=environment, timeout=30, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), line
    return done.stdout


async def test_the_chapter_is_true(backend: Backend, database: Database, role: None) -> None:
    controller, outputs = Controller(database), []
    ran: list[str] = []
    found = blocks()
    for position, block in enumerate(found):
        if block.only in ("sqlite", "postgresql") and block.only != backend.kind:
            continue
        if position and block.only != "now":
            await controller.look()
        ran.append(block.language)
        if block.language == "sql":
            await run_sql(backend, database, block)
        elif block.language == "python":
            calls = [n for n in ast.walk(ast.parse(block.code)) if isinstance(n, ast.keyword) and n.arg == "sql"]
            change, query = (str(ast.literal_eval(call.value)) for call in calls)
            await backend.run(change)
            assert await backend.one(query) == (0,)
            await controller.look()
            assert await backend.one(query) == (1,)
        else:
            lines = block.code.splitlines()
            if block.language == "crontab":
                assert all("%" not in line for line in lines), "cron takes % for the end of a line"
                lines = [line.split(None, 5)[5] for line in lines]
            outputs += [await asyncio.to_thread(run_shell, backend, line) for line in lines]
    assert set(ran) == {"sql", "sh", "crontab", "python"}
    assert len([block for block in found if block.shown]) >= 12
    if backend.kind == "postgresql":
        assert re.search(r"chat +\| +2\n", str(outputs[-1]))
    else:
        assert await backend.one("SELECT desired_state FROM services WHERE name = 'chat'") == ("running",)


@on_postgresql
async def test_the_role_of_the_chapter_may_do_no_more(backend: Backend, role: None) -> None:
    (grants,) = (block.code for block in blocks() if "CREATE ROLE scripts" in block.code)
    await backend.run(*(s for s in grants.split(";") if s.strip()), "INSERT INTO services (recipe_name) VALUES ('r')")
    as_role = "SET ROLE scripts"
    await backend.run(
        as_role,
        "INSERT INTO services (id, name, recipe_name, config, replicas) VALUES ('two', 'two', 'r', '{}', 2)",
        "UPDATE services SET replicas = 3 WHERE name = 'two'",
        "UPDATE services SET rollout_paused = 1 WHERE name = 'two'",
        "SELECT * FROM service_overview, attempt_history, service_generations",
        "DELETE FROM services WHERE name = 'two'",
    )
    assert await backend.one("SELECT generation, deletion_requested_at > 0 FROM services WHERE id = 'two'") == (3, True)
    for statement in (
        "UPDATE services SET purge = 1",
        "UPDATE services SET generation = 7",
        "UPDATE feed SET seq = 0",
        "SELECT * FROM leases",
        "DELETE FROM attempts",
        "DELETE FROM service_generations",
        "SELECT * FROM service_status",
        "TRUNCATE services",
        "DELETE FROM service_overview",
        "DROP TABLE services",
    ):
        with pytest.raises(Refused, match=r"permission denied|must be owner"):
            await backend.run(as_role, statement)


def test_each_line_is_for_one_of_the_shells() -> None:
    for block in blocks():
        if block.language == "sh":
            assert all(line.startswith(("sqlite3 ", "psql ")) for line in block.code.splitlines())

"""The project's own store and lease on a real SQLite file, under the same worlds as the in-memory database."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from api.contract.database import Database, migrate
from api.contract.launch import NoRoomPolicy
from api.contract.recipes.book import Library
from api.contract.settings import SlurmSettings
from controller.core.attempt import Attempt
from controller.lease import SqlLeaseRecords
from controller.store import ATTEMPT_FIELDS, SqlStore
from controller.wanted import Wanted
from tests.memory import in_memory
from tests.simulation.adapters import KEY
from tests.simulation.database import INSTALLATION, SimService

RECIPE = """
name: sim
category: sim
description: For the simulation.
version: 1.0.0
engine: vllm
image: /images/sim.sif
program: [engine]
command: ["{version}", "{socket}"]
ports: [8000]
model: m
parameters:
  version: {type: integer, default: 1, description: Another one launches something else.}
health_check: {interval: 5, retries: 3, startup_timeout: 120}
restart: {max_failures: 1000}
"""
Value = TypeVar("Value")


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that runs only while a call of the store does."""
    return uvloop.new_event_loop()


def finish(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine of the real store to its end, before anything else happens in its world."""
    return loop().run_until_complete(work)


@functools.cache
def template() -> Path:
    """Return a folder with a migrated database and the recipe, made once."""
    folder = Path(tempfile.mkdtemp(prefix="af-sim-template-"))
    atexit.register(shutil.rmtree, folder)
    recipe = folder / "recipes" / "sim" / "sim.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(RECIPE)

    async def make() -> None:
        database = Database(f"sqlite:///{folder / 'ai-factory.db'}")
        await migrate(database)
        await database.close()

    finish(make())
    return folder


class AtOnce:
    """Another object whose coroutines never wait: each is run to its end where it is called."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)

        async def call(*arguments: Any) -> Any:
            return finish(method(*arguments))

        return call


class SqlDatabase:
    """A world's database: the controllers' end is the project's own, the users' end is SQL."""

    installation = INSTALLATION
    surge = 1
    no_room: NoRoomPolicy = "gap"
    time_min: int | None = None

    def __init__(self) -> None:
        self.edits = 0
        self._folder = Path(tempfile.mkdtemp(prefix="af-sim-", dir=in_memory()))
        self._file = self._folder / "ai-factory.db"
        shutil.copyfile(template() / "ai-factory.db", self._file)
        self._wanted = Wanted(INSTALLATION, Library((template() / "recipes",), {}), SlurmSettings(), lambda: KEY)
        self._open()

    def _open(self) -> None:
        self._people = sqlite3.connect(self._file, isolation_level=None)
        self._people.row_factory = sqlite3.Row
        self._people.execute("PRAGMA foreign_keys = ON")
        self._database = Database(f"sqlite:///{self._file}")
        self.store: Any = AtOnce(SqlStore(self._database, self._wanted))
        self.lease_records: Any = AtOnce(SqlLeaseRecords(self._database))

    def _shut(self) -> None:
        finish(self._database.close())
        self._people.close()

    @property
    def epoch(self) -> int:
        """The term that the lease is in."""
        rows = self._people.execute("SELECT epoch FROM leases").fetchall()
        return rows[0]["epoch"] if rows else 0

    @property
    def services(self) -> dict[str, SimService]:
        """What people want."""
        return {
            row["id"]: SimService(
                id=row["id"],
                replicas=row["replicas"],
                running=row["desired_state"] == "running",
                generation=row["generation"],
                deleted=row["deletion_requested_at"] is not None,
                version=json.loads(row["config"])["version"],
                paused=bool(row["rollout_paused"]),
            )
            for row in self._people.execute("SELECT * FROM services")
        }

    @property
    def attempts(self) -> dict[str, Attempt]:
        """All attempts, by token."""
        return {row["token"]: _attempt(row) for row in self._people.execute("SELECT * FROM attempts")}

    def attempt(self, token: str) -> Attempt | None:
        """Return an attempt."""
        row = self._people.execute("SELECT * FROM attempts WHERE token = ?", (token,)).fetchone()
        return _attempt(row) if row is not None else None

    def wanted_digest(self, key: str) -> str:
        """Return what the service's attempts are to run."""
        record = finish(SqlStore(self._database, self._wanted).load(key))
        assert record is not None
        return record.desired.digest

    def change(self, key: str, **values: Any) -> None:
        """Let a user make or change a service, in SQL."""
        self.edits += 1
        columns = {
            "replicas": values.get("replicas"),
            "config": self._config(values["version"]) if "version" in values else None,
            "desired_state": ("running" if values["running"] else "stopped") if "running" in values else None,
            "rollout_paused": int(values["paused"]) if "paused" in values else None,
        }
        given = {name: value for name, value in columns.items() if value is not None}
        if key in self.services:
            changes = ", ".join(f"{name} = :{name}" for name in given)
            self._people.execute(f"UPDATE services SET {changes} WHERE id = :id", given | {"id": key})
            return
        row = {"id": key, "recipe_name": "sim/sim", "replicas": 1, "config": self._config(1)} | given
        names = ", ".join(row)
        self._people.execute(f"INSERT INTO services ({names}) VALUES (:{', :'.join(row)})", row)

    def _config(self, version: int) -> str:
        config: dict[str, object] = {"version": version, "update": {"surge": self.surge, "no_room": self.no_room}}
        return json.dumps(config | ({"resources": {"time_min": self.time_min}} if self.time_min else {}))

    def delete(self, key: str) -> None:
        """Let a user delete a service, in SQL: a trigger makes a tombstone of it."""
        self.edits += 1
        self._people.execute("DELETE FROM services WHERE id = ?", (key,))

    @property
    def position(self) -> int:
        """The feed's number."""
        seq: int = self._people.execute("SELECT seq FROM feed").fetchone()["seq"]
        return seq

    @property
    def routed(self) -> tuple[str, ...]:
        """The attempts that gateways are to ask."""
        return tuple(row["token"] for row in self._people.execute("SELECT token FROM endpoints WHERE state = 'ready'"))

    def sign(self, gateway: str, applied: int) -> None:
        """Let a gateway say that it lives, and what it has heard."""
        row = {"id": gateway, "applied": applied}
        said = self._people.execute("UPDATE gateways SET applied = :applied, signs = signs + 1 WHERE id = :id", row)
        if said.rowcount == 0:
            columns = "id, applied, host, pid, began_at, signs, heard_at"
            self._people.execute(f"INSERT INTO gateways ({columns}) VALUES (:id, :applied, 'h', 1, 1.0, 1, 1.0)", row)

    def backup(self) -> Path:
        """Make a backup as people do: `VACUUM INTO`."""
        path = self._folder / f"backup-{self.edits}-{len(list(self._folder.iterdir()))}.db"
        self._people.execute("VACUUM INTO ?", (str(path),))
        return path

    def restore(self, backup: Path) -> None:
        """Put a backup in the place of the database."""
        self._shut()
        for left in self._folder.glob("ai-factory.db-*"):
            left.unlink()
        shutil.copyfile(backup, self._file)
        self._open()
        self.edits += 1

    def close(self) -> None:
        """Close and remove everything."""
        self._shut()
        shutil.rmtree(self._folder)


def _attempt(row: sqlite3.Row) -> Attempt:
    return Attempt(**{name: row[name] for name in ATTEMPT_FIELDS})

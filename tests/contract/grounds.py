"""What the store and the lease stand on in the contract tests: a real database, or the simulation's in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from backends import Backend
from sqlalchemy.exc import DBAPIError

from api.contract.database import Database
from controller.core.attempt import Attempt
from controller.lease import LeaseRecords, SqlLeaseRecords
from controller.ports import Store
from tests.simulation.database import BrokenRuleError, MemoryDatabase

Line = tuple[str, str, int]
RECIPE = """
name: tool
category: simple
description: For tests.
version: 1.0.0
image: /images/tool.sif
program: [tool]
command: ["{word}", "%s"]
parameters:
  word: {type: string, default: hello, description: A word.}
"""


class Ground(Protocol):
    """A database with the store on it, as its people and its keepers handle it."""

    refusal: type[Exception]
    """Raised for a write that breaks a rule."""

    @property
    def store(self) -> Store: ...

    @property
    def lease_records(self) -> LeaseRecords: ...

    async def insert(self, key: str) -> None:
        """Make a service."""
        ...

    async def scale(self, key: str, replicas: int) -> None: ...

    async def stop(self, key: str) -> None: ...

    async def delete(self, key: str) -> None: ...

    async def depose(self) -> None:
        """Let another controller have the lease."""
        ...

    async def unhold(self) -> None:
        """Leave the lease to nobody."""
        ...

    async def events(self, key: str) -> list[Line]:
        """Return reason, message and count of a service's events, the oldest first."""
        ...

    async def everything(self) -> Any:
        """Return all that the controller writes, to be compared."""
        ...


@dataclass
class SqlGround:
    """A real database."""

    backend: Backend
    database: Database
    store: Store
    refusal: type[Exception] = DBAPIError

    @property
    def lease_records(self) -> LeaseRecords:
        return SqlLeaseRecords(self.database)

    async def insert(self, key: str) -> None:
        await self.backend.run(f"INSERT INTO services (id, recipe_name) VALUES ('{key}', 'simple/tool')")

    async def scale(self, key: str, replicas: int) -> None:
        await self.backend.run(f"UPDATE services SET replicas = {replicas} WHERE id = '{key}'")

    async def stop(self, key: str) -> None:
        await self.backend.run(f"UPDATE services SET desired_state = 'stopped' WHERE id = '{key}'")

    async def delete(self, key: str) -> None:
        await self.backend.run(f"DELETE FROM services WHERE id = '{key}'")

    async def depose(self) -> None:
        await self.backend.run("UPDATE leases SET epoch = epoch + 1")

    async def unhold(self) -> None:
        await self.backend.run("UPDATE leases SET holder = NULL")

    async def events(self, key: str) -> list[Line]:
        query = f"SELECT reason, message, count FROM events WHERE service_id = '{key}' ORDER BY id"
        return [(row[0], row[1], row[2]) for row in await self.backend.run(query)]

    async def everything(self) -> Any:
        tables = ("attempts", "endpoints", "service_status", "events")
        return [sorted(await self.backend.run(f"SELECT * FROM {table}"), key=str) for table in tables]


@dataclass
class MemoryGround:
    """The simulation's database."""

    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    refusal: type[Exception] = BrokenRuleError

    @property
    def store(self) -> Store:
        return self.database.store

    @property
    def lease_records(self) -> LeaseRecords:
        return self.database.lease_records

    async def insert(self, key: str) -> None:
        self.database.change(key)

    async def scale(self, key: str, replicas: int) -> None:
        self.database.change(key, replicas=replicas)

    async def stop(self, key: str) -> None:
        self.database.change(key, running=False)

    async def delete(self, key: str) -> None:
        self.database.delete(key)

    async def depose(self) -> None:
        self.database.lease.epoch += 1

    async def unhold(self) -> None:
        self.database.lease.holder = None

    async def events(self, key: str) -> list[Line]:
        lines = [line for line in self.database.events if line.service_id == key]
        return [(line.event.reason, line.event.message, line.count) for line in lines]

    async def everything(self) -> Any:
        tables = self.database.attempts, self.database.endpoints, self.database.statuses, self.database.events
        return json.dumps(tables, default=repr)


def attempt(token: str = "af-x-one-0-1", **values: Any) -> Attempt:
    """Return an attempt, as new as can be where nothing else is asked for."""
    given: dict[str, Any] = {
        "service_id": "one",
        "replica": 0,
        "incarnation": 1,
        "generation": 1,
        "digest": "d",
        "intent_at": 5.0,
    }
    return Attempt(token=token, **(given | values))

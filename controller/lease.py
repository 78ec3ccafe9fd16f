"""The lease: who may act. Its epoch only grows, and every write of the controller checks it in its own transaction."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.contract.database import Database
from api.contract.tables import LeaseRow as LeaseTable
from controller.failpoints import reach
from controller.ports import Clock, DeposedError, Term

NAME = "controller"


_FENCE = select(LeaseTable.epoch, LeaseTable.holder).where(LeaseTable.name == NAME)
_LOCKING_FENCE = _FENCE.with_for_update(read=True)


async def fence(connection: AsyncConnection, term: Term) -> None:
    """Check, inside a writing transaction, that the term still stands; raises `DeposedError`."""
    query = _LOCKING_FENCE if connection.dialect.name == "postgresql" else _FENCE
    _require((await connection.execute(query)).one_or_none(), term)


async def look_at_fence(database: Database, term: Term) -> None:
    """Check, before something that writes nothing, that the term still stands; raises `DeposedError`."""
    _require(await database.read(lambda connection: connection.execute(_FENCE).one_or_none()), term)


def _require(row: Row[int, str | None] | None, term: Term) -> None:
    if row is None or row.epoch != term.epoch or row.holder is None:
        raise DeposedError(f"The term {term.epoch} is over.")


@dataclass(frozen=True, slots=True)
class HeldLease:
    """What the table says of the lease."""

    epoch: int
    holder: str | None
    """`None`: given up."""
    renewals: int


class LeaseRecords(Protocol):
    """The row of the lease. Each call is one immediate transaction."""

    async def take(self, holder: str, now: float, is_free: Callable[[HeldLease], bool]) -> int | None:
        """Take the lease if there is none or it is free; return the new epoch."""
        ...

    async def renew(self, term: Term, now: float) -> None:
        """Count a renewal; raises `DeposedError` if the term is over."""
        ...

    async def release(self, term: Term) -> None:
        """Give the lease up; raises `DeposedError` if the term is over."""
        ...


class Lease:
    """One candidate for the lease, and its holding.

    Whether a holder lives is judged by its renewals on our own monotonic clock, never by comparing two hosts' clocks.
    """

    def __init__(
        self,
        records: LeaseRecords,
        clock: Clock,
        seconds: float,
        *,
        holder: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._clock = clock
        self._seconds = seconds
        self._monotonic = monotonic
        self._seen: tuple[int, int] | None = None
        self._seen_at = 0.0
        self._renewed_at = float("-inf")
        self.holder = holder if holder is not None else process_identity(os.getpid())

    async def acquire(self) -> Term | None:
        """Try once to take the lease; `None` while another holds it."""
        began, now = self._monotonic(), self._clock.now()
        epoch = await self._records.take(self.holder, now, self._is_free)
        if epoch is None:
            return None
        reach("after take the lease")
        self._renewed_at = began
        return Term(epoch=epoch, began_at=now)

    async def renew(self, term: Term) -> None:
        """Renew the lease; raises `DeposedError` if it is another's by now."""
        began = self._monotonic()
        try:
            await self._records.renew(term, self._clock.now())
        except DeposedError:
            self._renewed_at = float("-inf")
            raise
        self._renewed_at = began

    def holds(self) -> bool:
        """Whether the lease was renewed recently enough to act on the world."""
        return self._monotonic() - self._renewed_at < self._seconds

    async def release(self, term: Term) -> None:
        """Give the lease up, so that a successor need not wait."""
        self._renewed_at = float("-inf")
        await self._records.release(term)

    def _is_free(self, held: HeldLease) -> bool:
        if held.holder is None or is_dead(held.holder):
            return True
        if self._seen != (held.epoch, held.renewals):
            self._seen, self._seen_at = (held.epoch, held.renewals), self._monotonic()
            return False
        return self._monotonic() - self._seen_at > self._seconds


class SqlLeaseRecords:
    """The lease in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, holder: str, now: float, is_free: Callable[[HeldLease], bool]) -> int | None:
        """Take the lease if there is none or it is free; return the new epoch."""
        values = {"holder": holder, "host": socket.gethostname(), "renewals": 0, "renewed_at": now}
        async with self._database.write() as connection:
            query = select(LeaseTable).where(LeaseTable.name == NAME)
            if connection.dialect.name == "postgresql":
                query = query.with_for_update()
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                try:
                    await connection.execute(insert(LeaseTable).values(name=NAME, epoch=1, **values))
                except IntegrityError:  # another candidate was first
                    await connection.rollback()
                    return None
                return 1
            if not is_free(HeldLease(row.epoch, row.holder, row.renewals)):
                return None
            epoch = int(row.epoch) + 1
            await connection.execute(update(LeaseTable).where(LeaseTable.name == NAME).values(epoch=epoch, **values))
            reach("before take the lease")
            return epoch

    async def renew(self, term: Term, now: float) -> None:
        """Count a renewal."""
        query = update(LeaseTable).where(LeaseTable.name == NAME)
        async with self._database.write() as connection:
            await fence(connection, term)
            await connection.execute(query.values(renewals=LeaseTable.renewals + 1, renewed_at=now))
            reach("before renew the lease")
        reach("after renew the lease")

    async def release(self, term: Term) -> None:
        """Give the lease up."""
        async with self._database.write() as connection:
            await fence(connection, term)
            await connection.execute(update(LeaseTable).where(LeaseTable.name == NAME).values(holder=None))
            reach("before release the lease")
        reach("after release the lease")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who holds the lease, as the database says."""

    epoch: int
    holder: str | None
    """`None`: given up."""
    host: str | None
    renewed_at: float


async def leader(database: Database) -> Leader | None:
    """Return who leads, or led last; `None` if no controller ever did."""
    columns = (LeaseTable.epoch, LeaseTable.holder, LeaseTable.host, LeaseTable.renewed_at)
    query = select(*columns).where(LeaseTable.name == NAME)
    row = await database.read(lambda connection: connection.execute(query).one_or_none())
    return None if row is None else Leader(**row._mapping)


def process_identity(pid: int) -> str:
    """Name a process so that its death can be told on its own host: boot, pid namespace, pid, start time."""
    return f"{_machine()}/{pid}/{_start_time(pid) or ''}"


def is_dead(holder: str) -> bool:
    """Whether the holder was a process of this very machine and is no more. On any doubt: no."""
    machine, _, rest = holder.partition("/")
    pid, _, started = rest.partition("/")
    if machine != _machine() or not pid.isdecimal() or not started:
        return False
    found = _start_time(int(pid))
    return found is not None and found != started


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}|{boot}|{Path('/proc/self/ns/pid').readlink()}"


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat (proc(5)); empty for a process that is not, or a zombie; `None`: can't be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if _is_absent(pid) else None
    return "" if fields[0] in ("Z", "X") else fields[19]


def _is_absent(pid: int) -> bool:
    """Whether there is surely no such process; /proc may hide those of other users (hidepid in proc(5))."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False

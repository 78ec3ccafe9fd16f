"""The lease: who may act. Its epoch only grows, and every write of the controller checks it in its own transaction."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.contract.database import Database
from api.contract.tables import Lease as LeaseTable
from controller.ports import Clock, DeposedError, Term

NAME = "controller"


async def fence(connection: AsyncConnection, term: Term) -> None:
    """Check, inside a writing transaction, that the term still stands; raises `DeposedError`."""
    query = select(LeaseTable.epoch, LeaseTable.holder).where(LeaseTable.name == NAME)
    if connection.dialect.name == "postgresql":
        query = query.with_for_update(read=True)
    row = (await connection.execute(query)).one_or_none()
    if row is None or row.epoch != term.epoch or row.holder is None:
        raise DeposedError(f"The term {term.epoch} is over.")


class Lease:
    """One candidate for the lease, and its holding.

    Whether a holder lives is judged by its renewals on our own monotonic clock, never by comparing two hosts' clocks.
    """

    def __init__(
        self, database: Database, clock: Clock, seconds: float, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._seconds = seconds
        self._monotonic = monotonic
        self._seen: tuple[int, int] | None = None
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self.holder = process_identity(os.getpid())

    async def acquire(self) -> Term | None:
        """Try once to take the lease; `None` while another holds it."""
        try:
            return await self._acquire()
        except IntegrityError:
            return None  # another made the first row at the same moment

    async def _acquire(self) -> Term | None:
        began = self._monotonic()
        async with self._database.write() as connection:
            query = select(LeaseTable).where(LeaseTable.name == NAME)
            if connection.dialect.name == "postgresql":
                query = query.with_for_update()
            row = (await connection.execute(query)).one_or_none()
            now = self._clock.now()
            if row is not None and not self._is_free(row.holder, row.epoch, row.renewals):
                return None
            values = {"holder": self.holder, "host": socket.gethostname(), "renewals": 0, "renewed_at": now}
            epoch = row.epoch + 1 if row is not None else 1
            if row is None:
                await connection.execute(insert(LeaseTable).values(name=NAME, epoch=epoch, **values))
            else:
                await connection.execute(
                    update(LeaseTable).where(LeaseTable.name == NAME).values(epoch=epoch, **values)
                )
        self._renewed_at = began
        return Term(epoch=epoch, began_at=now)

    async def renew(self, term: Term) -> None:
        """Renew the lease; raises `DeposedError` if it is another's by now."""
        began = self._monotonic()
        async with self._database.write() as connection:
            await fence(connection, term)
            await connection.execute(
                update(LeaseTable)
                .where(LeaseTable.name == NAME)
                .values(renewals=LeaseTable.renewals + 1, renewed_at=self._clock.now())
            )
        self._renewed_at = began

    def holds(self) -> bool:
        """Whether the lease was renewed recently enough to act on the world."""
        return self._monotonic() - self._renewed_at < self._seconds

    async def release(self, term: Term) -> None:
        """Give the lease up, so that a successor need not wait."""
        async with self._database.write() as connection:
            await fence(connection, term)
            await connection.execute(update(LeaseTable).where(LeaseTable.name == NAME).values(holder=None))

    def _is_free(self, holder: str | None, epoch: int, renewals: int) -> bool:
        if holder is None or is_dead(holder):
            return True
        if self._seen != (epoch, renewals):
            self._seen, self._seen_at = (epoch, renewals), self._monotonic()
            return False
        return self._monotonic() - self._seen_at > self._seconds


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

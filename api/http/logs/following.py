"""Following the logs of a service's jobs: server-sent events of whole lines, from attempt to attempt.

The id of each event says for every file followed up to which byte it was sent, and by what that file is known, so that
who comes back is sent the next line: none again, and none left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, select

from api.contract.database import Database
from api.contract.job.folder import STDERR, STDOUT
from api.contract.tables import AttemptRow, Service
from api.http.logs.ends import folder_of
from api.http.logs.places import NOWHERE, Mark
from api.http.logs.tail import Tail
from api.http.logs.tails import Tails
from api.http.services import VIEW
from api.http.wire import status_of
from api.web import sse
from api.web.bell import rung
from api.web.errors import InvalidError, Problem, UnavailableError
from api.web.query import bad_header
from api.web.transactions import reading

BEGINNING_AT_ONCE = 8
"""Followers: of hundreds who come at once the others wait, and cost whoever asks for something else no time."""
MOST_FILES = 64
"""That one client follows."""
LOOK_SECONDS = 1.0
PASSES_AFTER_END = 3
"""So often a file is read once its job has gone, before it counts as finished: it may lie on NFS."""
_STREAMS = {"o": ("stdout", STDOUT), "e": ("stderr", STDERR)}
_MARK = re.compile(r"(\d{1,4})-(\d{1,9})\.([oe])\.(\d{1,18})\.(\d{1,4})\.([0-9a-f]{1,8})")
_OVER = frozenset({"completed", "failed", "cancelled"})

_SERVICE = VIEW.where(Service.id == bindparam("key"))
_ATTEMPTS = (
    select(AttemptRow.service_id, AttemptRow.token, AttemptRow.replica, AttemptRow.incarnation,
           AttemptRow.gone_at, AttemptRow.outcome)
    .where(AttemptRow.service_id == bindparam("key"))
    .order_by(AttemptRow.replica, AttemptRow.incarnation)
)  # fmt: skip


class Key(NamedTuple):
    """A file: of which replica, which of its attempts, and o (stdout) or e (stderr)."""

    replica: int
    attempt: int
    stream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedLogs:
    """Which logs a client wants to follow, and from where on."""

    replica: int | None
    attempt: int | None
    lines: int | None
    marks: dict[Key, Mark]


@dataclass(slots=True)
class KnownAttempts:
    """A service that is followed, as it was when it was looked at last."""

    attempts: Sequence[Any]
    is_over: bool
    looked_at: float


def read_marks(header: str | None) -> dict[Key, Mark]:
    """Read the id of the last event that a client received; raises `InvalidError`."""
    marks: dict[Key, Mark] = {}
    for part in (header or "").split(",") if header else ():
        match = _MARK.fullmatch(part)
        if match is None or len(marks) >= MOST_FILES:
            raise bad_header("Last-Event-ID", "must be the id of the last event that was received", header or "")
        replica, attempt, stream, *mark = match.groups()
        offset, length = int(mark[0]), int(mark[1])
        marks[Key(int(replica), int(attempt), stream)] = Mark(offset, min(offset, length), int(mark[2], 16))
    return marks


def chosen(attempts: Iterable[Any], replica: int | None, attempt: int | None) -> list[Any]:
    """Return the attempts that are meant: these, or the newest one of each replica. They come in their order."""
    found = [row for row in attempts if replica in (None, row.replica) and attempt in (None, row.incarnation)]
    newest = {row.replica: row.incarnation for row in found}
    return [row for row in found if row.incarnation == newest[row.replica]]


class Following:
    """Follows logs for many clients: one look a second at what is followed, one reader a file."""

    def __init__(self, database: Database, run_dir: Path) -> None:
        self._database = database
        self._run_dir = run_dir
        self._known: dict[str, KnownAttempts] = {}
        self._looking = asyncio.Lock()
        self.beginning = asyncio.Semaphore(BEGINNING_AT_ONCE)
        """Held by who begins to follow, for what that takes."""
        self.tails = Tails(run_dir)

    async def look(self, service_id: str) -> KnownAttempts:
        """Return a service's attempts, as they were a second ago at most; asked for once, whoever wants to know."""
        now = asyncio.get_running_loop().time()
        async with self._looking:
            known = self._known.get(service_id)
            if known is not None and known.looked_at > now - LOOK_SECONDS:
                return known
            services, attempts = await reading(self._database, lambda connection: _rows(connection, service_id))
            is_over = not services or status_of(services[0]) in _OVER
            known = self._known[service_id] = KnownAttempts(attempts, is_over, asyncio.get_running_loop().time())
            for other in [key for key, one in self._known.items() if one.looked_at < now - 10 * LOOK_SECONDS]:
                del self._known[other]
            return known

    async def follow(self, service_id: str, wanted: WantedLogs) -> AsyncIterator[bytes]:
        """Yield the events. Ends with the attempt that was asked for, with the service, and when the API stops."""
        one = _One(self, service_id, wanted)
        try:
            async for event in one.events():
                yield event
        finally:
            one.let_go()

    async def tail(self, token: str, stream: str) -> Tail:
        """Return the tail of a file of an attempt."""
        return await self.tails.follow(folder_of(self._run_dir, token) / _STREAMS[stream][1])


@dataclass(slots=True)
class _File:
    tail: Tail
    place: int
    mark: Mark
    gone_since: int | None = None
    """The number of the pass at which the job was first known to have gone."""
    is_finished: bool = False


def _rows(connection: Connection, service_id: str) -> tuple[Sequence[Any], Sequence[Any]]:
    """Read a service, if it is there, and its attempts."""
    keys = {"key": service_id}
    return connection.execute(_SERVICE, keys).all(), connection.execute(_ATTEMPTS, keys).all()


class _One:
    """What one client follows, and how far it has come."""

    def __init__(self, shared: Following, service_id: str, wanted: WantedLogs) -> None:
        self._shared = shared
        self._service_id = service_id
        self._wanted = wanted
        self._files: dict[Key, _File] = {}
        self._newest: dict[int, int] = {}

    def let_go(self) -> None:
        for file in self._files.values():
            if not file.is_finished:
                self._shared.tails.let_go(file.tail)

    async def events(self) -> AsyncIterator[bytes]:
        is_first = True
        loop = asyncio.get_running_loop()
        said_at = loop.time()
        while not self._shared.tails.is_closed:
            ring = self._shared.tails.bell.next
            try:
                known = await self._shared.look(self._service_id)
            except UnavailableError:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            async with self._shared.beginning if is_first else contextlib.nullcontext():
                await self._take_up(known.attempts, is_first=is_first)
            if is_first:
                yield sse.head("following", self._marks())
                is_first = False
            outcomes = {(row.replica, row.incarnation): row for row in known.attempts}
            is_quiet = True
            for key in sorted(self._files):
                if (event := await self._next(key, outcomes.get(key[:2]))) is not None:
                    is_quiet, said_at = False, loop.time()
                    yield event
            if not is_quiet:
                continue
            is_done = all(file.is_finished for file in self._files.values())
            if is_done and (known.is_over or (self._wanted.attempt is not None and self._files)):
                yield sse.event("over")
                return
            if loop.time() - said_at > sse.HEARTBEAT_SECONDS:
                said_at = loop.time()
                yield sse.HEARTBEAT
            await rung(ring, LOOK_SECONDS)

    async def _take_up(self, attempts: Sequence[Any], *, is_first: bool) -> None:
        """Begin to follow attempts that are new: at first those asked for or known to the client, then what comes."""
        if is_first:
            known = {(key.replica, key.attempt) for key in self._wanted.marks}
            marked = {replica: max(a for r, a in known if r == replica) for replica, _ in known}
            wanted = chosen(attempts, self._wanted.replica, self._wanted.attempt)
            rows = [
                row
                for row in attempts
                if (row.replica, row.incarnation) in known
                or (row.incarnation > marked[row.replica] if row.replica in marked else row in wanted)
            ]
        elif self._wanted.attempt is not None:
            rows = [row for row in chosen(attempts, self._wanted.replica, self._wanted.attempt)
                    if row.replica not in self._newest]  # fmt: skip
        else:
            rows = [
                row
                for row in attempts
                if self._wanted.replica in (None, row.replica) and row.incarnation > self._newest.get(row.replica, 0)
            ]
        for row in rows:
            for stream in _STREAMS:
                key = Key(row.replica, row.incarnation, stream)
                if key in self._files or len(self._files) >= 4 * MOST_FILES:
                    continue
                tail = await self._shared.tail(row.token, stream)
                mark = self._wanted.marks.get(key)
                is_new = bool(self._wanted.marks and mark is None) or not is_first
                file = self._files[key] = _File(tail, 0, mark or NOWHERE)
                begin = await asyncio.to_thread(tail.begin, mark, self._wanted.lines, whole=is_new)
                file.place, file.mark = begin
            self._newest[row.replica] = max(row.incarnation, self._newest.get(row.replica, 0))

    async def _next(self, key: Key, row: Any) -> bytes | None:
        """Return the next event of a file, if there is one."""
        file = self._files[key]
        if file.is_finished:
            return None
        is_gone = row is None or row.gone_at is not None
        if is_gone and file.gone_since is None:
            file.gone_since = file.tail.passes
        is_final = file.gone_since is not None and file.tail.passes >= file.gone_since + PASSES_AFTER_END
        if file.tail.is_near(file.place):
            piece = file.tail.take(file.place, is_final=is_final) if file.tail.has_more(file.place) else None
        else:
            piece = await asyncio.to_thread(file.tail.take, file.place, is_final=is_final)
        about: dict[str, Any] = {"replica": key.replica, "attempt": key.attempt, "stream": _STREAMS[key.stream][0]}
        if piece is not None:
            file.place, file.mark = piece.end, piece.mark
            lost = self._event("gap", {**about, "bytes": piece.lost}) if piece.lost else b""
            return lost + self._event("log", {**about, "text": piece.content.decode("utf-8", "replace")})
        if is_final and not file.tail.has_more(file.place):
            file.is_finished = True
            self._shared.tails.let_go(file.tail)
            return self._event("ended", {**about, "outcome": None if row is None else row.outcome})
        return None

    def _event(self, name: str, data: dict[str, Any]) -> bytes:
        """Write an event, under the places that all files have come to."""
        return sse.event(name, msgspec.json.encode(data), self._marks())

    def _marks(self) -> str:
        """Return the places that all files have come to; what is finished and followed is left out."""
        return ",".join(
            f"{key.replica}-{key.attempt}.{key.stream}.{file.mark}"
            for key, file in self._files.items()
            if not file.is_finished or key.attempt == self._newest.get(key.replica)
        )


def check_number(attempts: Sequence[Any], wanted: WantedLogs) -> None:
    """Raise `InvalidError` if these are more files than one client can follow."""
    rows = chosen(attempts, wanted.replica, wanted.attempt)
    if len(rows) * len(_STREAMS) > MOST_FILES:
        msg = f"{len(rows)} replicas are too many to follow at once. Choose one with replica=."
        raise InvalidError(Problem(loc=("query", "replica"), msg=msg, type="missing"))

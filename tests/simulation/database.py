"""An in-memory database with the controller's store on it: the rules of the SQL one, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

from api.contract.launch import Health, LaunchSpec, NoRoomPolicy, Resources
from controller.core.attempt import Attempt, SendOutcome, Sent
from controller.core.desired import Desired
from controller.core.lead import Way
from controller.core.plan import Plan
from controller.core.published import Endpoint, Event, Status
from controller.lease import HeldLease
from controller.ports import DeposedError, Gateway, Record, Term, Tracked
from tests.simulation.adapters import KEY

INSTALLATION = "sim"
SPEC = LaunchSpec(
    recipe="sim/sim",
    kind="service",
    engine="vllm",
    model="m",
    image=None,
    command=("engine",),
    access="door",
    resources=Resources(gpu=1),
    health=Health(interval=5.0, retries=3, startup_timeout=120.0),
    max_failures=1000,
)


class BrokenRuleError(Exception):
    """What a constraint or trigger of the database refuses."""


@dataclass
class SimService:
    """A row of `services`."""

    id: str
    replicas: int = 1
    running: bool = True
    version: int = 1
    """Of its config: another one launches something else."""
    generation: int = 1
    deleted: bool = False
    paused: bool = False
    """Whether changes are held back from what runs."""


@dataclass
class LeaseRow:
    """The row of `leases`."""

    epoch: int = 0
    holder: str | None = None
    renewals: int = 0


@dataclass(frozen=True)
class EventLine:
    """A row of `events`."""

    service_id: str
    event: Event
    count: int
    first_at: float
    last_at: float


@dataclass
class Tables:
    """All rows."""

    services: dict[str, SimService] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    statuses: dict[str, Status] = field(default_factory=dict)
    endpoints: dict[str, tuple[str, Endpoint]] = field(default_factory=dict)
    """By token, with their service."""
    events: list[EventLine] = field(default_factory=list)
    lease: LeaseRow = field(default_factory=LeaseRow)
    gateways: dict[str, Gateway] = field(default_factory=dict)
    seq: int = 0
    changes: dict[str, int] = field(default_factory=dict)


class MemoryDatabase(Tables):
    """The tables with their rules, and what users do to them."""

    installation = INSTALLATION
    edits = 0
    """How often people changed something: who sees it unchanged need not ask the feed."""
    surge = 1
    """Of every service."""
    no_room: NoRoomPolicy = "gap"
    """Of every service."""
    time_min: int | None = None
    """Minutes, of every service."""

    @property
    def store(self) -> MemoryStore:
        """The controller's store on it."""
        return MemoryStore(self)

    @property
    def lease_records(self) -> MemoryLeaseRecords:
        """The lease on it."""
        return MemoryLeaseRecords(self)

    @property
    def epoch(self) -> int:
        """The term that the lease is in."""
        return self.lease.epoch

    def change(self, key: str, **values: object) -> None:
        """Let a user make or change a service."""
        is_new = key not in self.services
        service = self.services.setdefault(key, SimService(id=key, generation=0))
        vars(service).update(values)
        service.generation += is_new or bool(values.keys() - {"paused"})
        self.seq += 1
        self.changes[key] = self.seq
        self.edits += 1

    def delete(self, key: str) -> None:
        """Let a user delete a service: it stays, as a tombstone."""
        if not self.services[key].deleted:
            self.change(key, deleted=True)

    def attempt(self, token: str) -> Attempt | None:
        """Return an attempt."""
        return self.attempts.get(token)

    def wanted_digest(self, key: str) -> str:
        """Return what the service's attempts are to run."""
        return f"v{self.services[key].version}"

    @property
    def position(self) -> int:
        """The feed's number."""
        return self.seq

    @property
    def routed(self) -> tuple[str, ...]:
        """The attempts that gateways are to ask."""
        return tuple(token for token, (_, endpoint) in self.endpoints.items() if endpoint.ready)

    def sign(self, gateway: str, applied: int) -> None:
        """Let a gateway say that it lives, and what it has heard."""
        before = self.gateways.get(gateway)
        self.gateways[gateway] = Gateway(id=gateway, applied=applied, signs=before.signs + 1 if before else 1)

    def backup(self) -> Tables:
        """Return a copy of everything."""
        return Tables(**{f.name: copy.deepcopy(getattr(self, f.name)) for f in fields(Tables)})

    def restore(self, backup: Tables) -> None:
        """Put a copy back."""
        vars(self).update(copy.deepcopy(vars(backup)))
        self.edits += 1

    def close(self) -> None:
        """Nothing is held."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it, or nothing."""
        before = {name: copy.copy(value) for name, value in vars(self).items()}
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise

    def write(self, attempt: Attempt, *, exists: bool) -> None:
        """Insert or replace an attempt, under the rules of constraints, indexes and triggers."""
        before = self.attempts.get(attempt.token)
        if exists and before is None:
            return
        if not exists and before is not None:
            raise BrokenRuleError("a token is given once")
        if attempt.service_id not in self.services:
            raise BrokenRuleError("an attempt belongs to a service")
        if before is not None and not before.open and _end(before) != _end(attempt):
            raise BrokenRuleError("a closed attempt stays closed")
        _check_values(attempt)
        for other in self.attempts.values():
            if other.token == attempt.token or other.service_id != attempt.service_id:
                continue
            if other.replica == attempt.replica and other.incarnation == attempt.incarnation:
                raise BrokenRuleError("one attempt per incarnation")
            if other.open and attempt.open and (other.replica, other.lane) == (attempt.replica, attempt.lane):
                raise BrokenRuleError("one open attempt per service, replica and lane")
        self.attempts[attempt.token] = attempt

    def write_endpoints(self, key: str, before: Collection[Endpoint], after: Collection[Endpoint]) -> None:
        """Delete, insert and update what differs."""
        known = {e.token for e in before}
        for token in known - {e.token for e in after}:
            self.endpoints.pop(token, None)
        for endpoint in after:
            if (endpoint.token in self.endpoints) != (endpoint.token in known):
                if endpoint.token in known:
                    continue
                raise BrokenRuleError("one endpoint per attempt")
            if key not in self.services:
                raise BrokenRuleError("an endpoint belongs to a service")
            self.endpoints[endpoint.token] = key, endpoint
        self.seq += 1

    def number_drains(self, attempts: Collection[Attempt]) -> None:
        """Write down at which number of the feed attempts began to drain."""
        for attempt in attempts:
            if attempt.draining_since is not None and attempt.draining_feed is None:
                self.attempts[attempt.token] = replace(attempt, draining_feed=self.seq)

    def write_event(self, key: str, event: Event, now: float) -> None:
        """Count the newest line up if it says the same, else add one."""
        for at in range(len(self.events) - 1, -1, -1):
            newest = self.events[at]
            if newest.service_id != key:
                continue
            if (newest.event.reason, newest.event.message) == (event.reason, event.message):
                self.events[at] = replace(newest, count=newest.count + 1, last_at=now)
                return
            break
        self.events.append(EventLine(key, event, 1, now, now))


def _way(attempt: Attempt, forerunner: Attempt | None) -> Way:
    assert attempt.started_at is not None
    return Way(
        intent_at=attempt.intent_at,
        started_at=attempt.started_at,
        ready_at=attempt.ready_at,
        forerunner_closed_at=forerunner.closed_at if forerunner is not None else None,
        forerunner_gone_at=forerunner.gone_at if forerunner is not None else None,
    )


def _end(attempt: Attempt) -> tuple[float | None, str | None]:
    return attempt.closed_at, attempt.outcome


def _check_values(attempt: Attempt) -> None:
    if attempt.replica < 0 or attempt.incarnation < 1:
        raise BrokenRuleError("replicas are counted from 0, incarnations from 1")
    if attempt.gone_at is not None and attempt.open:
        raise BrokenRuleError("what is gone is closed")
    if not attempt.open and attempt.outcome is None:
        raise BrokenRuleError("what is closed has an outcome")
    if attempt.port is not None and not 1 <= attempt.port <= 65535:
        raise BrokenRuleError("no such port")


class MemoryStore:
    """ports.Store on the in-memory database."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def keys(self) -> tuple[str, ...]:
        """Return the ids of all services."""
        return tuple(self._database.services)

    async def changed(self, since: int) -> tuple[int, tuple[str, ...]]:
        """Return the feed's position and what changed after `since`."""
        found = sorted((seq, key) for key, seq in self._database.changes.items() if seq > since)
        return (found[-1][0] if found else since), tuple(key for _, key in found)

    async def load(self, key: str) -> Record | None:
        """Read one service."""
        database = self._database
        service = database.services.get(key)
        if service is None:
            return None
        mine = sorted(
            (a for a in database.attempts.values() if a.service_id == key), key=lambda a: (a.replica, a.incarnation)
        )
        newest = {a.replica: a.incarnation for a in mine}
        endpoints = sorted((e for owner, e in database.endpoints.values() if owner == key), key=lambda e: e.replica)
        return Record(
            desired=Desired(
                installation=self._database.installation,
                service_id=key,
                name=key,
                generation=service.generation,
                running=service.running and not service.deleted,
                replicas=service.replicas,
                spec=replace(
                    SPEC,
                    surge=self._database.surge,
                    no_room=self._database.no_room,
                    resources=replace(SPEC.resources, time_min=self._database.time_min),
                ),
                digest=f"v{service.version}",
                paused=service.paused,
                door=KEY,
            ),
            status=database.statuses.get(key, Status()),
            endpoints=tuple(endpoints),
            attempts=tuple(a for a in mine if a.gone_at is None or newest[a.replica] == a.incarnation),
        )

    async def record(self, term: Term, record: Record, plan: Plan, now: float) -> None:
        """Write a plan under the term: all of it, or nothing. A plan of nothing is not even looked at."""
        changes = plan.attempts or plan.events or plan.status is not None or plan.endpoints is not None
        if not (changes or plan.actions):
            return
        key, known = record.desired.service_id, {a.token for a in record.attempts}
        with self._database.transaction():
            self.fence(term)
            for attempt in plan.attempts:
                self._database.write(attempt, exists=attempt.token in known)
            if plan.endpoints is not None:
                self._database.write_endpoints(key, record.endpoints, plan.endpoints)
            self._database.number_drains(plan.attempts)
            if plan.status is not None:
                self._database.statuses[key] = plan.status
            for event in plan.events:
                self._database.write_event(key, event, now)

    async def note(self, term: Term, token: str, sent: Sent, now: float) -> None:
        """Write the job id that sbatch answered."""
        if sent.outcome is not SendOutcome.ACCEPTED:
            return
        self.fence(term)
        attempt = self._database.attempts.get(token)
        if attempt is not None and attempt.job_id is None:
            self._database.attempts[token] = replace(attempt, job_id=sent.job_id, submitted_at=now)
            line = Event(reason="Submitted", message=f"Replica {attempt.replica}: it is job {sent.job_id}.")
            self._database.write_event(attempt.service_id, line, now)

    async def tracked(self) -> tuple[Tracked, ...]:
        """Return all attempts that are not gone."""
        return tuple(Tracked.of(a) for a in self._database.attempts.values() if a.gone_at is None)

    async def known(self, tokens: Collection[str]) -> Mapping[str, bool]:
        """Return whether the attempts of known tokens are closed."""
        attempts = self._database.attempts
        return {t: not attempts[t].open for t in tokens if t in attempts}

    async def placed(self, since: float) -> Sequence[Attempt]:
        """Return the attempts that had a node and were not closed before `since`, newest first."""
        rows = [a for a in self._database.attempts.values() if a.node and (a.closed_at is None or a.closed_at > since)]
        return sorted(rows, key=lambda a: -a.intent_at)

    async def ways(self, since: float) -> Sequence[tuple[str, Way]]:
        """Return the jobs that began, newest first, each with the digest of its launch."""
        rows = self._database.attempts.values()
        places = {(a.service_id, a.replica, a.incarnation): a for a in rows}
        found = sorted((a for a in rows if a.intent_at > since), key=lambda a: -a.intent_at)
        return [
            (a.digest, _way(a, places.get((a.service_id, a.replica, a.incarnation - 1)) if a.beside else None))
            for a in found
            if a.started_at is not None
        ]

    async def gateways(self) -> tuple[Gateway, ...]:
        """Return all gateways that are remembered."""
        return tuple(self._database.gateways.values())

    async def forget_gateways(self, ids: Collection[str]) -> None:
        """Remove gateways."""
        for id_ in ids:
            self._database.gateways.pop(id_, None)

    def fence(self, term: Term) -> None:
        """Check that the term stands; raises `DeposedError`."""
        lease = self._database.lease
        if lease.epoch != term.epoch or lease.holder is None:
            raise DeposedError(f"The term {term.epoch} is over.")


class MemoryLeaseRecords:
    """lease.LeaseRecords on the in-memory database."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def take(self, holder: str, now: float, is_free: Callable[[HeldLease], bool]) -> int | None:
        """Take the lease if there is none or it is free; return the new epoch."""
        row = self._database.lease
        if row.epoch and not is_free(HeldLease(row.epoch, row.holder, row.renewals)):
            return None
        self._database.lease = LeaseRow(epoch=row.epoch + 1, holder=holder)
        return row.epoch + 1

    async def renew(self, term: Term, now: float) -> None:
        """Count a renewal."""
        MemoryStore(self._database).fence(term)
        self._database.lease = replace(self._database.lease, renewals=self._database.lease.renewals + 1)

    async def release(self, term: Term) -> None:
        """Give the lease up."""
        MemoryStore(self._database).fence(term)
        self._database.lease = replace(self._database.lease, holder=None)

"""An in-memory database with the controller's store on it: the rules of the SQL one, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from api.contract.launch import Health, LaunchSpec, Resources
from controller.core.model import Attempt, Desired, Endpoint, Event, Plan, SendOutcome, Sent, Status
from controller.ports import DeposedError, Record, Term, Tracked
from controller.roster import track

INSTALLATION = "sim"
SPEC = LaunchSpec(
    recipe="sim/sim",
    kind="service",
    engine="vllm",
    model="m",
    image=None,
    command=("engine",),
    resources=Resources(),
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


@dataclass
class LeaseRow:
    """The row of `leases`."""

    epoch: int = 0
    holder: str | None = None
    renewals: int = 0


@dataclass
class MemoryDatabase:
    """All tables."""

    services: dict[str, SimService] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    statuses: dict[str, Status] = field(default_factory=dict)
    endpoints: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    events: list[tuple[str, Event]] = field(default_factory=list)
    lease: LeaseRow = field(default_factory=LeaseRow)
    seq: int = 0
    changes: dict[str, int] = field(default_factory=dict)

    def change(self, key: str, change: Callable[[SimService], None]) -> None:
        """Let a user change a service."""
        service = self.services.setdefault(key, SimService(id=key, generation=0))
        change(service)
        service.generation += 1
        self.seq += 1
        self.changes[key] = self.seq

    def write(self, attempt: Attempt) -> None:
        """Insert or replace an attempt, under the rules of index and trigger."""
        if attempt.service_id not in self.services:
            raise BrokenRuleError("an attempt belongs to a service")
        before = self.attempts.get(attempt.token)
        if (
            before is not None
            and not before.open
            and (before.closed_at, before.outcome)
            != (
                attempt.closed_at,
                attempt.outcome,
            )
        ):
            raise BrokenRuleError("a closed attempt stays closed")
        if attempt.open and any(
            a.open and a.token != attempt.token and (a.service_id, a.replica, a.lane) == _slot(attempt)
            for a in self.attempts.values()
        ):
            raise BrokenRuleError("one open attempt per service, replica and lane")
        self.attempts[attempt.token] = attempt


def _slot(attempt: Attempt) -> tuple[str, int, str]:
    return attempt.service_id, attempt.replica, attempt.lane


class MemoryStore:
    """ports.Store on the in-memory database."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    async def keys(self) -> tuple[str, ...]:
        """Return the ids of all services."""
        return tuple(self._database.services)

    async def changed(self, since: int) -> tuple[int, tuple[str, ...]]:
        """Return the feed's position and what changed after `since`."""
        return self._database.seq, tuple(k for k, seq in self._database.changes.items() if seq > since)

    async def load(self, key: str) -> Record | None:
        """Read one service."""
        database = self._database
        service = database.services.get(key)
        if service is None:
            return None
        mine = [a for a in database.attempts.values() if a.service_id == key]
        newest = {a.replica: a.incarnation for a in sorted(mine, key=lambda a: a.incarnation)}
        return Record(
            desired=Desired(
                installation=INSTALLATION,
                service_id=key,
                name=key,
                generation=service.generation,
                running=service.running,
                replicas=service.replicas,
                spec=SPEC,
                digest=f"v{service.version}",
            ),
            status=database.statuses.get(key, Status()),
            endpoints=database.endpoints.get(key, ()),
            attempts=tuple(a for a in mine if a.gone_at is None or newest[a.replica] == a.incarnation),
        )

    async def record(self, term: Term, record: Record, plan: Plan, now: float) -> None:
        """Write a plan under the term: all of it, or nothing."""
        self.fence(term)
        before = dict(self._database.attempts)
        try:
            for attempt in plan.attempts:
                self._database.write(attempt)
        except BrokenRuleError:
            self._database.attempts = before
            raise
        key = record.desired.service_id
        if plan.status is not None:
            self._database.statuses[key] = plan.status
        if plan.endpoints is not None:
            self._database.endpoints[key] = plan.endpoints
        self._database.events += [(key, event) for event in plan.events]

    async def note(self, term: Term, token: str, sent: Sent, now: float) -> None:
        """Write the job id that sbatch answered."""
        self.fence(term)
        attempt = self._database.attempts[token]
        if sent.outcome is SendOutcome.ACCEPTED and attempt.job_id is None:
            self._database.attempts[token] = replace(attempt, job_id=sent.job_id, submitted_at=now)

    async def tracked(self) -> tuple[Tracked, ...]:
        """Return all attempts that are not gone."""
        return tuple(track(a) for a in self._database.attempts.values() if a.gone_at is None)

    async def known(self, tokens: Collection[str]) -> Mapping[str, bool]:
        """Return whether the attempts of known tokens are closed."""
        attempts = self._database.attempts
        return {t: not attempts[t].open for t in tokens if t in attempts}

    def fence(self, term: Term) -> None:
        """Check that the term stands; raises `DeposedError`."""
        lease = self._database.lease
        if lease.epoch != term.epoch or lease.holder is None:
            raise DeposedError(f"the term {term.epoch} is over")

"""observe: gather all that is seen of one service. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from api.contract.job.token import Token
from controller.core.model import Attempt, JobPhase, Observed, ProbeSpec, ReadingFailure, Sent, Snapshot
from controller.ports import Probes, Record, RunDirs


class Cluster(Protocol):
    """The latest reading of the cluster."""

    @property
    def latest(self) -> Snapshot | None:
        """The latest snapshot of this term."""
        ...

    @property
    def failure(self) -> ReadingFailure | None:
        """Set while the newest readings failed."""
        ...

    def tokens_of(self, service_id: str) -> Sequence[Token]:
        """Return the tokens of one service in the latest snapshot."""
        ...


class Sends(Protocol):
    """What this term has sent to the cluster."""

    @property
    def sent(self) -> Mapping[str, Sent]:
        """By token, what sbatch answered."""
        ...

    @property
    def cancelled(self) -> Mapping[str, float]:
        """By token, when a job of it was last cancelled."""
        ...


async def observe(
    record: Record,
    cluster: Cluster,
    run_dirs: RunDirs,
    probes: Probes,
    sends: Sends,
    *,
    term_began_at: float = 0.0,
    allowance: int | None = None,
) -> Observed:
    """Return all that is seen of the service of `record`.

    The snapshot is taken hold of before the files are read: a claim in them may be newer than it, never older.
    """
    snapshot, failure = cluster.latest, cluster.failure
    strays = _strays(record, snapshot, cluster)
    live = [a for a in record.attempts if a.gone_at is None]
    files = await run_dirs.read(record.desired.service_id, [a.token for a in live])
    found = {a.token: probes.latest(a.token) for a in live}
    return Observed(
        attempts=record.attempts,
        endpoints=record.endpoints,
        status=record.status,
        snapshot=snapshot,
        reading_failure=failure,
        files=files,
        probes={token: probe for token, probe in found.items() if probe is not None},
        sent={a.token: sends.sent[a.token] for a in live if a.token in sends.sent},
        cancelled={a.token: sends.cancelled[a.token] for a in live if a.token in sends.cancelled},
        term_began_at=term_began_at,
        strays=strays,
        allowance=allowance,
    )


async def probe_spec(record: Record, attempt: Attempt, run_dirs: RunDirs) -> ProbeSpec | None:
    """Return how an attempt's engine is probed; of another spec than what is wanted now its folder tells.

    `None`: nobody knows.
    """
    spec = record.desired.spec if attempt.digest == record.desired.digest else None
    if spec is not None:
        return ProbeSpec.of(spec)
    return await run_dirs.launched(attempt.service_id, attempt.token)


def _strays(record: Record, snapshot: Snapshot | None, cluster: Cluster) -> tuple[Token, ...]:
    """Find live jobs of this service that its record does not know. Only who may open an attempt needs to know."""
    desired = record.desired
    if snapshot is None or len({a.replica for a in record.attempts if a.open}) >= desired.replicas:
        return ()
    known = {a.token for a in record.attempts if a.gone_at is None}
    return tuple(
        token
        for token in cluster.tokens_of(desired.service_id)
        if str(token) not in known and any(j.phase is not JobPhase.ENDED for j in snapshot.jobs[str(token)])
    )

"""observe: gather all that is seen of one service. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from api.contract.identity import Token, parse_token, prefix
from controller.core.model import JobFiles, JobPhase, Observed, ReadingFailure, Sent, Snapshot
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
    live = [a for a in record.attempts if a.gone_at is None]
    files: dict[str, JobFiles] = {a.token: await run_dirs.read(a.service_id, a.token) for a in live}
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
        strays=_strays(record, snapshot),
        allowance=allowance,
    )


def _strays(record: Record, snapshot: Snapshot | None) -> tuple[Token, ...]:
    """Find live jobs of this service that its record does not know. Only who may open an attempt needs to know."""
    desired, known = record.desired, {a.token for a in record.attempts if a.gone_at is None}
    if snapshot is None or sum(a.open for a in record.attempts) >= desired.replicas:
        return ()
    beginning = f"{prefix(desired.installation)}{desired.service_id}-"
    alive = (
        token
        for token, jobs in snapshot.jobs.items()
        if token.startswith(beginning) and token not in known and any(j.phase is not JobPhase.ENDED for j in jobs)
    )
    return tuple(token for text in alive if (token := parse_token(text)) is not None)

"""observe: gather all that is seen of one service. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from api.contract.identity import Token, parse_token
from controller.core.model import JobFiles, Observed, ReadingFailure, Sent, Snapshot
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


async def observe(record: Record, cluster: Cluster, run_dirs: RunDirs, probes: Probes, sends: Sends) -> Observed:
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
        strays=_strays(record, snapshot),
    )


def _strays(record: Record, snapshot: Snapshot | None) -> tuple[Token, ...]:
    known = {a.token for a in record.attempts}
    tokens = (parse_token(text) for text in (snapshot.untracked if snapshot is not None else ()) if text not in known)
    return tuple(token for token in tokens if token is not None and token.service == record.desired.service_id)

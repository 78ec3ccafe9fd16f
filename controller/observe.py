"""observe: gather all that is seen of one service. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from api.contract.gpus import has_gpus
from api.contract.job.token import Token
from controller.cluster.cluster import Cluster
from controller.core.attempt import Attempt, ProbeSpec
from controller.core.bad_nodes import BadNode
from controller.core.evidence import is_alive, only_tears_down
from controller.core.job_files import JobFiles
from controller.core.jobs import JobPhase, Snapshot
from controller.core.observed import Observed
from controller.ports import Record, RunDirs


async def observe(record: Record, cluster: Cluster, *, term_began_at: float = 0.0) -> Observed:
    """Return all that is seen of the service of `record`.

    The snapshot is taken hold of before the files are read: a claim in them may be newer than it, never older. What
    may be taken is asked last: nothing is awaited from there until the attempts are held.
    """
    snapshot, failure = cluster.snapshots.latest, cluster.snapshots.failure
    strays = _strays(record, snapshot, cluster)
    live = [a for a in record.attempts if a.gone_at is None]
    files = await cluster.run_dirs.read(record.desired.service_id, [*(a.token for a in live), *map(str, strays)])
    files = await _with_last_words(record, live, snapshot, files, cluster.run_dirs)
    heard = await cluster.gateways.heard() if any(a.open and a.draining_since is not None for a in live) else None
    found = {a.token: cluster.probes.latest(a.token) for a in live}
    sends = cluster.sends
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
        shortened={a.token: sends.shortened[a.token] for a in live if a.token in sends.shortened},
        term_began_at=term_began_at,
        strays=tuple(token for token in strays if not _only_ends(str(token), snapshot, files)),
        history=cluster.histories.of(record.desired),
        bad_nodes=_bad_nodes(record, snapshot, cluster),
        grant=cluster.admission.ask(record.desired.service_id),
        heard=heard,
    )


def _bad_nodes(record: Record, snapshot: Snapshot | None, cluster: Cluster) -> tuple[BadNode, ...]:
    """Return the nodes that its next jobs are to be kept off."""
    spec = record.desired.spec
    if spec is None or snapshot is None:
        return ()
    return cluster.node_records.bad(has_gpus=has_gpus(spec.resources), nodes=len(snapshot.addresses))


async def _with_last_words(
    record: Record,
    live: Collection[Attempt],
    snapshot: Snapshot | None,
    files: Mapping[str, JobFiles],
    run_dirs: RunDirs,
) -> Mapping[str, JobFiles]:
    """Add what jobs said at last that have ended and left no record of why."""
    found = dict(files)
    for attempt in live:
        jobs = snapshot.jobs.get(attempt.token, ()) if snapshot is not None else ()
        told = found.get(attempt.token, JobFiles())
        if attempt.open and told.exit is None and any(job.phase is JobPhase.ENDED for job in jobs):
            words = await run_dirs.last_words(record.desired.service_id, attempt.token)
            found[attempt.token] = replace(told, last_words=words)
    return found


async def probe_spec(record: Record, attempt: Attempt, run_dirs: RunDirs) -> ProbeSpec | None:
    """Return how an attempt's engine is probed; of another spec than what is wanted now its folder tells.

    `None`: nobody knows.
    """
    spec = record.desired.spec if attempt.digest == record.desired.digest else None
    if spec is not None:
        return ProbeSpec.of(spec)
    return await run_dirs.launched(attempt.service_id, attempt.token)


def _only_ends(token: str, snapshot: Snapshot | None, files: Mapping[str, JobFiles]) -> bool:
    """Whether nothing but its node's work at its end is left of a job: that of an attempt that is gone."""
    return snapshot is not None and token in files and only_tears_down(snapshot.jobs[token], files[token])


def _strays(record: Record, snapshot: Snapshot | None, cluster: Cluster) -> tuple[Token, ...]:
    """Find live jobs of this service that its record does not know. Only who may open an attempt needs to know."""
    desired = record.desired
    if snapshot is None or len({a.replica for a in record.attempts if a.open}) >= desired.replicas:
        return ()
    known = {a.token for a in record.attempts if a.gone_at is None}
    return tuple(
        token
        for token in cluster.snapshots.tokens_of(desired.service_id)
        if str(token) not in known and any(is_alive(job) for job in snapshot.jobs[str(token)])
    )

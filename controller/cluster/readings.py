"""From one listing to a snapshot: what vanished, what accounting knows of it, and whether the reading is to be
believed. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from api.contract.job.token import Token, parse_token
from controller.core.jobs import Job, JobPhase, Snapshot
from controller.ports import Listing, Tracked

MASS = 5
"""So many live attempts, and more than half of them all, vanish at once only in a broken reading."""


class Vanished(NamedTuple):
    """A job that we know of and that the listing lacks."""

    job_id: int
    token: str


def find_vanished(listing: Listing, tracked: Iterable[Tracked]) -> frozenset[Vanished]:
    """Return the tracked jobs that are not listed under both their id and their token (ids are given out anew)."""
    listed = {(job.job_id, job.token) for job in listing.jobs}
    return frozenset(
        Vanished(each.job_id, each.token)
        for each in tracked
        if each.job_id is not None and (each.job_id, each.token) not in listed
    )


def known_as_ended(vanished: Iterable[Vanished], answers: Mapping[int, Job]) -> dict[Vanished, Job]:
    """Return those that accounting knows, under the same token, to have ended."""
    return {
        each: job
        for each in vanished
        if (job := answers.get(each.job_id)) and job.token == each.token and job.phase is JobPhase.ENDED
    }


def find_in_doubt(
    listing: Listing, tracked: Collection[Tracked], ended: Collection[Vanished], *, mass: int = MASS
) -> frozenset[str]:
    """Return the tokens of a mass vanishing, else none.

    Live are the open attempts whose job is known. They have vanished if no job bears their token any more, and
    accounting does not know theirs to have ended.
    """
    listed = {job.token for job in listing.jobs}
    over = {each.token for each in ended}
    live = {each.token for each in tracked if each.open and each.job_id is not None}
    lost = live - listed - over
    return frozenset(lost) if len(lost) >= mass and 2 * len(lost) > len(live) else frozenset()


def build_snapshot(
    *,
    sequence: int,
    began_at: float,
    listing: Listing,
    tracked: Collection[Tracked],
    vanished: frozenset[Vanished],
    ended: Mapping[Vanished, Job],
    addresses: Mapping[str, str],
) -> Snapshot:
    """Put a snapshot together. `ended` holds what accounting knows of the vanished, from now or earlier."""
    filled_in = [job for each, job in sorted(ended.items()) if each in vanished]
    return Snapshot(
        sequence=sequence,
        began_at=began_at,
        jobs=_by_token((*listing.jobs, *filled_in)),
        missing=frozenset(each.token for each in vanished if each not in ended),
        in_doubt=find_in_doubt(listing, tracked, ended),
        addresses=addresses,
    )


def placements(jobs: Iterable[Job]) -> frozenset[tuple[int, str]]:
    """Return (job id, node) of every job that has a node and has not ended."""
    return frozenset((job.job_id, job.node) for job in jobs if job.node and job.phase is not JobPhase.ENDED)


def nodes_of_running(jobs: Iterable[Job]) -> frozenset[str]:
    """Return the nodes on which jobs run."""
    return frozenset(job.node for job in jobs if job.node and job.phase is JobPhase.RUNNING)


def with_leaving_nodes(listing: Listing, leaving: Mapping[str, str]) -> Listing:
    """Tell of each job whether its node is being taken out of service, by the states of such nodes."""
    if not leaving:
        return listing
    states = ((job, leaving.get(job.node or "", "")) for job in listing.jobs)
    return Listing(jobs=tuple(replace(job, node_leaves=state) if state else job for job, state in states))


def _by_token(jobs: Iterable[Job]) -> dict[str, tuple[Job, ...]]:
    """Group by token, in the order of ids."""
    grouped: dict[str, tuple[Job, ...]] = {}
    for job in sorted(jobs, key=lambda job: job.job_id):
        grouped[job.token] = (*grouped.get(job.token, ()), job)
    return grouped


def tokens_by_service(snapshot: Snapshot) -> dict[str, list[Token]]:
    """Sort the tokens of a snapshot out by the service they are of."""
    grouped: dict[str, list[Token]] = {}
    for text in snapshot.jobs:
        if (token := parse_token(text)) is not None:
            grouped.setdefault(token.service, []).append(token)
    return grouped

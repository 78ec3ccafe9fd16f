"""Nodes that jobs are kept off for a while: services fail to start there, though not for a fault of their own.

Such a node does more harm than others: since what it is given ends at once, it is always free for the next job.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from controller.core.attempt import Attempt
from controller.core.outcomes import may_be_its_nodes

FAULTS = 3
"""So many in a row, since something last became ready there, speak against a node."""
WINDOW = 3600.0
"""Seconds for which a fault counts: so long is a node left out after the first of the last ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An attempt that ended on a node without ever having been ready."""

    node: str
    has_gpus: bool
    """What ails a GPU the jobs without one do not notice."""
    digest: str
    """Of what was launched."""
    at: float
    outcome: str

    @classmethod
    def of(cls, attempt: Attempt) -> Fault | None:
        """Return what an attempt tells against its node; `None`: nothing."""
        if attempt.node is None or attempt.closed_at is None or not may_be_its_nodes(attempt):
            return None
        return cls(
            node=attempt.node,
            has_gpus=attempt.gpus > 0,
            digest=attempt.digest,
            at=attempt.closed_at,
            outcome=attempt.outcome or "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Successes:
    """Where attempts became ready."""

    last: Mapping[tuple[str, bool], float] = field(default_factory=dict)
    """By node, and whether they had GPUs: when the last one did."""
    nodes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By the digest of what was launched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadNode:
    """A node that jobs are kept off."""

    name: str
    until: float
    faults: int
    outcome: str
    """Of the last one."""


def bad_nodes(
    faults: Iterable[Fault], successes: Successes, now: float, *, has_gpus: bool, nodes: int
) -> tuple[BadNode, ...]:
    """Return which nodes to keep jobs off that have GPUs, or have none, by name. `nodes`: how many there are.

    More than a third of them speak against something else, which they share: then none is left out.
    """
    by_node: defaultdict[str, list[Fault]] = defaultdict(list)
    for fault in sorted(faults, key=lambda f: f.at):
        is_new = fault.at > successes.last.get((fault.node, has_gpus), float("-inf"))
        if fault.has_gpus == has_gpus and fault.at + WINDOW > now and is_new:
            by_node[fault.node].append(fault)
    bad = [name for name, of_node in by_node.items() if len(of_node) >= FAULTS and _is_the_nodes(of_node, successes)]
    if len(bad) > max(nodes // 3, min(nodes - 1, 1)):
        return ()
    return tuple(
        BadNode(
            name=name,
            until=by_node[name][-FAULTS].at + WINDOW,
            faults=len(by_node[name]),
            outcome=by_node[name][-1].outcome,
        )
        for name in sorted(bad)
    )


def _is_the_nodes(faults: Collection[Fault], successes: Successes) -> bool:
    """Whether different things fail on a node, or one that works elsewhere: one alone may fail by its own fault."""
    launches = {fault.digest for fault in faults}
    here = {fault.node for fault in faults}
    return len(launches) > 1 or any(successes.nodes.get(digest, frozenset()) - here for digest in launches)

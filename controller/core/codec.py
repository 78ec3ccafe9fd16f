"""A decision as one line of JSON, and back: what was wanted, what was seen, when, and the plan. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from api.contract.job.parameters import Image
from controller.core.attempt import Attempt
from controller.core.decide import decide
from controller.core.desired import Desired
from controller.core.jobs import Snapshot
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.plan import Plan

HIDDEN = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One plan with all that it was decided on."""

    epoch: int
    pass_id: str
    now: float
    desired: Desired
    seen: Observed
    limits: Limits
    plan: Plan
    failure: str = ""
    """What broke the carrying out of the plan off, if anything did."""


class CodecError(Exception):
    """A line is no decision of this version."""


_decoder = msgspec.json.Decoder(Decision)


def encode(decision: Decision) -> bytes:
    """Return a decision as one line, without its line feed. Raises `ValueError` for text that JSON can't hold."""
    return msgspec.json.encode(decision)


def decode(line: bytes) -> Decision:
    """Read a line; raises `CodecError`."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CodecError(str(error)) from error


def decide_again(decision: Decision) -> Plan:
    """Return the plan that this version makes of the same inputs."""
    return decide(decision.desired, decision.seen, decision.now, decision.limits)


def without_private(desired: Desired) -> Desired:
    """Leave out what deciding never reads and logs need not hold: values of the environment, texts of files."""
    if desired.spec is None:
        return desired
    spec = desired.spec
    has_definition = spec.image is not None and spec.image.definition is not None
    hidden = replace(
        spec,
        environment=dict.fromkeys(spec.environment, HIDDEN),
        files=dict.fromkeys(spec.files, HIDDEN),
        image=Image(definition=HIDDEN) if has_definition else spec.image,
    )
    return replace(desired, spec=hidden)


def of_one_service(seen: Observed) -> Observed:
    """Cut the snapshot, which holds every job of the installation, down to what deciding over one service reads."""
    if seen.snapshot is None:
        return seen
    return replace(seen, snapshot=_cut(seen.snapshot, seen.attempts))


def _cut(snapshot: Snapshot, attempts: tuple[Attempt, ...]) -> Snapshot:
    tokens = [a.token for a in attempts]
    jobs = {token: snapshot.jobs[token] for token in tokens if token in snapshot.jobs}
    nodes = {job.node for each in jobs.values() for job in each if job.node is not None}
    return replace(
        snapshot,
        jobs=jobs,
        missing=snapshot.missing.intersection(tokens),
        in_doubt=snapshot.in_doubt.intersection(tokens),
        addresses={node: snapshot.addresses[node] for node in nodes if node in snapshot.addresses},
    )

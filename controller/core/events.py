"""The lines of a service's history: what changed, in the past tense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from api.contract.status import Condition, Progress, Truth
from controller.core.attempt import Attempt
from controller.core.outcomes import is_fault
from controller.core.published import Event, Status


def events(before: Sequence[Attempt], after: Sequence[Attempt], old: Status, new: Status) -> tuple[Event, ...]:
    """Tell what changed, in the past tense, from the records before and after."""
    known = {a.token: a for a in before}
    told = [event for attempt in after for event in _attempt_events(known.get(attempt.token), attempt)]
    told += _preferred(known, after)
    for condition in new.conditions:
        event = _condition_event(_find(old, condition.type), condition)
        if event is not None:
            told.append(event)
    return tuple(told)


def _find(status_: Status, kind: str) -> Condition | None:
    return next((c for c in status_.conditions if c.type == kind), None)


def _attempt_events(old: Attempt | None, new: Attempt) -> list[Event]:
    """Tell the steps of one attempt that were taken since."""
    told: list[Event] = []
    name = f"Replica {new.replica}"
    if old is None and new.beside is not None:
        message = f"{name}: attempt {new.incarnation} was opened in lane {new.lane}, beside what serves ({new.beside})."
        told.append(Event(reason="SuccessorOpened", message=message))
    elif old is None:
        told.append(Event(reason="Submitting", message=f"{name}: attempt {new.incarnation} was opened."))
    if new.open and new.message and (old is None or old.message != new.message):
        told.append(Event(reason="SubmitUnknown", message=f"{name}: {new.message}", warning=True))
    if new.job_id is not None and (old is None or old.job_id != new.job_id):
        told.append(Event(reason="Submitted", message=f"{name}: it is job {new.job_id}."))
    if new.started_at is not None and (old is None or old.started_at is None):
        told.append(Event(reason="Started", message=f"{name}: job {new.job_id} started on {new.node}."))
    if new.ready_at is not None and (old is None or old.ready_at is None):
        seconds = max(new.ready_at - (new.started_at or new.intent_at), 0.0)
        told.append(Event(reason="Ready", message=f"{name}: ready {seconds:.0f} s after its job started."))
    if old is not None and old.open and new.unready_since is not None and old.unready_since is None:
        told.append(Event(reason="Unready", message=f"{name}: stopped answering.", warning=True))
    if old is not None and old.open and new.draining_since is not None and old.draining_since is None:
        told.append(Event(reason="Draining", message=f"{name}: attempt {new.incarnation} gets no new requests."))
    if not new.open and (old is None or old.open):
        told.append(
            Event(
                reason=new.outcome or "Closed",
                message=f"{name}: attempt {new.incarnation} ended. {new.message}",
                warning=is_fault(new),
            )
        )
    return told


def _preferred(known: Mapping[str, Attempt], after: Sequence[Attempt]) -> Iterator[Event]:
    """Tell which attempts have the traffic of those that began to drain."""
    for old in after:
        before = known.get(old.token)
        if before is None or before.draining_since is not None or old.draining_since is None or not old.open:
            continue
        younger = (a for a in after if a.replica == old.replica and a.incarnation > old.incarnation and a.ready)
        successor = max(younger, key=lambda a: a.incarnation, default=None)
        if successor is not None:
            message = f"Replica {old.replica}: attempt {successor.incarnation} has the traffic of {old.incarnation}."
            yield Event(reason="Preferred", message=message)


_WARNINGS = (Progress.FAILED, Progress.ROLLOUT_FAILED, Progress.QUOTA_EXCEEDED)
_TOLD = (*_WARNINGS, Progress.COMPLETED, Progress.STOPPED)


def _condition_event(old: Condition | None, new: Condition) -> Event | None:
    """Tell of refusals, of giving up and of silence; what attempts tell themselves is not told twice."""
    if old is not None and (old.status, old.reason) == (new.status, new.reason):
        return None
    if new.type == "Observed" and new.reason != "NotYet":
        if new.status is Truth.TRUE and (old is None or old.reason == "NotYet"):
            return None
        return Event(
            reason=new.reason, message=new.message or "The cluster answers.", warning=new.status is not Truth.TRUE
        )
    if new.type in ("Accepted", "Startable", "Continuous") and (
        new.status is Truth.FALSE or new.reason in ("ValidWithWarnings", "NodesExcluded")
    ):
        return Event(reason=new.reason, message=new.message, warning=True)
    if new.type == "Progressing" and new.reason in _TOLD:
        return Event(reason=new.reason, message=new.message, warning=new.reason in _WARNINGS)
    return None

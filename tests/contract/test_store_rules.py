"""The rules of the store and the lease, on real databases and on the simulation's, which may do only what these pin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from backends import on_every_ground

from api.contract.status import Condition, Truth
from controller.core.attempt import Attempt, SendOutcome, Sent
from controller.core.plan import Cancel, Plan, Revoke, Submit
from controller.core.published import Endpoint, Event, Status
from controller.lease import Lease
from controller.ports import DeposedError, Record, Term
from tests.contract.grounds import Ground, attempt

pytestmark = on_every_ground

CLOSED: dict[str, Any] = {"closed_at": 1.0, "outcome": "Stopped"}
GONE: dict[str, Any] = CLOSED | {"gone_at": 2.0}
ENDPOINT = Endpoint(token="t1", replica=0, models=("m",), host="h", port=1, ready=True)
FULL_PLAN = Plan(
    attempts=(attempt(),),
    endpoints=(ENDPOINT,),
    status=Status(observed_generation=1),
    events=(Event(reason="R", message="m"),),
    actions=(Submit(token="af-x-one-0-1"),),
)
ACCEPTED = Sent(outcome=SendOutcome.ACCEPTED, sequence=1, job_id=42)


class FixedClock:
    @staticmethod
    def now() -> float:
        return 1000.0


class Host:
    """A monotonic clock of one candidate's own."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def candidate(ground: Ground, name: str, host: Host, lease: float = 15.0) -> Lease:
    return Lease(ground.lease_records, FixedClock(), lease, holder=f"{name}|boot|pid:[1]/1/1", monotonic=host)


@pytest.fixture
async def term(ground: Ground) -> Term:
    term = await candidate(ground, "one", Host()).acquire()
    assert term is not None
    return term


async def load(ground: Ground) -> Record:
    record = await ground.store.load("one")
    assert record is not None
    return record


async def carry_out(ground: Ground, term: Term, plan: Plan, now: float = 1.0) -> Record:
    """Record a plan over what is there, and return what is there then."""
    await ground.store.record(term, await load(ground), plan, now)
    return await load(ground)


async def test_what_is_written_is_read_again(ground: Ground, term: Term) -> None:
    conditions = tuple(
        Condition(type=f"T{n}", status=truth, reason="R", message="why „so“", since=n + 0.5, generation=n)
        for n, truth in enumerate(Truth)
    )
    status = Status(observed_generation=1, ready_replicas=2, conditions=conditions)
    assert (await load(ground)).status == Status()
    found = await carry_out(ground, term, replace(FULL_PLAN, status=status))
    assert (found.attempts, found.endpoints, found.status) == ((attempt(),), (ENDPOINT,), status)
    changed = replace(ENDPOINT, ready=False), replace(ENDPOINT, token="t2", replica=1)
    assert (await carry_out(ground, term, Plan(endpoints=changed))).endpoints == changed
    found = await carry_out(ground, term, Plan(attempts=(attempt(job_id=7),), endpoints=()))
    assert (found.attempts, found.endpoints, found.status) == ((attempt(job_id=7),), (), status)


async def test_attempts_that_matter_are_loaded(ground: Ground, term: Term) -> None:
    """Those that are not gone, and of each replica the newest, even if it is."""
    old, newest = attempt("a", incarnation=1, **GONE), attempt("b", incarnation=2, **GONE)
    closed, fresh = attempt("c", replica=1, incarnation=1, **CLOSED), attempt("d", replica=1, incarnation=2)
    record = await carry_out(ground, term, Plan(attempts=(fresh, newest, closed, old)))
    assert record.attempts == (newest, closed, fresh)
    tracked = {t.token: (t.open, t.settled) for t in await ground.store.tracked()}
    assert tracked == {"c": (False, False), "d": (True, False)}
    known = {"a": True, "b": True, "c": True, "d": False}
    assert await ground.store.known([*known, "unheard of"]) == known
    assert await ground.store.known(()) == {}


async def test_attempts_that_had_a_node_are_read_unless_they_ended_long_ago(ground: Ground, term: Term) -> None:
    placed = {"node": "n1"}
    old = attempt("a", incarnation=1, **placed, **GONE)
    late = attempt("b", incarnation=2, intent_at=1.0, **placed, closed_at=9.0, outcome="EngineExited", gone_at=9.0)
    runs = attempt("c", incarnation=3, intent_at=2.0, **placed)
    queued = attempt("d", replica=1)
    await carry_out(ground, term, Plan(attempts=(old, late, runs, queued)))
    assert list(await ground.store.placed(5.0)) == [runs, late]


async def test_the_same_line_again_only_counts(ground: Ground, term: Term) -> None:
    for text in ("a", "b", "b", "a"):
        await carry_out(ground, term, Plan(events=(Event(reason="R", message=text),)))
    await ground.insert("two")
    other = await ground.store.load("two")
    assert other is not None
    await ground.store.record(term, other, Plan(events=(Event(reason="R", message="a"),)), 1.0)
    await carry_out(ground, term, Plan(events=(Event(reason="R", message="a"),) * 2))
    assert await ground.events("one") == [("R", "a", 1), ("R", "b", 2), ("R", "a", 3)]
    assert await ground.events("two") == [("R", "a", 1)]


async def test_a_deposed_term_writes_nothing(ground: Ground, term: Term) -> None:
    record, before = await load(ground), await ground.everything()
    await ground.depose()
    for plan in (FULL_PLAN, Plan(actions=(Cancel(token="t", job_id=1),)), Plan(actions=(Revoke(token="t"),))):
        with pytest.raises(DeposedError):
            await ground.store.record(term, record, plan, 1.0)
    with pytest.raises(DeposedError):
        await ground.store.note(term, attempt().token, ACCEPTED, 9.0)
    assert await ground.everything() == before
    await ground.store.record(term, record, Plan(look_again_at=5.0), 1.0)  # nothing to write, nothing to forbid


async def test_nor_one_that_nobody_holds(ground: Ground, term: Term) -> None:
    await ground.unhold()
    with pytest.raises(DeposedError):
        await ground.store.record(term, await load(ground), FULL_PLAN, 1.0)


async def test_nor_one_that_was_never_given(ground: Ground) -> None:
    with pytest.raises(DeposedError):
        await ground.store.record(Term(epoch=1, began_at=0), await load(ground), FULL_PLAN, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(attempt("t2", incarnation=2), id="two open attempts of one replica"),
        pytest.param(attempt("t1"), id="one token twice"),
        pytest.param(attempt("t3", replica=1, gone_at=1.0), id="gone and open"),
        pytest.param(attempt("t3", replica=1, closed_at=1.0), id="closed without outcome"),
        pytest.param(attempt("t3", replica=-1), id="a replica below 0"),
        pytest.param(attempt("t3", replica=1, port=65536), id="no such port"),
        pytest.param(attempt("t3", service_id="nobody"), id="nobody's"),
    ],
)
async def test_what_breaks_a_rule_leaves_nothing(ground: Ground, term: Term, wrong: Attempt) -> None:
    record = await load(ground)
    await ground.store.record(term, record, Plan(attempts=(attempt("t1"),)), 1.0)
    before = await ground.everything()
    with pytest.raises(ground.refusal):
        await ground.store.record(term, record, replace(FULL_PLAN, attempts=(attempt("t9", replica=9), wrong)), 1.0)
    assert await ground.everything() == before


@pytest.mark.parametrize("change", [{"closed_at": None, "outcome": None}, {"outcome": "Failed"}, {"closed_at": 3.0}])
async def test_closing_can_not_be_undone(ground: Ground, term: Term, change: dict[str, Any]) -> None:
    closed = attempt(**CLOSED)
    await carry_out(ground, term, Plan(attempts=(closed,)))
    with pytest.raises(ground.refusal):
        await carry_out(ground, term, Plan(attempts=(replace(closed, **change),)))
    assert (await load(ground)).attempts == (closed,)


async def test_what_sbatch_answered_is_noted_once(ground: Ground, term: Term) -> None:
    await carry_out(ground, term, Plan(attempts=(attempt(),)))
    for outcome in (SendOutcome.REJECTED, SendOutcome.DEFERRED, SendOutcome.UNKNOWN):
        await ground.store.note(term, attempt().token, Sent(outcome=outcome, sequence=1), 9.0)
    await ground.store.note(term, "af-x-two-0-1", ACCEPTED, 9.0)
    assert (await load(ground)).attempts == (attempt(),)
    for job_id in (42, 43):
        await ground.store.note(term, attempt().token, replace(ACCEPTED, job_id=job_id), 9.0)
    assert (await load(ground)).attempts == (attempt(job_id=42, submitted_at=9.0),)
    assert await ground.events("one") == [("Submitted", "Replica 0: it is job 42.", 1)]


async def test_people_change_what_is_wanted(ground: Ground, term: Term) -> None:
    first = await load(ground)
    assert (first.desired.running, first.desired.replicas, first.desired.generation) == (True, 1, 1)
    position, keys = await ground.store.changed(0)
    assert keys == ("one",)
    await carry_out(ground, term, FULL_PLAN)
    assert await ground.store.changed(position) == (position, ())
    await ground.insert("two")
    await ground.scale("one", 2)
    position, keys = await ground.store.changed(position)
    assert keys == ("two", "one")
    scaled = await load(ground)
    assert (scaled.desired.replicas, scaled.desired.generation) == (2, 2)
    assert scaled.desired.digest == first.desired.digest
    await ground.delete("two")
    await ground.stop("one")
    assert (await ground.store.changed(position))[1] == ("two", "one")
    assert set(await ground.store.keys()) == {"one", "two"}
    for key in ("one", "two"):
        record = await ground.store.load(key)
        assert record is not None
        assert not record.desired.running
    assert await ground.store.load("three") is None


async def test_one_holds_the_lease_until_it_is_free(ground: Ground) -> None:
    """Free is what was released, or was not renewed for a whole lease by the clock of who wants it."""
    there, here = Host(), Host()
    first, second = candidate(ground, "one", there), candidate(ground, "two", here)
    term = await first.acquire()
    assert term == Term(epoch=1, began_at=1000.0)
    for _ in range(3):
        assert await second.acquire() is None
        here.seconds += 14.0
        await first.renew(term)
    assert await second.acquire() is None
    here.seconds += 15.1
    taken = await second.acquire()
    assert taken is not None
    assert taken.epoch == 2
    for deposed in (first.renew, first.release):
        with pytest.raises(DeposedError):
            await deposed(term)
    await second.release(taken)
    again = await first.acquire()
    assert again is not None
    assert again.epoch == 3
    with pytest.raises(DeposedError):
        await ground.store.record(term, await load(ground), FULL_PLAN, 1.0)
    await ground.store.record(again, await load(ground), FULL_PLAN, 1.0)

"""A pass: observe, decide, record, act, report, in this order, and nothing after the term is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

import controller.reconciler
from api.contract.job.token import Token
from controller.cluster.admission import Admission
from controller.cluster.pace import Pace
from controller.cluster.quotas import Quotas
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.attempt import Attempt, Probe, SendOutcome, Sent, Shortening
from controller.core.desired import Desired
from controller.core.job_files import JobFiles
from controller.core.jobs import ReadingFailure, Snapshot
from controller.core.lead import History, Measured
from controller.core.limits import Limits
from controller.core.observed import Grant, Observed, Quota
from controller.core.plan import Action, Cancel, Plan, Submit
from controller.core.published import Event, Status
from controller.ports import DeposedError, Record, Term, UnreadableError
from controller.reconciler import Reconciler
from controller.report import Pass

TERM = Term(epoch=3, began_at=0.0)
NOW = 1000.0
LEARNT = History(waits=Measured(count=3, high=7.0))
LIMITS = Limits(absence_grace=77.0)
A = Attempt(token="a", service_id="one", replica=0, incarnation=1, generation=1, digest="d", intent_at=0.0)
GONE = replace(A, token="g", replica=1, closed_at=1.0, outcome="Stopped", gone_at=2.0)
CLOSED = replace(A, token="c", replica=2, closed_at=1.0, outcome="Stopped")
FRESH = replace(A, token="f", replica=3)
SHORTENED = Shortening(at=9.0, minutes=5, before=400.0)


class World:
    """All that a pass meets, noting what is done."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.record_: Record | None = Record(
            desired=Desired(installation="x", service_id="one", name="n", generation=1, running=True, replicas=1,
                            spec=None, digest="d"),
            status=Status(observed_generation=5),
            endpoints=(),
            attempts=(A, GONE, CLOSED),
        )  # fmt: skip
        self.plan = Plan()
        self.seen: Observed | None = None
        self.errors: dict[str, Exception] = {}
        self.sent = {
            "a": Sent(outcome=SendOutcome.UNKNOWN, sequence=1),
            "other": Sent(outcome=SendOutcome.UNKNOWN, sequence=2),
        }
        self.cancelled = {"c": 9.0, "other": 9.0}
        self.shortened = {"a": SHORTENED, "other": SHORTENED}
        self.latest_ = Snapshot(sequence=4, began_at=999.0, jobs={})
        self.failure: ReadingFailure | None = None
        self.noted: list[Attempt] = []
        """What was taken in of how attempts fare on their nodes."""

    def _do(self, verb: str, *about: Any) -> None:
        self.done.append((verb, *about))
        if verb in self.errors:
            raise self.errors[verb]

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, *_ in self.done]

    def now(self) -> float:
        return NOW

    def hurry(self) -> None:
        self._do("hurry")

    def decide(self, desired: Desired, seen: Observed, now: float, limits: Limits) -> Plan:
        self._do("decide", desired, now, limits)
        self.seen = seen
        return self.plan

    def report(self, done: Pass) -> None:
        self._do("report", done)


class FakeStore:
    def __init__(self, world: World) -> None:
        self._world = world

    async def load(self, key: str) -> Record | None:
        self._world._do("load", key)
        return self._world.record_

    async def record(self, term: Term, record: Record, plan: Plan, now: float) -> None:
        self._world._do("record", term, plan, now)


class FakeSnapshots:
    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def latest(self) -> Snapshot:
        self._world._do("look at the snapshot")
        return self._world.latest_

    @property
    def failure(self) -> ReadingFailure | None:
        return self._world.failure

    def tokens_of(self, service_id: str) -> Sequence[Token]:
        return ()


class FakeFolders:
    def __init__(self, world: World) -> None:
        self._world = world

    async def read(self, service_id: str, tokens: Sequence[str]) -> dict[str, JobFiles]:
        self._world._do("read", service_id, *tokens)
        return {token: JobFiles(step=f"step of {token}") for token in tokens}


class FakeProbes:
    def latest(self, token: str) -> Probe | None:
        return Probe(at=1.0, ready=True, failures=0) if token == "a" else None


class FakeExecutor:
    def __init__(self, world: World) -> None:
        self._world = world

    async def act(self, term: Term, record: Record, attempts: tuple[Attempt, ...], actions: tuple[Action, ...]) -> None:
        self._world._do("act", term, attempts, actions)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(controller.reconciler, "decide", world.decide)
    return world


@pytest.fixture
def tracked() -> TrackedAttempts:
    return TrackedAttempts()


@pytest.fixture
def pace(world: World) -> Pace:
    return Pace(world, burst=2, per_second=0.5)


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def quotas(world: World, tracked: TrackedAttempts, woken: list[str]) -> Quotas:
    async def no_hours(*_: float) -> dict[str, float]:
        return {}

    return Quotas(Quota(gpus=4), tracked, world, no_hours, woken.append)


@pytest.fixture
def admission(pace: Pace, quotas: Quotas) -> Admission:
    return Admission(pace, quotas)


@pytest.fixture
def reconcile(world: World, tracked: TrackedAttempts, admission: Admission) -> Callable[[], Any]:
    cluster = SimpleNamespace(
        snapshots=FakeSnapshots(world),
        run_dirs=FakeFolders(world),
        probes=FakeProbes(),
        histories=SimpleNamespace(of=lambda _: LEARNT),
        node_records=SimpleNamespace(update=world.noted.extend),
        sends=SimpleNamespace(sent=world.sent, cancelled=world.cancelled, shortened=world.shortened),
        tracked=tracked,
        admission=admission,
        rhythm=SimpleNamespace(hurry=world.hurry),
    )
    reconciler = Reconciler(
        term=TERM,
        store=cast(Any, FakeStore(world)),
        cluster=cast(Any, cluster),
        executor=cast(Any, FakeExecutor(world)),
        clock=world,
        limits=LIMITS,
        report=world.report,
    )
    return lambda: reconciler.reconcile("one")


Reconcile = Callable[[], Any]
BUSY = Plan(attempts=(FRESH,), actions=(Cancel(token="c", job_id=1),), events=(Event(reason="R", message="m"),))


async def test_the_verbs_come_in_order(world: World, reconcile: Reconcile) -> None:
    world.plan = BUSY
    await reconcile()
    order = ["load", "look at the snapshot", "read", "decide", "record", "act", "report", "hurry"]
    assert world.verbs == order


async def test_a_pass_has_one_time_and_one_term(world: World, reconcile: Reconcile) -> None:
    world.plan = BUSY
    await reconcile()
    assert world.record_ is not None
    assert ("decide", world.record_.desired, NOW, LIMITS) in world.done
    assert ("record", TERM, BUSY, NOW) in world.done
    assert world.seen is not None
    told = Pass(term=TERM, record=world.record_, seen=world.seen, now=NOW, limits=LIMITS, plan=BUSY)
    assert ("report", told) in world.done
    assert ("act", TERM, (A, GONE, CLOSED, FRESH), BUSY.actions) in world.done
    assert world.noted == [A, GONE, CLOSED, FRESH]


async def test_all_that_is_seen_is_decided_on(world: World, reconcile: Reconcile) -> None:
    world.failure = ReadingFailure(since=1.0, reason="R", message="m")
    await reconcile()
    assert world.seen == Observed(
        term_began_at=TERM.began_at,
        attempts=(A, GONE, CLOSED),
        endpoints=(),
        status=Status(observed_generation=5),
        snapshot=world.latest_,
        reading_failure=world.failure,
        files={"a": JobFiles(step="step of a"), "c": JobFiles(step="step of c")},
        probes={"a": Probe(at=1.0, ready=True, failures=0)},
        sent={"a": world.sent["a"]},
        cancelled={"c": 9.0},
        shortened={"a": SHORTENED},
        grant=Grant(jobs=2, quota=Quota(gpus=4)),
        history=LEARNT,
    )


async def test_a_service_that_is_no_more_needs_nothing(world: World, reconcile: Reconcile) -> None:
    world.record_ = None
    assert await reconcile() is None
    assert world.verbs == ["load"]


@pytest.mark.parametrize("error", [DeposedError("over"), OSError("the database is away")])
async def test_what_was_not_recorded_is_not_done(
    world: World, tracked: TrackedAttempts, reconcile: Reconcile, error: Exception
) -> None:
    world.plan = BUSY
    world.errors["record"] = error
    with pytest.raises(type(error)):
        await reconcile()
    assert world.verbs[-1] == "record"
    assert "f" not in tracked


async def test_what_was_not_carried_out_is_not_reported_as_done(world: World, reconcile: Reconcile) -> None:
    world.plan = BUSY
    world.errors["act"] = UnreadableError("SlurmUnreachable", "no answer")
    with pytest.raises(UnreadableError):
        await reconcile()
    (told,) = [done[1] for done in world.done if done[0] == "report"]
    assert told.failure == "UnreadableError: no answer"


@pytest.mark.parametrize("verb", ["load", "read"])
async def test_what_can_not_be_seen_is_not_decided_on(world: World, reconcile: Reconcile, verb: str) -> None:
    world.errors[verb] = OSError("away")
    with pytest.raises(OSError, match="away"):
        await reconcile()
    assert "decide" not in world.verbs


async def test_an_attempt_is_tracked_before_its_job_can_be(
    world: World, tracked: TrackedAttempts, reconcile: Reconcile
) -> None:
    world.plan = BUSY
    world.errors["act"] = OSError("away")
    with pytest.raises(OSError, match="away"):
        await reconcile()
    assert "f" in tracked
    assert "c" in tracked
    assert "g" not in tracked


@pytest.mark.parametrize(
    ("plan", "again", "hurried"),
    [
        (Plan(), None, False),
        (Plan(look_again_at=NOW + 30), NOW + 30, False),
        (Plan(status=Status(), look_again_at=NOW + 30), NOW + 30, False),
        (Plan(attempts=(FRESH,), look_again_at=NOW + 30), NOW + 30, True),
        (Plan(actions=(Cancel(token="c", job_id=1),), look_again_at=NOW + 30), NOW + 30, True),
        (BUSY, None, True),
    ],
)
async def test_when_it_looks_again(
    world: World, reconcile: Reconcile, plan: Plan, again: float | None, hurried: bool
) -> None:
    world.plan = plan
    assert await reconcile() == again
    assert ("hurry" in world.verbs) is hurried


async def test_what_it_submits_is_counted(world: World, reconcile: Reconcile, pace: Pace) -> None:
    world.plan = Plan(actions=(Submit(token="a"), Cancel(token="c", job_id=1)))
    await reconcile()
    assert pace.allowance("another") == 1


async def test_one_that_must_wait_looks_again_when_its_turn_comes(
    world: World, reconcile: Reconcile, pace: Pace
) -> None:
    for _ in range(2):
        pace.submitted("another")
    world.plan = Plan(wants_turn=True, look_again_at=NOW + 30)
    assert await reconcile() == NOW + 2
    world.plan = Plan()
    await reconcile()  # it is not wanted any more, and its turn neither
    assert pace.reserve("one") == NOW + 4


async def test_deciding_is_told_the_ceilings_and_what_others_hold(
    world: World, reconcile: Reconcile, tracked: TrackedAttempts
) -> None:
    tracked.update([replace(A, token="other", service_id="two", gpus=3)])
    await reconcile()
    assert world.seen is not None
    assert world.seen.grant.quota == Quota(gpus=4, held_by_others=3)


async def test_gpus_are_promised_before_the_record_and_held_after_it(
    world: World, reconcile: Reconcile, quotas: Quotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held() -> int:
        quota = quotas.of("two")
        assert quota is not None
        return quota.held_by_others

    seen: list[int] = []
    record = FakeStore.record

    async def recording(self: FakeStore, *arguments: Any) -> None:
        seen.append(held())
        await record(self, *arguments)

    monkeypatch.setattr(FakeStore, "record", recording)
    world.plan = Plan(attempts=(replace(FRESH, gpus=2),), actions=(Submit(token="f"),))
    await reconcile()
    assert (seen, held()) == ([2], 2)


async def test_who_waits_for_gpus_is_woken_when_the_service_is_gone(
    world: World, reconcile: Reconcile, quotas: Quotas, woken: list[str]
) -> None:
    quotas.promise("one", [replace(A, gpus=4)])
    quotas.settle("two", Plan(wants_gpus=1))
    world.record_ = None
    await reconcile()
    assert woken == ["two"]

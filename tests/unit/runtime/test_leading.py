"""What is logged and counted of a pass, however it ends; whom a reading wakes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

import controller.runtime.leading as module
from api.contract.log import JsonLines, current
from api.contract.settings import ControllerSettings
from controller.cluster.rhythm import Rhythm
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.jobs import Job, JobPhase, Snapshot
from controller.ports import DeposedError, Term
from controller.queue import KeyedQueue
from controller.runtime.held_term import HeldTerm
from controller.runtime.leading import Leading, Sweep
from controller.runtime.reader import ClusterReader
from controller.runtime.waker import Waker
from controller.runtime.workers import Workers


class Lines(logging.Handler):
    """Formats each line where it is written, as a stream handler does."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(JsonLines().format(record)))


class Witness:
    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def passing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.seen.append(type(error).__name__)
            raise
        self.seen.append("well")

    def has_read(self, *, well: bool) -> None:
        self.seen.append(f"read {well}")


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    handler, log = Lines(), logging.getLogger("controller.runtime")
    log.addHandler(handler)
    yield handler.lines
    log.removeHandler(handler)


def held() -> HeldTerm:
    return HeldTerm(Term(epoch=7, began_at=0.0), cast(Any, None))


def workers(witness: Witness, outcome: Exception | None, held: HeldTerm) -> Workers:
    async def reconcile(_: str) -> None:
        if outcome is not None:
            raise outcome

    return Workers(held, cast(Any, SimpleNamespace(reconcile=reconcile)), KeyedQueue(lambda: 0.0), witness)


def leading(sweeps: Sequence[Sweep], held: HeldTerm) -> Leading:
    """One that only clears away."""
    nobody = cast(Any, SimpleNamespace(queue=None))
    cluster = cast(Any, SimpleNamespace(snapshots=SimpleNamespace(latest=None)))
    return Leading(
        held, cluster=cluster, reader=nobody, workers=nobody, waker=nobody, sweeps=sweeps, settings=ControllerSettings()
    )


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (DeposedError("over"), "deposed"),
        (OSError("the disk is gone"), "a pass came to nothing"),
        (ValueError("a bug"), "a pass failed"),
    ],
)
async def test_a_line_about_a_pass_says_which(lines: list[dict[str, Any]], outcome: Exception, message: str) -> None:
    witness, term = Witness(), held()
    working = workers(witness, outcome, term)
    await working.work("one")
    await working.work("two")
    assert [line["message"] for line in lines] == [message] * 2
    told = [(line["service"], line["epoch"], line["pass_id"]) for line in lines]
    assert told == [("one", 7, "7.1"), ("two", 7, "7.2")]
    assert witness.seen == [type(outcome).__name__] * 2
    assert term.lost.is_set() is isinstance(outcome, DeposedError)
    assert dict(current()) == {}


async def test_a_pass_that_goes_well_is_counted_and_says_nothing(lines: list[dict[str, Any]]) -> None:
    witness = Witness()
    await workers(witness, None, held()).work("one")
    assert (witness.seen, lines) == (["well"], [])


async def test_the_end_of_an_orphan_wakes_the_service_whose_replica_waits_for_it() -> None:
    job = Job(job_id=1, token="af-k3x9q2-7hq2m5xw-0-1", phase=JobPhase.RUNNING, state="RUNNING")
    before = Snapshot(sequence=1, began_at=0.0, jobs={job.token: (job,)})

    async def take() -> Snapshot:
        return Snapshot(sequence=2, began_at=1.0, jobs={})

    async def sweep(*_: object) -> None: ...

    cluster = SimpleNamespace(
        snapshots=SimpleNamespace(latest=before, failure=None, take=take),
        tracked=TrackedAttempts(),
        rhythm=Rhythm(fastest=1, slowest=1),
        clock=SimpleNamespace(now=lambda: 1.0),
        orphans=SimpleNamespace(sweep=sweep),
    )
    queue = KeyedQueue(lambda: 0.0)
    waker = Waker(cast(Any, None), queue)
    await ClusterReader(Term(epoch=7, began_at=0.0), cast(Any, cluster), waker, Witness()).read_when_due()
    assert await asyncio.wait_for(queue.get(), 60) == "7hq2m5xw"


async def test_a_thousand_ends_cause_as_many_readings_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.runtime.reader.AFTER_ENDS", (0.05, 0.1))
    taken: list[int] = []

    async def take() -> Snapshot:
        taken.append(1)
        return Snapshot(sequence=len(taken), began_at=1.0, jobs={})

    async def sweep(*_: object) -> None: ...

    cluster = SimpleNamespace(
        snapshots=SimpleNamespace(latest=Snapshot(sequence=0, began_at=0.0, jobs={}), failure=None, take=take),
        tracked=TrackedAttempts(),
        rhythm=Rhythm(fastest=1, slowest=1),
        clock=SimpleNamespace(now=lambda: 1.0),
        orphans=SimpleNamespace(sweep=sweep),
        ends=asyncio.Event(),
    )
    waker = Waker(cast(Any, None), KeyedQueue(lambda: 0.0))
    reader = ClusterReader(Term(epoch=7, began_at=0.0), cast(Any, cluster), waker, Witness())
    reading = asyncio.create_task(reader.read_after_ends())
    for _ in range(1000):
        cluster.ends.set()
    async with asyncio.timeout(60):
        while len(taken) < 2 or cluster.ends.is_set():
            await asyncio.sleep(0.01)
    assert not cluster.rhythm.is_due(1.0, changing=True), "a reading out of turn counts for the rhythm"
    reading.cancel()
    assert len(taken) == 2


async def test_what_is_old_and_what_is_unused_are_cleared_away(lines: list[dict[str, Any]]) -> None:
    swept: list[str] = []

    async def sweep(*_: object) -> None:
        swept.append("rows")

    async def sweep_images(_: object) -> None:
        swept.append("images")
        raise OSError("RUN_DIR is away")

    await leading([sweep, sweep_images], held()).clear_away()
    assert swept == ["rows", "images"]
    assert [line["message"] for line in lines] == ["what is old could not be cleared away"]


async def test_who_finds_the_term_over_while_clearing_away_ends_it(lines: list[dict[str, Any]]) -> None:
    async def sweep(_: object) -> None:
        raise DeposedError("over")

    term = held()
    await leading([sweep], term).clear_away()
    assert term.lost.is_set()
    assert [line["message"] for line in lines] == ["deposed"]


async def test_what_swallows_a_cancel_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `asyncio.wait_for` does where what it waits for ends at that moment: a deposed leader went on for ever."""
    monkeypatch.setattr(module, "CANCEL_AGAIN", 0.01)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await module._end([task], grace=0.0)
    assert (task.cancelled(), swallowed) == (True, 3)

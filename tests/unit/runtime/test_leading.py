"""What is logged and counted of a pass, however it ends; whom a reading wakes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.contract.log import JsonLines, current
from controller.cluster.rhythm import Rhythm
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.model import Job, JobPhase, Snapshot
from controller.ports import DeposedError, Term
from controller.queue import KeyedQueue
from controller.runtime.leading import Leading


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
    handler, log = Lines(), logging.getLogger("controller.runtime.leading")
    log.addHandler(handler)
    yield handler.lines
    log.removeHandler(handler)


def leading(witness: Witness, outcome: Exception | None) -> Leading:
    async def reconcile(_: str) -> None:
        if outcome is not None:
            raise outcome

    absent = ("lease", "store", "snapshots", "tracked", "orphans", "rhythm", "clock", "wakeups", "quotas")
    return Leading(
        **cast(dict[str, Any], dict.fromkeys(absent)),
        term=Term(epoch=7, began_at=0.0),
        lease_seconds=1,
        reconciler=cast(Any, SimpleNamespace(reconcile=reconcile)),
        queue=KeyedQueue(lambda: 0.0),
        resync_seconds=1,
        workers=1,
        deposed=asyncio.Event(),
        witness=witness,
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
    witness = Witness()
    term = leading(witness, outcome)
    await term.work("one")
    await term.work("two")
    assert [line["message"] for line in lines] == [message] * 2
    told = [(line["service"], line["epoch"], line["pass_id"]) for line in lines]
    assert told == [("one", 7, "7.1"), ("two", 7, "7.2")]
    assert witness.seen == [type(outcome).__name__] * 2
    assert dict(current()) == {}


async def test_a_pass_that_goes_well_is_counted_and_says_nothing(lines: list[dict[str, Any]]) -> None:
    witness = Witness()
    await leading(witness, None).work("one")
    assert (witness.seen, lines) == (["well"], [])


async def test_the_end_of_an_orphan_wakes_the_service_whose_replica_waits_for_it() -> None:
    job = Job(job_id=1, token="af-k3x9q2-7hq2m5xw-0-1", phase=JobPhase.RUNNING, state="RUNNING")
    before = Snapshot(sequence=1, began_at=0.0, jobs={job.token: (job,)})

    async def take() -> Snapshot:
        return Snapshot(sequence=2, began_at=1.0, jobs={})

    async def sweep(*_: object) -> None: ...

    term = replace(
        leading(Witness(), None),
        snapshots=cast(Any, SimpleNamespace(latest=before, failure=None, take=take)),
        tracked=TrackedAttempts(),
        rhythm=Rhythm(fastest=1, slowest=1),
        clock=cast(Any, SimpleNamespace(now=lambda: 1.0)),
        orphans=cast(Any, SimpleNamespace(sweep=sweep)),
    )
    await term.read_when_due()
    assert await asyncio.wait_for(term.queue.get(), 60) == "7hq2m5xw"


async def test_what_is_old_and_what_is_unused_are_cleared_away(lines: list[dict[str, Any]]) -> None:
    swept: list[str] = []

    async def sweep(*_: object) -> None:
        swept.append("rows")

    async def sweep_images() -> None:
        swept.append("images")
        raise OSError("RUN_DIR is away")

    term = replace(
        leading(Witness(), None),
        snapshots=cast(Any, SimpleNamespace(latest=None)),
        retention=cast(Any, SimpleNamespace(sweep=sweep)),
        images=cast(Any, SimpleNamespace(sweep=sweep_images)),
    )
    await term.clear_away()
    assert swept == ["rows", "images"]
    assert [line["message"] for line in lines] == ["what is old could not be cleared away"]
    await replace(term, retention=None).clear_away()
    assert swept == ["rows", "images", "images"]

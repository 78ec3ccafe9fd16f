"""Periodic work: at once, again and again, never twice at a time, whatever it raises."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from controller.runtime.timers import PeriodicTimers


@asynccontextmanager
async def running(timers: PeriodicTimers) -> AsyncIterator[None]:
    timers.start()
    try:
        yield
    finally:
        timers.stop()
        await asyncio.sleep(0)


async def test_it_runs_at_once_and_again() -> None:
    ran = asyncio.Queue[float]()
    loop = asyncio.get_running_loop()

    async def work() -> None:
        ran.put_nowait(loop.time())

    timers = PeriodicTimers()
    start = loop.time()
    timers.every(1.0, "count", work)
    async with running(timers):
        first, _, third = [await asyncio.wait_for(ran.get(), 60) for _ in range(3)]
    assert first - start < 1.0
    assert third - start >= 1.9


async def test_what_it_raises_is_logged_and_the_next_run_comes(caplog: pytest.LogCaptureFixture) -> None:
    ran = asyncio.Queue[None]()

    async def work() -> None:
        ran.put_nowait(None)
        raise RuntimeError("no luck")

    timers = PeriodicTimers()
    timers.every(0.02, "fail", work)
    async with running(timers):
        for _ in range(2):
            await asyncio.wait_for(ran.get(), 60)
    assert vars(caplog.records[0])["work"] == "fail"
    assert "no luck" in caplog.text


async def test_a_run_that_takes_long_is_not_doubled_and_does_not_hold_up_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    at_once = most = 0
    others = asyncio.Queue[None]()

    async def slow() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.1)
        at_once -= 1

    async def quick() -> None:
        others.put_nowait(None)

    timers = PeriodicTimers()
    timers.every(0.02, "slow", slow)
    timers.every(0.02, "quick", quick)
    async with running(timers):
        for _ in range(4):
            await asyncio.wait_for(others.get(), 60)
        await asyncio.sleep(0.1)
    assert most == 1
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_clock_that_is_put_back_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = asyncio.Queue[None]()
    ahead = timedelta(hours=1)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + ahead

    async def work() -> None:
        ran.put_nowait(None)

    monkeypatch.setattr("controller.runtime.timers.LOOK_AFTER", 0.1)
    for module in ("apscheduler.schedulers.base", "apscheduler.triggers.interval", "controller.runtime.timers"):
        monkeypatch.setattr(f"{module}.datetime", Clock)
    timers = PeriodicTimers()
    timers.every(0.05, "count", work)
    async with running(timers):
        await asyncio.wait_for(ran.get(), 60)
        ahead = timedelta(0)
        for _ in range(3):
            await asyncio.wait_for(ran.get(), 60)


async def test_a_late_run_is_made_up_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Earlier(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) - timedelta(minutes=59, seconds=30)

    ran = asyncio.Queue[None]()

    async def work() -> None:
        ran.put_nowait(None)

    timers = PeriodicTimers()
    with monkeypatch.context() as earlier:
        earlier.setattr("controller.runtime.timers.datetime", Earlier)
        timers.every(60, "late", work)
    async with running(timers):
        await asyncio.wait_for(ran.get(), 60)
        await asyncio.sleep(0.05)
    assert ran.empty()


async def test_after_the_end_nothing_runs() -> None:
    count = 0

    async def work() -> None:
        nonlocal count
        count += 1

    timers = PeriodicTimers()
    timers.every(0.02, "count", work)
    async with running(timers):
        await asyncio.sleep(0.03)
    before = count
    await asyncio.sleep(0.06)
    assert count == before
    timers.stop()


async def test_work_that_runs_at_the_end_is_cancelled_and_that_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    timers = PeriodicTimers()
    timers.every(60, "read", work)
    async with running(timers):
        await asyncio.wait_for(begun.wait(), 60)
    await asyncio.wait_for(ended.wait(), 60)
    await asyncio.sleep(0)  # what APScheduler has to say comes a turn later
    assert caplog.records == []


@pytest.mark.parametrize("turns", range(4))
async def test_nor_is_it_an_error_that_work_never_began(caplog: pytest.LogCaptureFixture, turns: int) -> None:
    timers = PeriodicTimers()
    timers.every(60, "read", asyncio.Event().wait)
    timers.start()
    for _ in range(turns):
        await asyncio.sleep(0)
    timers.stop()
    for _ in range(4):
        await asyncio.sleep(0)
    assert caplog.records == []

"""The keyed queue: one worker a key, additions merge, the earliest time wins, nothing is lost."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.queue import FIRST_RETRY, MOST_RETRY, KeyedQueue


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def queue(clock: Hand) -> KeyedQueue:
    return KeyedQueue(clock, jitter=lambda: 1.0)


def due(queue: KeyedQueue) -> list[str]:
    """Take all that is due now."""
    return list(iter(queue.take, None))


async def test_a_key_is_given_out_once(queue: KeyedQueue) -> None:
    queue.add_all(["a", "a", "b"])
    assert len(queue) == 2
    assert due(queue) == ["a", "b"]
    assert due(queue) == []


async def test_what_is_due_first_comes_first(queue: KeyedQueue, clock: Hand) -> None:
    queue.add("late", clock.time - 1)
    queue.add("early", clock.time - 9)
    assert due(queue) == ["early", "late"]


async def test_a_key_waits_for_its_time(queue: KeyedQueue, clock: Hand) -> None:
    queue.add("a", clock.time + 5)
    assert due(queue) == []
    clock.time += 5
    assert due(queue) == ["a"]


@pytest.mark.parametrize(("first", "second"), [(5.0, 50.0), (50.0, 5.0)])
async def test_the_earliest_time_wins(queue: KeyedQueue, clock: Hand, first: float, second: float) -> None:
    start = clock.time
    queue.add("a", start + first)
    queue.add("a", start + second)
    clock.time = start + 5
    assert due(queue) == ["a"]
    queue.done("a")
    clock.time = start + 50
    assert due(queue) == []


async def test_a_key_is_never_with_two_workers(queue: KeyedQueue) -> None:
    queue.add("a")
    assert due(queue) == ["a"]
    queue.add("a")
    assert due(queue) == []
    queue.done("a")
    assert due(queue) == ["a"]


async def test_what_was_added_meanwhile_is_not_lost_to_a_later_time(queue: KeyedQueue, clock: Hand) -> None:
    queue.add("a")
    due(queue)
    queue.add("a")
    queue.done("a", again_at=clock.time + 60)
    assert due(queue) == ["a"]


async def test_done_may_ask_for_another_look(queue: KeyedQueue, clock: Hand) -> None:
    queue.add("a")
    due(queue)
    queue.done("a", again_at=clock.time + 60)
    assert due(queue) == []
    clock.time += 60
    assert due(queue) == ["a"]


async def test_failures_back_off_up_to_a_most_and_success_clears_them(queue: KeyedQueue, clock: Hand) -> None:
    queue.add("a")
    pauses = []
    for _ in range(12):
        assert due(queue) == ["a"]
        pauses.append(queue.retry("a"))
        assert due(queue) == []
        clock.time += pauses[-1]
    assert pauses == [min(FIRST_RETRY * 2**n, MOST_RETRY) for n in range(12)]
    assert due(queue) == ["a"]
    queue.done("a", again_at=clock.time)
    assert due(queue) == ["a"]
    assert queue.retry("a") == FIRST_RETRY


async def test_the_pause_is_spread(clock: Hand) -> None:
    for spread in (0.0, 0.5, 0.999):
        queue = KeyedQueue(clock, jitter=partial(float, spread))
        queue.add("a")
        due(queue)
        assert FIRST_RETRY / 2 <= queue.retry("a") <= FIRST_RETRY


async def test_a_change_during_a_pause_is_looked_at_now(queue: KeyedQueue) -> None:
    queue.add("a")
    due(queue)
    queue.retry("a")
    queue.add("a")
    assert due(queue) == ["a"]


async def test_a_waiting_worker_is_woken_by_an_earlier_key() -> None:
    loop = asyncio.get_running_loop()
    queue = KeyedQueue(loop.time)
    queue.add("late", loop.time() + 3600)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0.01)
    queue.add("now")
    assert await asyncio.wait_for(waiting, 60) == "now"


async def test_a_waiting_worker_wakes_when_a_key_comes_due() -> None:
    loop = asyncio.get_running_loop()
    queue = KeyedQueue(loop.time)
    queue.add("a", loop.time() + 0.02)
    assert await asyncio.wait_for(queue.get(), 60) == "a"


async def test_a_key_given_back_wakes_another_worker(queue: KeyedQueue) -> None:
    queue.add("a")
    assert await queue.get() == "a"
    waiting = asyncio.create_task(queue.get())
    queue.add("a")
    await asyncio.sleep(0.01)
    assert not waiting.done()
    queue.done("a")
    assert await asyncio.wait_for(waiting, 60) == "a"


async def test_closing_sends_every_worker_home(queue: KeyedQueue) -> None:
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0.01)
    queue.close()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 60) == [None, None, None]
    queue.add("a")
    assert await queue.get() is None


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "take", "done", "again", "retry", "tick"]),
        st.sampled_from("abc"),
        st.floats(0, 9),
    ),
    max_size=40,
)


@given(steps=steps)
def test_nothing_is_lost_and_nothing_is_shared(steps: list[tuple[str, str, float]]) -> None:
    """Beside a model: key -> the earliest time asked for, and who is being worked on."""
    clock = Hand()
    queue = KeyedQueue(clock, jitter=lambda: 1.0)
    wanted: dict[str, float] = {}
    working: set[str] = set()

    def want(key: str, at: float) -> None:
        wanted[key] = min(at, wanted.get(key, at))

    for step, key, number in steps:
        if step == "add":
            queue.add(key, clock.time + number)
            want(key, clock.time + number)
        elif step == "tick":
            clock.time += number
        elif step == "take":
            ready = {k for k, at in wanted.items() if at <= clock.time and k not in working}
            taken = queue.take()
            assert (taken in ready) if ready else taken is None
            if taken is not None:
                del wanted[taken]
                working.add(taken)
        elif key in working:
            working.discard(key)
            if step == "done":
                queue.done(key)
            elif step == "again":
                queue.done(key, clock.time + number)
                want(key, clock.time + number)
            else:
                want(key, clock.time + queue.retry(key))
    for key in working:
        queue.done(key)
    clock.time += 10_000
    assert sorted(due(queue)) == sorted(wanted)


async def test_who_waits_is_cancelled_even_as_a_key_comes(queue: KeyedQueue) -> None:
    """Else whoever cancels it and waits for its end waits for ever."""
    queue.add("later", 1000.0)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("soon", 999.0)  # wakes it, and is not due
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting], timeout=10)
    assert waiting.cancelled()

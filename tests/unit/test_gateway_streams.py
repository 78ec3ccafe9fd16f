"""For every route: what a client gets is what the engine said, and where a client leaves nothing is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from gateway_clients import STORE, Caller, GatewayWorld, Talker, body_of, gateway_over
from hypothesis import given, settings
from hypothesis import strategies as st

from api.gateway.engines import NO_ANSWER
from api.gateway.operations import OPERATIONS
from api.gateway.refusals import GatewayError
from tests.examples import examples

ROUTES = (*OPERATIONS, STORE)
TYPES = (b"application/json", b"text/event-stream", b"audio/mpeg", b"application/octet-stream")
SLOWEST = 0.5
"""Seconds in which an engine must know that its client has left."""


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


def framed(body: bytes, framing: str, kind: bytes, cuts: list[int]) -> bytes:
    """Write an answer: `cuts` are the ends of its chunks, where it has any."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n" % kind
    if framing == "length":
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
    if framing == "close":
        return head + b"\r\n" + body
    chunks = [body[begin:end] for begin, end in pairwise([0, *cuts, len(body)]) if begin < end]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + b"transfer-encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


def places(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, size), max_size=10, unique=True).map(sorted)


BODIES = st.binary(max_size=2000) | st.sampled_from([b"transfer-encoding: chunked", b"content-length: 7", b"0\r\n\r\n"])


@given(st.data())
@settings(max_examples=examples(40))
def test_the_stream_is_the_engines(runner: asyncio.Runner, folder: Path, data: st.DataObject) -> None:
    path, kind = data.draw(st.sampled_from(ROUTES)), data.draw(st.sampled_from(TYPES))
    framing = data.draw(st.sampled_from(["length", "chunked", "close"]))
    body = data.draw(BODIES) * data.draw(st.sampled_from([1, 1, 1, 300]))
    answer = framed(body, framing, kind, data.draw(places(len(body))))
    cuts = [0, *data.draw(places(len(answer))), len(answer)]
    pieces = [answer[begin:end] for begin, end in pairwise(cuts)]

    async def ask() -> None:
        async with gateway_over(Talker(pieces), folder, has_door=path == STORE) as world:
            for _ in range(2):  # the second on the connection of the first
                caller = Caller(body_of(path))
                await world.ask(path, caller)
                assert (caller.status, caller.said, caller.is_whole) == (200, body, True)
                assert caller.headers[b"content-type"] == kind
            assert world.in_flight() == 0

    runner.run(asyncio.wait_for(ask(), 60))


# Clients that leave

ANSWER = framed(b"data: x\n\n" * 50, "chunked", b"text/event-stream", list(range(9, 450, 9)))


async def leave(world: GatewayWorld, draw: random.Random) -> None:
    """Ask for something, and leave at some moment: from before the request is whole to within the answer."""
    path, caller = draw.choice(ROUTES), None
    if draw.random() < 0.25:
        task = asyncio.ensure_future(draw.choice([posted, streamed])(world))
        leaving: Callable[[], object] = task.cancel
    else:
        caller = Caller(body_of(path))
        if draw.random() < 0.3:
            caller.reads.clear()
        task = asyncio.ensure_future(_quietly(world.ask(path, caller)))
        leaving = caller.left.set
    size = draw.randrange(len(ANSWER))
    world.engine.pieces = (ANSWER[: size // 2], ANSWER[size // 2 : size])
    world.engine.holds = asyncio.Event()
    for _ in range(int(draw.expovariate(0.1))):
        await asyncio.sleep(0)
    if draw.random() < 0.2:
        await asyncio.sleep(draw.random() * 0.01)
    leaving()
    await within(world.engine.closed.wait())
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert world.in_flight() == 0


async def within(work: Awaitable[object]) -> None:
    """Do it in time. A busy machine keeps the loop from turning: after the time it may turn some more."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=SLOWEST)
    for _ in range(50):
        if task.done():
            return
        await asyncio.sleep(0)
    task.cancel()
    raise AssertionError(f"the engine works on {SLOWEST} s after its client has left")


async def _quietly(work: Awaitable[None]) -> None:
    with contextlib.suppress(GatewayError):
        await work


async def posted(world: GatewayWorld) -> None:
    with contextlib.suppress(*NO_ANSWER):
        await world.engines.post(world.replicas, "/v1/completions", {})


async def streamed(world: GatewayWorld) -> None:
    with contextlib.suppress(*NO_ANSWER):
        async with world.engines.stream(world.replicas, "/v1/completions", {}) as (_, pieces):
            async for _ in pieces:
                pass


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def leave_often(runner: asyncio.Runner, folder: Path, times: int, seed: int) -> None:
    """Leave so often, and find nothing left: no connection, no task, no count."""

    async def run() -> None:
        engine, draw = Talker(), random.Random(seed)
        engine.closed.set()
        tasks = len(asyncio.all_tasks())
        async with gateway_over(engine, folder, has_door=True) as world:
            descriptors = open_descriptors()
            for _ in range(times):
                await leave(world, draw)
            assert world.pool._idle == {}
            await until(lambda: open_descriptors() <= descriptors)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)

    runner.run(run())


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_left_of_who_leaves(runner: asyncio.Runner, tmp_path: Path, seed: int) -> None:
    leave_often(runner, tmp_path, 100, seed)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_left_of_ten_thousand_who_leave(runner: asyncio.Runner, tmp_path: Path, seed: int) -> None:
    leave_often(runner, tmp_path, 1000, 100 + seed)

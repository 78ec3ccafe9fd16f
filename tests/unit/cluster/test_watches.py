"""Watches on real doors of mutual TLS: heard when an engine begins to answer and when it ends, and never otherwise."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from api.contract.certificates import Authority
from api.contract.doors import Way
from api.contract.job.tls import WATCH, client_context, server_context, server_name
from controller.cluster import watches as watches_module
from controller.cluster.watches import Watches

TOKEN = "af-z42chr-7f96e9xf-0-1"
OURS = Authority(b"k" * 32)
CONTEXT = client_context(OURS.client("controller"), OURS.certificate, WATCH)
PATIENCE = 20.0


class Doorkeeper:
    """A door that keeps its watchers, and lets them go when it is told to."""

    def __init__(self, token: str = TOKEN) -> None:
        self.watchers: list[asyncio.StreamWriter] = []
        self.answers = False
        self._context = server_context(OURS.door(token), OURS.certificate)
        self.server: asyncio.Server

    async def open(self, port: int = 0) -> Way:
        self.server = await asyncio.start_server(self._meet, "127.0.0.1", port, ssl=self._context)
        port = self.server.sockets[0].getsockname()[1]
        return Way(host="127.0.0.1", port=port, name=server_name(TOKEN), watch=CONTEXT)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == WATCH
        self.watchers.append(writer)
        if self.answers:
            writer.write(b"1")
        with suppress(OSError):
            await reader.read()

    def let_go(self) -> None:
        for writer in self.watchers:
            writer.transport.abort()
        self.watchers.clear()


class Watcher:
    """Watches, and what they heard."""

    def __init__(self, most: int = 10) -> None:
        self.heard: list[tuple[str, bool]] = []
        self.watches = Watches(lambda *word: self.heard.append(word), most)


@pytest.fixture
async def keeper() -> AsyncIterator[Doorkeeper]:
    keeper = Doorkeeper()
    yield keeper
    keeper.let_go()
    keeper.server.close()


@pytest.fixture
async def watcher() -> AsyncIterator[Watcher]:
    watcher = Watcher()
    yield watcher
    await watcher.watches.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_door_is_held_and_nothing_is_heard_while_it_stands(keeper: Doorkeeper, watcher: Watcher) -> None:
    watcher.watches.watch(TOKEN, await keeper.open())
    await until(lambda: watcher.watches.held == 1 and keeper.watchers)
    assert watcher.heard == []


async def test_it_is_heard_when_the_engine_begins_to_answer_even_with_the_handshake(
    keeper: Doorkeeper, watcher: Watcher
) -> None:
    keeper.answers = True
    watcher.watches.watch(TOKEN, await keeper.open())
    await until(lambda: watcher.heard)
    assert (watcher.heard, watcher.watches.held) == ([(TOKEN, False)], 1)


async def test_an_end_is_heard_once_and_the_door_held_again(
    keeper: Doorkeeper, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches_module, "AGAIN", 0.05)
    watcher.watches.watch(TOKEN, await keeper.open())
    await until(lambda: keeper.watchers)
    keeper.let_go()
    await until(lambda: watcher.heard)
    await until(lambda: watcher.watches.held == 1 and keeper.watchers)
    assert watcher.heard == [(TOKEN, True)]


async def test_what_is_forgotten_is_let_go_and_heard_of_no_more(keeper: Doorkeeper, watcher: Watcher) -> None:
    watcher.watches.watch(TOKEN, await keeper.open())
    await until(lambda: keeper.watchers)
    watcher.watches.forget(TOKEN)
    (writer,) = keeper.watchers
    await until(writer.transport.is_closing)
    assert (watcher.heard, watcher.watches.held) == ([], 0)


async def test_a_door_that_opens_late_is_held_in_the_end(keeper: Doorkeeper, watcher: Watcher) -> None:
    door = await keeper.open()
    keeper.server.close()
    watcher.watches.watch(TOKEN, door)
    await until(lambda: not watcher.watches._opening and watcher.watches._queue._failures)
    await keeper.open(door.port)
    await until(lambda: watcher.watches.held == 1)
    assert watcher.heard == []


async def test_another_attempts_door_is_not_taken_for_it(watcher: Watcher) -> None:
    keeper = Doorkeeper("af-z42chr-7f96e9xf-0-2")
    door = await keeper.open()
    watcher.watches.watch(TOKEN, door)
    await until(lambda: watcher.watches._queue._failures)
    assert (watcher.watches.held, watcher.heard) == (0, [])
    keeper.server.close()


async def test_no_more_are_held_than_there_is_room_for(keeper: Doorkeeper) -> None:
    watcher = Watcher(most=0)
    watcher.watches.watch(TOKEN, await keeper.open())
    assert watcher.watches._turns is None
    await watcher.watches.close()


async def test_a_door_beyond_the_budget_is_held_once_another_has_gone(keeper: Doorkeeper) -> None:
    watcher = Watcher(most=2)
    door = await keeper.open()
    for token in "abcd":
        watcher.watches.watch(token, door)
    await until(lambda: watcher.watches.held == 2)
    assert list(watcher.watches._held) == ["a", "b"]
    watcher.watches.watch("c", door)  # told again, as every pass does: it keeps its place
    watcher.watches.forget("a")
    await until(lambda: watcher.watches.held == 2)
    assert list(watcher.watches._held) == ["b", "c"]
    watcher.watches.forget("d")
    watcher.watches.forget("b")
    await until(lambda: not watcher.watches._opening and len(keeper.watchers) == 3)
    assert list(watcher.watches._held) == ["c"], "who has gone while it waited is not opened"
    await watcher.watches.close()


async def test_closing_opens_none_of_those_that_wait(keeper: Doorkeeper) -> None:
    watcher = Watcher(most=1)
    door = await keeper.open()
    for token in "ab":
        watcher.watches.watch(token, door)
    await until(lambda: watcher.watches.held == 1)
    await watcher.watches.close()
    assert (watcher.watches.held, watcher.watches._ways) == (0, {})


async def test_doors_are_opened_one_by_one_and_all_else_gets_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The renewal of a lease waits for one handshake at most, however many doors a new leader finds."""
    turns, opened_after = 0, []

    async def renew() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def connect(_: Way) -> None:
        opened_after.append(turns)
        await asyncio.Event().wait()

    monkeypatch.setattr(watches_module, "_connect", connect)
    watcher, doors = Watcher(most=100), watches_module.AT_ONCE
    renewing = asyncio.create_task(renew())
    began = asyncio.get_running_loop().time()
    for number in range(doors):
        watcher.watches.watch(str(number), Way(host="h", port=number, name="n", watch=CONTEXT))
    await until(lambda: len(opened_after) == doors)
    took = asyncio.get_running_loop().time() - began
    renewing.cancel()
    await watcher.watches.close()
    assert len(set(opened_after)) == doors, "two were opened with nothing between them"
    assert took > (doors - 1) / watches_module.PER_SECOND


async def test_doors_that_do_not_answer_hold_up_only_so_many_openings(watcher: Watcher) -> None:
    watcher = Watcher(most=100)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as mute:
        way = Way(host="127.0.0.1", port=mute.getsockname()[1], name=server_name(TOKEN), watch=CONTEXT)
        for number in range(watches_module.AT_ONCE + 5):
            watcher.watches.watch(str(number), way)
        await until(lambda: len(watcher.watches._opening) == watches_module.AT_ONCE)
        await asyncio.sleep(5 / watches_module.PER_SECOND)
        assert len(watcher.watches._opening) == watches_module.AT_ONCE
        await watcher.watches.close()
    assert watcher.heard == []

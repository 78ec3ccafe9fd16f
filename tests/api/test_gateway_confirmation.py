"""Gateways write down what they have heard, and turn away from doors that close."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from api_world import World, opened
from sqlalchemy import Row, delete, select, text, update
from test_api_keys import make
from test_gateway import TOKENS, Engine, chat, known, served, until

from api.contract.database import Database
from api.contract.tables import EndpointRow, Feed, GatewayRow


async def rows(database: Database) -> list[Row[Any]]:
    return list(await database.read(lambda connection: connection.execute(select(GatewayRow.__table__)).all()))


async def seq(database: Database) -> int:
    return int(await database.read(lambda connection: connection.execute(select(Feed.seq)).scalar_one()))


async def until_applied(world: World, least: int) -> None:
    async def is_applied() -> bool:
        return any(row.applied >= least for row in await rows(world.database))

    await until(is_applied)


async def retire(world: World, token: str) -> None:
    """Have the controller say that an attempt gets no new requests."""
    async with world.database.write() as connection:
        await connection.execute(update(EndpointRow).where(EndpointRow.token == token).values(state="unready"))


async def test_a_gateway_says_up_to_where_it_has_heard_all(anywhere: World) -> None:
    async with served(anywhere, Engine()):
        await until_applied(anywhere, await seq(anywhere.database))
        await retire(anywhere, TOKENS[0])
        await until_applied(anywhere, await seq(anywhere.database))
        await make(anywhere)  # of which the table holds nothing
        await until_applied(anywhere, await seq(anywhere.database))
    (row,) = await rows(anywhere.database)
    assert row.pid > 0
    assert abs(time.time() - row.heard_at) < 60


async def test_what_it_says_it_routes_by(world: World) -> None:
    """With its number written, nothing goes to what was retired before that number."""
    old, new = Engine(name="old"), Engine(name="new")
    async with served(world, old, new):
        await retire(world, TOKENS[0])
        await until_applied(world, await seq(world.database))
        asked = len(old.heads)
        for _ in range(10):
            assert (await chat(world)).status_code == 200
    assert len(old.heads) == asked


async def test_it_lives_where_there_is_nothing_new(anywhere: World) -> None:
    async def signs() -> int:
        return sum(row.signs for row in await rows(anywhere.database))

    before = await signs()

    async def has_said_more() -> bool:
        return await signs() >= before + 2

    await until(has_said_more, 20)


async def test_at_its_end_nobody_need_wait_for_it(folder: Path) -> None:
    async with opened(folder) as world:
        await until_applied(world, 0)
        url = world.settings.database_url
    database = Database(url)
    try:
        assert await rows(database) == []
    finally:
        await database.close()


async def test_one_whose_row_was_removed_says_so_again(world: World) -> None:
    await until_applied(world, 0)
    async with world.database.write() as connection:
        await connection.execute(delete(GatewayRow))
    await until_applied(world, 0)


async def test_one_that_can_not_write_serves_and_says_so_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await until_applied(world, 0)
    async with world.database.write() as connection:
        await connection.execute(text("ALTER TABLE gateways RENAME TO elsewhere"))

    def told() -> list[str]:
        return [r.getMessage() for r in caplog.records if "can't write what it has heard" in r.getMessage()]

    with caplog.at_level(logging.WARNING):
        await until(told)
        async with served(world, Engine()):
            assert (await chat(world)).status_code == 200
            async with world.database.write() as connection:
                await connection.execute(text("ALTER TABLE elsewhere RENAME TO gateways"))
            await until_applied(world, await seq(world.database))
    assert len(told()) == 1


async def test_connections_to_what_left_the_table_are_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.gateway.pool.IDLE_SECONDS", 30.0)
    old = Engine()
    async with served(world, old, Engine()) as service:
        await until(partial(asked, world, old))
        assert old.open >= 1
        began = time.monotonic()
        await retire(world, TOKENS[0])
        await known(world, service, replicas=1)
        await until(lambda: old.open == 0)
        assert time.monotonic() - began < 20


async def asked(world: World, engine: Engine) -> bool:
    """Ask somebody; return whether this one has answered by now."""
    assert (await chat(world)).status_code == 200
    return bool(engine.heads)


class Shutting(Engine):
    """Behind a door that shuts: it closes a kept connection at once, or the moment it is asked; then every new one."""

    is_shut = False
    turned_away = 0

    def __init__(self, *, when_asked: bool) -> None:
        super().__init__()
        self._when_asked = when_asked

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self.is_shut:
            asking = asyncio.ensure_future(reader.readexactly(1))
            while not asking.done() and (self._when_asked or not self.is_shut):
                await asyncio.sleep(0.005)
            if self.is_shut:
                asking.cancel()
                break
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(b'{"model": "dummy", "messages": []}'))
            self.heads.append("")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        self.turned_away += 1


@pytest.mark.parametrize("when_asked", [False, True], ids=["shut beforehand", "the moment it is asked"])
async def test_who_meets_a_closed_door_goes_elsewhere(world: World, when_asked: bool) -> None:
    engine, other = Shutting(when_asked=when_asked), Engine()
    async with served(world, engine, other):
        await until(partial(asked, world, engine))
        engine.is_shut, before = True, len(other.heads)
        answers = [await chat(world) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert len(other.heads) == before + 20
    assert engine.turned_away > 0

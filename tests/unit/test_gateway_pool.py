"""Connections to engines: how many are opened at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from gateway_clients import JSON, TOKEN, Caller, Talker, gateway_over

from api.contract.asking import NotConnectedError
from api.contract.doorless import secret
from api.contract.doors import Doors, Way
from api.gateway.pool import MOST_OPENING, Pool
from api.web.replicas import ReadyReplica
from tests.doors import KEY, NEWER_KEY, door_context, key_id, keyring_of, write_keys

HANDSHAKE_SECONDS = 0.02
CLIENTS = 4 * MOST_OPENING
PATIENCE = 120.0
"""On a busy machine even a few handshakes take long."""


def pool_and_way(folder: Path, port: int, connect: float) -> tuple[Pool, Way]:
    replica = ReadyReplica(name="m-0", host="127.0.0.1", port=port, token=TOKEN, models=("m",), door=key_id())
    pool = Pool(Doors(keyring_of(folder / "key"), "api"), connect=connect)
    return pool, pool.way(replica)


def test_a_slow_door_makes_nobody_fail_who_has_to_wait_for_it(tmp_path: Path) -> None:
    async def run() -> None:
        shaking, most, accepted = asyncio.Lock(), 0, 0

        class SlowDoor(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                nonlocal accepted, most
                accepted += 1
                most = max(most, accepted)
                assert isinstance(transport, asyncio.Transport)
                transport.pause_reading()
                tasks.add(asyncio.ensure_future(self._shake(transport)))

            async def _shake(self, transport: asyncio.Transport) -> None:
                nonlocal accepted
                async with shaking:
                    await asyncio.sleep(HANDSHAKE_SECONDS)
                    accepted -= 1  # not later: its client is done first, and the next may be here before this goes on
                    await loop.start_tls(transport, asyncio.Protocol(), door_context(TOKEN), server_side=True)

        loop, tasks = asyncio.get_running_loop(), set[asyncio.Future[None]]()
        server = await loop.create_server(SlowDoor, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pool, way = pool_and_way(tmp_path, port, PATIENCE)
        for exchange in await asyncio.gather(*(pool.open(way) for _ in range(CLIENTS))):
            exchange.abort()
        await asyncio.gather(*tasks)
        server.close()
        assert most == MOST_OPENING

    asyncio.run(run())


def test_a_dead_replica_is_waited_for_once_and_tried_again_by_who_comes_later(tmp_path: Path) -> None:
    async def run() -> None:
        loop, accepted = asyncio.get_running_loop(), 0

        class DeadDoor(asyncio.Protocol):
            def connection_made(self, _transport: asyncio.BaseTransport) -> None:
                nonlocal accepted
                accepted += 1

        server = await loop.create_server(DeadDoor, "127.0.0.1", 0)
        pool, way = pool_and_way(tmp_path, server.sockets[0].getsockname()[1], 0.2)
        came = await asyncio.gather(*(pool.open(way) for _ in range(CLIENTS)), return_exceptions=True)
        assert [type(each) for each in came] == [NotConnectedError] * CLIENTS
        assert accepted == MOST_OPENING
        with pytest.raises(NotConnectedError):
            await pool.open(way)
        assert accepted == MOST_OPENING + 1
        server.close()

    asyncio.run(run())


def test_the_key_file_is_looked_at_for_a_connection_and_not_for_a_request(tmp_path: Path) -> None:
    """Looking at it takes a twentieth of a request. What an engine was launched with stands for as long as it lives."""

    async def run() -> None:
        engine = Talker([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK"])
        async with gateway_over(engine, tmp_path) as world:
            for key in (KEY, NEWER_KEY):
                write_keys(tmp_path / "key", key)
                await world.ask("/v1/chat/completions", Caller(JSON))
            world.pool.close()
            await world.ask("/v1/chat/completions", Caller(JSON))
        shown = [line for head in engine.heads for line in head.split(b"\r\n") if line.startswith(b"Authorization:")]
        secrets = (secret(KEY, TOKEN), secret(KEY, TOKEN), secret(NEWER_KEY, TOKEN))
        assert shown == [b"Authorization: Bearer %b" % each.encode() for each in secrets]

    asyncio.run(run())

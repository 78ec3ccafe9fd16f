"""The gateway on a real server, where chunks and a client's leaving pass by ASGI."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from api_world import World, new_app, settings_for
from test_api_keys import KEYS, bearer, make
from test_gateway import TOKENS, Engine, add, known, served, until
from test_gateway_services import Store, open_to

from api.contract.database import Database
from api.gateway.ledger import Ledger
from api.gateway.limits import MINUTE
from api.web.key_limits import KeyLimits
from api.web.peers import TimelyProtocol
from api.web.serve import Server
from tests.doors import door_context, listening

PIECE = 65536
PIECES = 400
ASKED = {"model": "dummy", "stream": True}
EVENTS = "text/event-stream"


@dataclass
class Site:
    world: World
    client: httpx.AsyncClient
    port: int


@pytest.fixture
async def site(folder: Path) -> AsyncIterator[Site]:
    settings = settings_for(folder)
    database = Database(settings.database_url)
    world = World(settings, database, new_app(settings, database, key="the-key"))
    world.client.headers["authorization"] = "Bearer the-key"
    async with world.running(), _listening(world) as port:
        headers = {"authorization": "Bearer the-key"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            yield Site(world, client, port)
    await database.close()


@asynccontextmanager
async def _listening(world: World) -> AsyncIterator[int]:
    async def end_streams() -> None: ...

    own = socket.create_server(("127.0.0.1", 0))
    port = own.getsockname()[1]
    config = uvicorn.Config(world.app, http=TimelyProtocol, ws="none", lifespan="off", log_config=None)
    server = Server(config, end_streams)
    serving = asyncio.create_task(server.serve(sockets=[own]))
    await until(lambda: server.started)
    yield port
    server.should_exit = True
    await serving


async def test_a_stream_passes_as_it_comes(site: Site) -> None:
    holds = asyncio.Event()
    engine = Engine(content_type=EVENTS, chunks=(b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"), holds=holds)
    async with (
        served(site.world, engine),
        site.client.stream("POST", "/v1/chat/completions", json=ASKED) as answer,
    ):
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        holds.set()
        assert b"".join([piece async for piece in pieces]) == b"data: 2\n\ndata: 3\n\n"


async def test_one_stream_after_another_on_one_connection(site: Site) -> None:
    engine = Engine(content_type=EVENTS, chunks=tuple(b"data: %d\n\n" % number for number in range(50)))
    async with served(site.world, engine):
        answers = [await site.client.post("/v1/chat/completions", json=ASKED) for _ in range(3)]
    assert [answer.content for answer in answers] == [b"".join(engine.chunks)] * 3
    assert engine.connections == 1


async def test_a_stream_of_known_length_is_not_sent_in_chunks(site: Site) -> None:
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 27\r\n\r\n")
        for number in range(3):
            writer.write(b"data: %d\n\n" % number)
            assert await came.get() == b"data: %d\n\n" % number
        await reader.read()

    async with listening(serve, door_context(TOKENS[0])) as port:
        await known(site.world, await add(site.world, port), replicas=1)
        async with site.client.stream("POST", "/v1/chat/completions", json=ASKED) as answer:
            async for piece in answer.aiter_raw():
                came.put_nowait(piece)


@pytest.mark.parametrize("chunks", [1, 2])
async def test_who_leaves_ends_the_engines_work(site: Site, chunks: int) -> None:
    """Before its second chunk an answer goes by ASGI, and then not any more."""
    goes_on = asyncio.Event()
    engine = Engine(content_type=EVENTS, chunks=(b"data: 1\n\n",) * 3, holds=goes_on)
    async with served(site.world, engine):
        async with site.client.stream("POST", "/v1/chat/completions", json=ASKED) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            if chunks == 2:
                goes_on.set()
                await anext(pieces)
                goes_on.clear()
            assert engine.open == 1
        await until(lambda: engine.open == 0)


async def test_a_stream_past_asgi_ends_with_its_key(site: Site) -> None:
    goes_on = asyncio.Event()
    goes_on.set()
    engine = Engine(content_type=EVENTS, chunks=(b"data: 1\n\n",) * 10_000, holds=goes_on)
    key = await make(site.world)
    async with served(site.world, engine):
        async with site.client.stream(
            "POST", "/v1/chat/completions", json=ASKED, headers=bearer(key["secret"])
        ) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            await anext(pieces)
            goes_on.clear()
            await site.world.delete(f"{KEYS}/{key['id']}")
            with pytest.raises(httpx.RemoteProtocolError):
                async for _ in pieces:
                    pass
        await until(lambda: engine.open == 0)


class Breaking(Store):
    """Breaks off an event stream of which it said how long it would be."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 500\r\n\r\ndata: 1\n\n")


async def test_no_error_makes_an_answer_longer_than_it_says(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async with open_to(site.world, Breaking()) as headers:
        with pytest.raises(httpx.RemoteProtocolError, match="received 9 bytes"):
            await site.client.get("/services/store/x", headers=headers)
    assert "Exception in ASGI application" not in caplog.text


class Unchanged(Store):
    """Says how long its body would be."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: 1\r\n\r\n")


async def test_an_answer_without_a_body_leaves_the_connection_open(site: Site) -> None:
    async with open_to(site.world, Unchanged()) as headers:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        sent = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **headers}.items())
        for _ in range(2):
            writer.write(f"GET /services/store/x HTTP/1.1\r\n{sent}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 304 ")
            assert b"etag: 1" in head.lower()
            assert b"content-length" not in head.lower()
        writer.close()


async def test_who_leaves_before_the_first_byte_ends_the_engines_work(site: Site) -> None:
    is_asked, is_left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        is_asked.set()
        while await reader.read(PIECE):
            pass
        is_left.set()

    async with listening(serve, door_context(TOKENS[0])) as port:
        await known(site.world, await add(site.world, port), replicas=1)
        asking = asyncio.create_task(site.client.post("/v1/chat/completions", json={**ASKED, "x": "y" * 500_000}))
        await is_asked.wait()
        asking.cancel()
        async with asyncio.timeout(60):
            await is_left.wait()


async def test_who_leaves_before_the_first_byte_has_asked_all_the_same(site: Site) -> None:
    """Else a key's limits would hold no one back who keeps engines busy and waits for no answer."""
    is_asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        is_asked.set()
        while await reader.read(PIECE):
            pass

    key = await make(site.world, requests_per_minute=1, tokens_per_minute=1000)
    ledger = Ledger(site.world.settings.state_dir / "limits")
    async with listening(serve, door_context(TOKENS[0])) as port:
        await known(site.world, await add(site.world, port), replicas=1)
        body, headers = {"model": "dummy", "prompt": "x" * 2000, "max_tokens": 400}, bearer(key["secret"])
        asking = asyncio.create_task(site.client.post("/v1/completions", json=body, headers=headers))
        await is_asked.wait()
        asking.cancel()
        limits = KeyLimits(tokens_per_minute=1000)
        await until(lambda: ledger.look(key["id"], limits).at_once == 0)
        account = ledger.look(key["id"], limits)
        refused = await site.client.post("/v1/completions", json=body, headers=headers)
    ledger.close()
    assert 400 < account.tokens // MINUTE < 600, "its prompt, and none of an answer"
    assert (refused.status_code, "1 requests a minute" in refused.text) == (429, True)


async def test_who_reads_slowly_holds_the_engine_up(site: Site) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(PIECES):
            writer.write(b"%x\r\n%b\r\n" % (PIECE, b"x" * PIECE))
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with listening(serve, door_context(TOKENS[0])) as port:
        await known(site.world, await add(site.world, port), replicas=1)
        async with site.client.stream("POST", "/v1/chat/completions", json=ASKED) as answer:
            pieces = answer.aiter_raw()
            length = len(await anext(pieces))
            held_up = 0
            async with asyncio.timeout(60):
                while held_up < 20:  # nothing has gone for a second
                    before = sent
                    await asyncio.sleep(0.05)
                    held_up = held_up + 1 if sent == before and sent else 0
            assert sent < PIECES
            length += sum([len(piece) async for piece in pieces])
    assert length == PIECES * PIECE

"""Nobody who connects can keep the operator's own requests from being answered: the program, and its protocol."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from api_servers import LiveServer, start_server

import api.web.peers
from api.contract.doors import Doors
from api.gateway.engines import Engines, UnreachableError
from api.gateway.forward import Forwarder
from api.gateway.pool import Pool
from api.web.peers import TimelyProtocol
from api.web.replicas import ReadyReplica
from api.web.serve import Server
from tests.descriptors import STRANGER, idle, none_left
from tests.doors import keyring_of

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
DESCRIPTORS = 1024
HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: "
BODY = b"POST /api/v1/services HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n{"


@pytest.fixture
def starving(folder: Path) -> Iterator[LiveServer]:
    """The program, with few descriptors."""
    server = start_server(folder, descriptors=DESCRIPTORS)
    yield server
    server.process.terminate()
    assert server.process.wait(60) == 0


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@AS_ROOT
@pytest.mark.parametrize("said", [b"", HEAD, BODY], ids=["nothing", "half a head", "half a body"])
def test_a_neighbour_holds_no_more_than_his_share_and_not_for_long(starving: LiveServer, said: bytes) -> None:
    with idle(starving.port, 2000, uid=STRANGER, said=said) as neighbour:
        until(lambda: neighbour.still_open() <= DESCRIPTORS // 8)
        for _ in range(20):
            answer = httpx.get(f"{starving.url}/api/v1/services", trust_env=False, timeout=10)
            assert answer.status_code == 200
        until(lambda: neighbour.still_open() == 0)
    assert httpx.get(f"{starving.url}/health", trust_env=False).json()["short_of"] == []
    assert len(starving.errors.read_bytes()) < 50_000


@AS_ROOT
def test_who_has_the_key_gets_in_beside_him(template: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    shutil.copy(template, tmp_path / "state/ai-factory.db")
    key = tmp_path / "admin.key"
    key.write_text("some-key")
    key.chmod(0o600)
    server = start_server(tmp_path, descriptors=DESCRIPTORS, api__admin_key_file=str(key))
    asked = b"GET /api/v1/services HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer some-key\r\n\r\n"
    try:
        with idle(server.port, 2000, uid=STRANGER):
            os.seteuid(STRANGER + 1)
            try:
                client = socket.socket()
            finally:
                os.seteuid(0)
            with client:
                client.settimeout(60)
                client.connect(("127.0.0.1", server.port))
                client.sendall(asked)
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
    finally:
        server.process.terminate()
        server.process.wait()


def test_who_comes_as_the_operator_can_not_keep_it_for_long(starving: LiveServer) -> None:
    """A relay of the operator's (ssh -L) has others come under his uid."""

    def is_answered() -> bool:
        try:
            return httpx.get(f"{starving.url}/health", trust_env=False, timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    with idle(starving.port, 2000) as relay:
        until(lambda: relay.still_open() < DESCRIPTORS)
        until(is_answered)
    assert "no file descriptor is left" in starving.errors.read_text()
    assert len(starving.errors.read_bytes()) < 50_000


# The protocol


@asynccontextmanager
async def serving(app: Any, kept: int = 60) -> AsyncIterator[int]:
    """Serve an ASGI application, whose idle connections are kept for so many seconds; yield the port."""

    async def end_streams() -> None: ...

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = uvicorn.Config(app, http=TimelyProtocol, lifespan="off", log_config=None, timeout_keep_alive=kept)
    server = Server(config, end_streams)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.01)
        yield port
        server.should_exit = True
        await running


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(1.5 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.web.peers, "HEAD_SECONDS", 1.0)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
async def test_a_head_must_come_in_time(quick: None, said: bytes) -> None:
    async with serving(answer) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        assert await reader.read() == b""
        writer.close()


async def test_an_answer_may_take_its_time(quick: None) -> None:
    async with serving(answer) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"ok")
        writer.close()


@pytest.mark.parametrize("said", [b"\r\n", b"GET / HT"])
async def test_the_next_head_must_come_in_time_too(quick: None, said: bytes) -> None:
    """uvicorn itself waits without end once a byte has come."""
    async with serving(answer) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(said)
        assert await reader.read() == b""
        writer.close()


async def test_an_idle_connection_is_kept_for_its_time_after_its_last_answer() -> None:
    """Not after the first one, whose timer stands on; nor does it end an answer that takes longer."""
    async with serving(answer, kept=1) as port:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for path in (b"/", b"/slow", b"/slow", b"/slow"):
            writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        answered = loop.time()
        assert await reader.read() == b""
        assert 0.9 <= loop.time() - answered < 30
        writer.close()


# Engines


async def test_an_engine_that_this_host_can_not_ask_is_not_said_to_be_away(tmp_path: Path) -> None:
    replica = ReadyReplica(token="af-x-y-0-1", name="y-0", models=(), host="127.0.0.1", port=1, door=None)
    engines = Engines(Forwarder(Pool(Doors(keyring_of(tmp_path / "key"), "api"))))
    with pytest.raises(UnreachableError) as raised:
        await engines.get([replica], "/health")
    assert "was not asked" not in str(raised.value)
    with none_left(), pytest.raises(UnreachableError, match="was not asked"):
        await engines.get([replica], "/health")

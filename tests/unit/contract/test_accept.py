"""Who is let in, and that nobody can take all there is."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import api.contract.accept
from api.contract.accept import PAUSE_SECONDS, Acceptor
from api.contract.peers import Peer, Peers
from tests.descriptors import all_in_use

ME = Peer(uid=4711, address="127.0.0.1")
NEIGHBOUR = Peer(uid=4712, address="127.0.0.1")
ELSEWHERE = Peer(uid=None, address="192.0.2.1")


class Echo(asyncio.Protocol):
    """Says who asks, then what it is told."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(f"{self._peer.uid}\n".encode())

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Server:
    """An acceptor, whose clients are whoever they are said to be."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.coming: Peer | OSError = ME

    def of(self, _: socket.socket) -> Peer:
        """Say who comes, as the kernel would."""
        if isinstance(self.coming, OSError):
            raise self.coming
        return self.coming

    async def come(self, peer: Peer | OSError) -> asyncio.StreamWriter | None:
        """Connect as somebody; `None`: the connection was closed at once."""
        self.coming = peer
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionResetError:
            return None
        try:
            said = await asyncio.wait_for(reader.readline(), 60)
        except ConnectionResetError:
            said = b""
        if not said:
            writer.close()
            return None
        assert isinstance(peer, Peer)
        assert said == f"{peer.uid}\n".encode()
        return writer


@asynccontextmanager
async def accepting(lifetime: float | None = None) -> AsyncIterator[Server]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(listening.getsockname()[1])
    acceptor = Acceptor(listening, Echo, uid=4711, lifetime=lifetime)
    acceptor._peers.of = server.of  # type: ignore[method-assign]
    acceptor.start()
    try:
        yield server
    finally:
        acceptor.close()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(api.contract.accept, "MOST_STRANGERS", 8)
    async with accepting() as server:
        yield server


async def fill(server: Server, peer: Peer) -> list[asyncio.StreamWriter]:
    """Connect until no more connections are taken."""
    held = []
    while (writer := await server.come(peer)) is not None:
        held.append(writer)
        assert len(held) < 100
    return held


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.005)


async def test_strangers_leave_room_for_each_other_and_the_operator_is_always_served(server: Server) -> None:
    held = [await fill(server, NEIGHBOUR), await fill(server, ELSEWHERE), await fill(server, Peer(uid=0, address="x"))]
    assert list(map(len, held)) == [4, 2, 1], "as many as are left, and no more"
    mine = [await server.come(ME) for _ in range(30)]
    assert None not in mine
    for writer in itertools.chain(mine, *held):
        assert writer is not None
        writer.close()


async def test_who_leaves_makes_room(server: Server) -> None:
    first, *rest = await fill(server, NEIGHBOUR)
    first.close()
    found: list[asyncio.StreamWriter] = []
    async with asyncio.timeout(60):
        while not found:
            found += [writer for writer in [await server.come(NEIGHBOUR)] if writer is not None]
    for writer in (*rest, *found):
        writer.close()


async def test_what_has_lasted_long_enough_is_ended() -> None:
    async with accepting(lifetime=0.05) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(60):
            assert await reader.readline() == b"4711\n"
            with pytest.raises(ConnectionResetError):
                assert await reader.read() == b""
                raise ConnectionResetError  # ended in order, which is as good
        writer.close()


async def test_without_a_descriptor_a_connection_is_closed_and_none_waits(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    clients = [socket.socket() for _ in range(3)]
    for client in clients:
        client.setblocking(False)
    loop = asyncio.get_running_loop()
    with all_in_use():
        for client in clients:
            await loop.sock_connect(client, ("127.0.0.1", server.port))
            async with asyncio.timeout(60):
                assert await loop.sock_recv(client, 100) == b""
    assert "no file descriptor is left" in caplog.text
    for client in clients:
        client.close()
    writer = await server.come(ME)
    assert writer is not None, "it goes on when there are some again"
    writer.close()


async def test_where_not_even_that_can_be_done_it_is_tried_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Acceptor, "_turn_one_away", lambda _: False)
    client = socket.socket()
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    with all_in_use():
        began = loop.time()
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await until(lambda: caplog.text.count("this host can't accept connections") >= 3)
        assert loop.time() - began >= 2 * PAUSE_SECONDS, "it does not try all the time"
    async with asyncio.timeout(60):
        assert await loop.sock_recv(client, 100) == b"4711\n"
    client.close()


async def test_who_can_not_be_told_is_closed_and_is_no_stranger(caplog: pytest.LogCaptureFixture) -> None:
    async with accepting() as server:
        assert await server.come(OSError(errno.ENOBUFS, "No buffer space available")) is None
    assert "does not tell whose connection" in caplog.text


async def test_a_kernel_that_does_not_tell_is_complained_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Peers, "work", lambda _: False)
    with caplog.at_level(logging.WARNING):
        async with accepting():
            pass
    assert "modprobe tcp_diag" in caplog.text


async def test_the_real_kernel_tells() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    acceptor = Acceptor(listening, Echo, uid=os.getuid())
    acceptor.start()
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(b"x\n")
    async with asyncio.timeout(60):
        assert (await reader.readline(), await reader.readline()) == (f"{os.getuid()}\n".encode(), b"x\n")
    port = listening.getsockname()[1]
    acceptor.close()
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)

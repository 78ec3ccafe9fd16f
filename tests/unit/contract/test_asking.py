"""What is read from an engine: bounded in time and size, whatever it sends."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path

import pytest

from api.contract.asking import (
    MOST_BESIDE,
    AskingError,
    Bounds,
    NotConnectedError,
    Question,
    asked,
)
from api.contract.doors import Doors, Way
from tests.doors import KEY, door_context, key_id, keyring_of, listening

BOUNDS = Bounds(seconds=20, silence=20, size=100_000)
OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def engine(*pieces: bytes, stays: bool = False, seen: list[bytes] | None = None) -> AsyncIterator[int]:
    """Answer everybody with these pieces, and hang up, unless it stays."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if stays:
            await reader.read()

    async with listening(serve) as port:
        yield port


async def answer(*pieces: bytes, bounds: Bounds = BOUNDS, stays: bool = False) -> tuple[int, bytes]:
    async with (
        engine(*pieces, stays=stays) as port,
        asked(Question(way=Way(host="127.0.0.1", port=port), path="/"), bounds) as r,
    ):
        return r.status, await r.read()


@pytest.mark.parametrize(
    "pieces",
    [
        (OK + b"Content-Length: 5\r\n\r\nhello",),
        (OK + b"Content-Length: 5\r\n\r\nhello and more that is nobody's",),
        (b"HTTP/1.1 2", b"00 OK\r", b"\nContent-Le", b"ngth: 5\r\n\r\nhe", b"llo"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",),
        (OK + b"\r\nhel", b"lo"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello",),
        (OK + b"Content-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",),
        (b"HTTP/1.1 103 Early Hints\r\nContent-Encoding: gzip\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\nhello"),
    ],
)
async def test_what_is_an_answer(pieces: tuple[bytes, ...]) -> None:
    assert await answer(*pieces) == (200, b"hello")


async def test_an_answer_ends_where_it_says_and_not_with_the_connection() -> None:
    assert await answer(OK + b"Content-Length: 2\r\n\r\nhi", stays=True) == (200, b"hi")
    assert await answer(b"HTTP/1.1 204 No\r\n\r\n", stays=True) == (204, b"")


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ((b"SSH-2.0-OpenSSH_9.6\r\n",), "no HTTP"),
        ((b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",), "no HTTP"),
        ((), "broke off"),
        ((OK,), "broke off"),
        ((OK + b"Content-Length: 5\r\n\r\nhell",), "broke off"),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",), "broke off"),
        ((OK + b"Content-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",), "compressed"),
        ((OK + b"content-encoding: BR\r\n\r\n",), "compressed"),
        ((OK + b"\r\n", *repeat(b"x" * 10_000, 20)), "longer than 100,000 bytes"),
        ((OK, *repeat(b"X: y\r\n" * 1000, 30)), "hold nothing of its content"),
        ((OK + b"X: ", *repeat(b"y" * 10_000, 30)), "hold nothing of its content"),
        ((*repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 300, 20),), "hold nothing of its content"),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", *repeat(b"X: y\r\n" * 1000, 30)), "hold nothing"),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n1;x=", *repeat(b"y" * 10_000, 30)), "hold nothing"),
    ],
)
async def test_what_is_none(pieces: tuple[bytes, ...], told: str) -> None:
    with pytest.raises(AskingError, match=told):
        await answer(*pieces)


async def test_as_much_as_is_wanted_is_read() -> None:
    body = b"x" * BOUNDS.size
    assert await answer(OK + b"Content-Length: %d\r\n\r\n" % len(body), body) == (200, body)
    assert await answer(OK + b"X: %b\r\n\r\n" % (b"y" * (MOST_BESIDE - 100)), b"hi") == (200, b"hi")


async def test_silence_and_slowness_end() -> None:
    quick = Bounds(seconds=60, silence=1.0, size=100)
    with pytest.raises(AskingError, match="no answer within 1 s"):
        await answer(stays=True, bounds=quick)
    with pytest.raises(AskingError, match="no end of its answer within 1 s"):
        await answer(OK + b"\r\n", stays=True, bounds=Bounds(seconds=1.0, silence=1.0, size=100))

    async def crumbs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    async with listening(crumbs) as port:
        question = Question(way=Way(host="127.0.0.1", port=port), path="/")
        with pytest.raises(AskingError, match="no end of its answer within 1 s"):
            async with asked(question, Bounds(seconds=1.0, silence=60, size=10_000)) as reply:
                await reply.read()


async def test_nobody_there_is_no_connection() -> None:
    async with engine() as port:
        pass
    for host in ("127.0.0.1", "no such host", "a" * 300):
        with pytest.raises(NotConnectedError):
            async with asked(Question(way=Way(host=host, port=port), path="/"), BOUNDS):
                pass


async def test_what_is_asked() -> None:
    seen: list[bytes] = []
    async with engine(OK + b"Content-Length: 0\r\n\r\n", seen=seen) as port:
        question = Question(way=Way(host="127.0.0.1", port=port), path="/a b\r\nX: y", secret="s", content=b"{}")
        async with asked(question, BOUNDS) as reply:
            assert await reply.read() == b""
    assert seen == [
        b"POST /a%%20b%%0D%%0AX:%%20y HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        b"Connection: close\r\nAuthorization: Bearer s\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        % port
    ]


async def test_who_has_heard_enough_is_heard() -> None:
    """An engine may refuse before it has read all; what it says then counts."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await reader.read()

    async with listening(refuse) as port:
        question = Question(way=Way(host="127.0.0.1", port=port), path="/", content=b"x" * 10_000_000)
        async with asked(question, BOUNDS) as reply:
            assert (reply.status, await reply.read()) == (413, b"no")


@pytest.mark.parametrize("door", [None, door_context("af-x-one-0-1")], ids=["plain", "door"])
async def test_the_kernel_notices_a_dead_node_within_ten_seconds_and_bears_with_a_slow_one(
    door: ssl.SSLContext | None, tmp_path: Path
) -> None:
    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    doors = Doors(keyring_of(tmp_path / "key", KEY), "api")
    async with listening(wait, door) as port:
        way = doors.way("127.0.0.1", port, "af-x-one-0-1", None if door is None else key_id())
        _, writer = await way.open()
        connection = writer.get_extra_info("socket")

        def told(option: int) -> int:
            return int(connection.getsockopt(socket.IPPROTO_TCP, option))

        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert told(socket.TCP_KEEPIDLE) + told(socket.TCP_KEEPINTVL) * told(socket.TCP_KEEPCNT) == 10
        assert told(socket.TCP_USER_TIMEOUT) == 0, "it would count the seconds in which a live engine reads nothing"
        writer.transport.abort()


async def test_what_the_kernel_says_of_a_dead_node_is_no_answer_that_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(*_: object) -> bytes:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(asyncio.StreamReader, "read", dies)
    with pytest.raises(AskingError, match=r"broke off \(TimeoutError\)"):
        await answer(OK, stays=True)

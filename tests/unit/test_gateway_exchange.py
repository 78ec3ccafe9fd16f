"""An exchange with an engine, whatever pieces its answer comes in."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.exchange import MOST_BESIDE, BrokenError, Exchange, SilentError

BODY = b"data: one\n\ndata: two\n\n"
ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"b\r\ndata: one\n\n\r\nb\r\ndata: two\n\n\r\n0\r\n\r\n",
    "continued": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY),
}


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_aborted = False
        self.is_reading = True

    def writelines(self, list_of_data: object) -> None:
        self.sent += b"".join(list_of_data)  # type: ignore[arg-type]

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


def asked(silence: float = 60.0) -> tuple[Exchange, Transport]:
    exchange, transport = Exchange(), Transport()
    exchange.connection_made(transport)
    exchange.send([b"POST / HTTP/1.1\r\n\r\n"], silence)
    return exchange, transport


async def body_of(exchange: Exchange) -> bytes:
    found = b""
    while chunk := await exchange.chunk():
        found += chunk
    return found


@pytest.mark.parametrize("kind", ANSWERS)
@given(cuts=st.lists(st.integers(1, 200), max_size=12))
def test_the_body_is_the_same_however_it_is_cut(kind: str, cuts: list[int]) -> None:
    async def run() -> None:
        exchange, _ = asked()
        answer = ANSWERS[kind]
        places = [0, *sorted({cut % len(answer) for cut in cuts}), len(answer)]
        reading = asyncio.ensure_future(body_of(exchange))
        for begin, end in pairwise(places):
            if begin < end:
                exchange.data_received(answer[begin:end])
            await asyncio.sleep(0)
        assert await reading == BODY
        assert exchange.status == 200
        assert exchange.is_free
        exchange.abort()

    asyncio.run(run())


class Taking:
    """An outlet that takes what it is drawn to take."""

    def __init__(self, draws: list[bool]) -> None:
        self._draws = draws
        self.chunks: list[bytes] = []
        self.passed = 0
        """Of them so many as they came, unparsed."""

    @property
    def is_open(self) -> bool:
        return self._draws.pop() if self._draws else True

    def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def pass_on(self, framed: bytes) -> None:
        line, _, rest = framed.partition(b"\r\n")
        assert line == b"%x" % (len(rest) - 2)
        self.passed += 1
        self.write(rest.removesuffix(b"\r\n"))


@pytest.mark.parametrize("kind", ANSWERS)
@given(cuts=st.lists(st.integers(1, 200), max_size=12), draws=st.lists(st.booleans(), max_size=12))
def test_the_body_is_the_same_whichever_way_its_chunks_go(kind: str, cuts: list[int], draws: list[bool]) -> None:
    taking, read = Taking(draws), list[bytes]()

    async def take(exchange: Exchange) -> None:
        exchange.read_along(read.append)
        while chunk := await exchange.chunk():
            taking.chunks.append(chunk)
            await exchange.pass_to(taking)  # type: ignore[arg-type]

    async def run() -> None:
        exchange, _ = asked()
        answer = ANSWERS[kind]
        places = [0, *sorted({cut % len(answer) for cut in cuts}), len(answer)]
        reading = asyncio.ensure_future(take(exchange))
        for begin, end in pairwise(places):
            if begin < end:
                exchange.data_received(answer[begin:end])
            if len(draws) % 2:
                await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await reading
        exchange.abort()

    asyncio.run(run())
    assert b"".join(taking.chunks) == BODY
    assert b"" not in taking.chunks
    assert read == taking.chunks, "who reads along reads each chunk once"


async def passing_to(taking: Taking) -> tuple[Exchange, Transport, asyncio.Future[None]]:
    """Begin an answer in chunks, whose first was taken; what comes of it goes there from now on."""
    exchange, transport = asked()
    exchange.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
    await exchange.head()
    await exchange.chunk()
    passing = asyncio.ensure_future(exchange.pass_to(taking))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return exchange, transport, passing


@pytest.mark.parametrize("line", [b"%x", b"%X", b"0%x", b"%x;name=value"])
async def test_chunks_of_all_sizes_are_passed_on(line: bytes) -> None:
    """One after another, whole and alone, written as most engines write them or as they may."""
    taking, read = Taking([]), list[bytes]()
    exchange, _, passing = await passing_to(taking)
    exchange.read_along(read.append)
    chunks: list[bytes] = []
    for size in (*range(1, 300), 4095, 4096, 65535, 65536):
        chunks.append(b"\n" * size)
        exchange.data_received(line % size + b"\r\n" + chunks[-1] + b"\r\n")
    exchange.data_received(b"0\r\n\r\n")
    await passing
    assert (taking.chunks, read, exchange.is_free) == (chunks, chunks, True)
    assert (taking.passed == len(taking.chunks)) is (line == b"%x")


@pytest.mark.parametrize(
    ("draws", "pieces", "body"),
    [
        ([], [b"6\r\n", b"1\r\nx\r\n", b"\r\n"], b"1\r\nx\r\n"),
        ([], [b"6\r\n1", b"\r\nx\r\n", b"\r\n"], b"1\r\nx\r\n"),
        ([], [b"1", b"1\r\nx\r\n", b"y" * 14 + b"\r\n"], b"x\r\n" + b"y" * 14),
        ([False, False], [b"1\r\na\r\n", b"1\r\nb\r\n"], b"ab"),
        ([False, False, False, False], [b"1\r\na\r\n", b"1\r\nb\r\n"], b"ab"),
    ],
    ids=["within a chunk", "after its first byte", "within a size", "behind one that waits", "while nothing is taken"],
)
async def test_what_looks_like_a_chunk_and_is_none_of_its_own(
    draws: list[bool], pieces: list[bytes], body: bytes
) -> None:
    taking = Taking(draws)
    exchange, _, passing = await passing_to(taking)
    for piece in pieces:
        exchange.data_received(piece)
    exchange.data_received(b"0\r\n\r\n")
    await passing
    assert taking.passed == 0
    assert b"".join(taking.chunks) + await body_of(exchange) == body
    assert exchange.is_free


@pytest.mark.parametrize("garbage", [b"\0%b\r\n", b"1\r\n%b\n\n"])
async def test_what_is_no_chunk_is_not_passed_on(garbage: bytes) -> None:
    for size in range(1, 300):
        taking = Taking([])
        exchange, transport, passing = await passing_to(taking)
        exchange.data_received(garbage % (b"x" * size))
        await passing
        assert (taking.passed, transport.is_aborted) == (0, True)


async def test_one_request_after_another() -> None:
    (exchange, transport), read = asked(), list[bytes]()
    exchange.read_along(read.append)
    exchange.data_received(ANSWERS["length"])
    assert await body_of(exchange) == BODY
    exchange.send([b"2"], 60)
    assert transport.sent.endswith(b"2")
    assert not exchange.is_free
    exchange.data_received(ANSWERS["chunked"])
    assert await body_of(exchange) == BODY
    assert b"".join(read) == BODY, "who read along with the first answer reads nothing of the second"


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_who_says_more_than_was_asked_is_not_asked_again(when: str) -> None:
    exchange, transport = asked()
    more = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    exchange.data_received(ANSWERS["length"] + (more if when == "at once" else b""))
    assert await body_of(exchange) == BODY
    if when == "later":
        exchange.data_received(more)
        assert transport.is_aborted
    assert not exchange.is_free


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_who_closes_is_not_asked_again(answer: bytes) -> None:
    exchange, _ = asked()
    exchange.data_received(answer)
    assert await body_of(exchange) == b""
    assert not exchange.is_free


async def test_an_answer_that_ends_with_its_connection() -> None:
    exchange, _ = asked()
    exchange.data_received(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
    exchange.connection_lost(None)
    assert await body_of(exchange) == BODY
    assert not exchange.is_free


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 600 X\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
async def test_answers_that_are_none(answer: bytes) -> None:
    exchange, _ = asked()
    if answer:
        exchange.data_received(answer)
    exchange.connection_lost(None)
    with pytest.raises(BrokenError):
        await exchange.head()
        await body_of(exchange)


@pytest.mark.parametrize("flood", [b"HTTP/1.1 100 Continue\r\n\r\n", b"x: y\r\n"])
async def test_what_is_no_answer_has_an_end(flood: bytes) -> None:
    exchange, transport = asked()
    exchange.data_received(b"HTTP/1.1 100 Continue\r\n\r\n" if flood.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n")
    for _ in range(MOST_BESIDE // len(flood) + 1):
        exchange.data_received(flood)
    assert transport.is_aborted
    with pytest.raises(BrokenError):
        await exchange.head()


async def test_an_engine_waits_for_who_does_not_read() -> None:
    exchange, transport = asked()
    exchange.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    exchange.data_received(b"x" * 300_000)
    assert not transport.is_reading
    await exchange.chunk()
    assert transport.is_reading


async def test_silence_ends_it() -> None:
    exchange, transport = asked(silence=0.02)
    with pytest.raises(SilentError):
        await exchange.head()
    assert transport.is_aborted


async def test_who_does_not_read_is_not_the_engines_silence() -> None:
    exchange, _ = asked(silence=0.02)
    exchange.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nx")
    loop = asyncio.get_running_loop()
    ends = loop.time() + 0.1
    while loop.time() < ends:
        await asyncio.sleep(0.01)
    assert await exchange.chunk() == b"x"


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_to_head_is_its_head_alone(kind: str) -> None:
    exchange, transport = Exchange(), Transport()
    exchange.connection_made(transport)
    for _ in range(2):  # on one connection
        exchange.send([b"HEAD / HTTP/1.1\r\n\r\n"], 60.0, is_head=True)
        head = ANSWERS[kind].removesuffix(BODY).partition(b"\r\n\r\nb\r\n")[0].removesuffix(b"\r\n\r\n")
        exchange.data_received(head + b"\r\n\r\n")
        await exchange.head()
        assert (exchange.status, await body_of(exchange), exchange.is_free) == (200, b"", True)


async def test_an_answer_to_head_with_a_body_ends_the_connection() -> None:
    exchange, transport = Exchange(), Transport()
    exchange.connection_made(transport)
    exchange.send([b"HEAD / HTTP/1.1\r\n\r\n"], 60.0, is_head=True)
    exchange.data_received(ANSWERS["length"])
    assert (exchange.is_free, transport.is_aborted) == (False, True)

"""The same as `test_gateway_streams`, over connections as the server has them: chunks go out past ASGI there."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httptools
import pytest
import uvicorn
import uvloop
from gateway_clients import JSON, STORE, GatewayWorld, Talker, body_of, gateway_over
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gateway_streams import ANSWER, BODIES, ROUTES, TYPES, framed, open_descriptors, places, until, within
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from api.gateway.direct import direct_operations
from api.gateway.refusals import GatewayError
from api.web.corking import CorkedTransport
from api.web.isolation import add_isolation
from api.web.keys import Keys, Serving
from api.web.outlet import Outlet
from api.web.peers import TimelyProtocol
from api.web.principal import OPERATOR, KeyScope
from api.web.request_id import add_request_id
from api.web.serving import STATE_KEY, end_with_key
from tests.examples import examples


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as programs are run
        yield runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


class ReadAnswer:
    """Reads one answer, as a client of HTTP does."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.is_whole = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = True


def served(world: GatewayWorld) -> Any:
    """Return an application that asks the gateway."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            await add_request_id(message, scope)
            await add_isolation(message, scope)
            await send(message)

        scope["state"]["principal"] = OPERATOR
        serve = world.gateway.serve_service if scope["path"].startswith("/services") else world.gateway.serve
        try:
            await serve(scope, receive, told)
        except GatewayError as error:
            await send({"type": "http.response.start", "status": error.status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    return app


@asynccontextmanager
async def listening(world: GatewayWorld, app: Any = None) -> AsyncIterator[tuple[int, ServerState]]:
    """Serve the gateway as programs do; give the port, and what the server knows of its connections."""
    config = uvicorn.Config(app or served(world), http=TimelyProtocol, ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    def protocol() -> asyncio.Protocol:
        return TimelyProtocol(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], state
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: not state.connections and not state.tasks)


def cut(answer: bytes, most: int, further: Iterable[int] = ()) -> list[bytes]:
    """Cut an answer into so many pieces of one size, and at further places."""
    size = max(1, len(answer) // most)
    return [answer[begin:end] for begin, end in pairwise(sorted({*range(0, len(answer), size), len(answer), *further}))]


def request(path: str) -> bytes:
    """Write a request."""
    kind = b"multipart/form-data; boundary=b" if "transcri" in path or "transl" in path else b"text/plain"
    body = body_of(path)
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    return head % (path.encode(), kind, len(body)) + body


@given(st.data())
@settings(max_examples=examples(25))
def test_the_stream_is_the_engines_past_asgi_too(runner: asyncio.Runner, folder: Path, data: st.DataObject) -> None:
    path, kind = data.draw(st.sampled_from(ROUTES)), data.draw(st.sampled_from(TYPES))
    framing = data.draw(st.sampled_from(["length", "chunked", "chunked", "close"]))
    body = data.draw(BODIES) * data.draw(st.sampled_from([1, 1, 1, 2000]))
    answer = framed(body, framing, kind, data.draw(places(len(body))))
    cuts = {0, *data.draw(places(len(answer))), len(answer)}
    pieces = cut(answer, data.draw(st.integers(1, 60)), cuts)
    pauses = data.draw(st.lists(st.integers(0, 30), max_size=10))
    """Turns of the loop for which the client does not read: then the gateway waits, and has its engine wait."""

    async def ask() -> None:
        engine = Talker(pieces)
        async with gateway_over(engine, folder, has_door=path == STORE) as world, listening(world) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**12)
            for _ in range(2):  # the second on the connection of the first
                writer.write(request(path))
                found, waits = ReadAnswer(), list(pauses)
                while not found.is_whole:
                    for _ in range(waits.pop() if waits else 0):
                        await asyncio.sleep(0)
                    found.feed(await reader.read(2**16) or b"")
                    assert not reader.at_eof()
                assert (found.status, found.body) == (200, body)
            await until(lambda: world.in_flight() == 0)
            writer.transport.abort()

    runner.run(asyncio.wait_for(ask(), 120))


def test_what_this_tries_goes_past_asgi(runner: asyncio.Runner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing above would say anything of it."""
    written: list[bytes] = []
    write = Outlet.write

    def noting(self: Outlet, chunk: bytes) -> None:
        written.append(chunk)
        write(self, chunk)

    monkeypatch.setattr(Outlet, "write", noting)

    async def ask() -> None:
        engine = Talker(cut(ANSWER[:-30], 40), holds=asyncio.Event())
        async with gateway_over(engine, folder) as world, listening(world) as (port, _):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request("/v1/chat/completions"))
            await until(lambda: bool(written))
            writer.transport.abort()
            await within(engine.closed.wait())

    runner.run(asyncio.wait_for(ask(), 60))


# Answers that are there as a whole

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nretry-after: 1\r\n\r\n{}"


def noted_answers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the status of each answer that goes past ASGI from now on."""
    past: list[int] = []
    answer = Outlet.answer

    def noting(self: Outlet, status: int, headers: Any, body: bytes) -> None:
        past.append(status)
        answer(self, status, headers, body)

    monkeypatch.setattr(Outlet, "answer", noting)
    return past


async def answer_to(port: int, *headers: bytes) -> tuple[list[bytes], bytes]:
    """Ask for a model; return the lines of the answer's head, and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"\r\n".join(
        (b"POST /v1/chat/completions HTTP/1.1", b"host: x", *headers, b"content-length: %d" % len(JSON))
    )
    writer.write(head + b"\r\n\r\n" + JSON)
    answer, body = await reader.readuntil(b"\r\n\r\n"), await reader.readexactly(2)
    writer.transport.abort()
    return answer.removesuffix(b"\r\n\r\n").split(b"\r\n"), body


def test_an_answer_that_is_there_says_past_asgi_what_it_says_by_it(
    runner: asyncio.Runner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is not kept has its answers by ASGI."""
    past = noted_answers(monkeypatch)

    async def ask() -> None:
        async with gateway_over(Talker([WHOLE]), folder) as world, listening(world) as (port, state):
            state.default_headers = [(b"date", b"today")]
            own = b"x-request-id: mine"
            by_asgi, body = await answer_to(port, own, b"connection: close")
            assert (past, body) == ([], b"{}")
            assert (await answer_to(port, own), past) == (([*by_asgi[:-1]], b"{}"), [200])
            assert by_asgi[-1] == b"connection: close"
            assert {b"date: today", own, b"retry-after: 1", b"x-content-type-options: nosniff"} < set(by_asgi)
            state.default_headers = [(b"connection", b"close")]  # the server leaves
            assert b"connection: close" in (await answer_to(port))[0]
            assert past == [200]

    runner.run(asyncio.wait_for(ask(), 60))


def test_requests_that_come_one_behind_the_other_are_answered_in_turn(
    runner: asyncio.Runner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = noted_answers(monkeypatch)

    async def ask() -> None:
        async with gateway_over(Talker([WHOLE]), folder) as world, listening(world) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: %d\r\ncontent-length: %d\r\n\r\n"
            writer.write(b"".join(head % (number, len(JSON)) + JSON for number in range(5)))
            for number in range(5):
                assert b"x-request-id: %d\r\n" % number in await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(2) == b"{}"
            assert len(past) == 5
            writer.transport.abort()

    runner.run(asyncio.wait_for(ask(), 60))


def test_a_header_can_end_no_head(runner: asyncio.Runner, folder: Path) -> None:
    class Sent(asyncio.Transport):
        def writelines(self, _: object) -> None:
            raise AssertionError("it was written")

    async def ask() -> None:
        outlet = Outlet(Sent(), FlowControl(Sent()))
        outlet.serve(cast(Any, SimpleNamespace(default_headers=[])))
        for bad in (b"one\r\nset-cookie: x", b"one\nx: y", b"one\rx: y", b"one\r\n"):
            with pytest.raises(ValueError, match="more than one line"):
                outlet.answer(200, [(b"content-length", b"2"), (b"x", bad)], b"{}")

    runner.run(ask())


# Streams, from their heads on


async def head_of(port: int, *headers: bytes) -> list[bytes]:
    """Ask for a stream; return the lines of its head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/v1/chat/completions").replace(b"host: x", b"\r\n".join((b"host: x", *headers))))
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"data: x\n\n")
    writer.transport.abort()
    return head.removesuffix(b"\r\n\r\n").split(b"\r\n")


def test_the_head_of_a_stream_says_past_asgi_what_it_says_by_it(
    runner: asyncio.Runner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is not kept has its answers by ASGI."""
    past: list[int] = []
    begin = Outlet.begin

    def noting(self: Outlet, status: int, headers: Any) -> None:
        past.append(status)
        begin(self, status, headers)

    monkeypatch.setattr(Outlet, "begin", noting)

    async def ask() -> None:
        async with gateway_over(Talker([ANSWER]), folder) as world, listening(world) as (port, state):
            state.default_headers = [(b"date", b"today")]
            own = b"x-request-id: mine"
            by_asgi = await head_of(port, own, b"connection: close")
            assert past == []
            assert sorted([*await head_of(port, own), b"connection: close"]) == sorted(by_asgi)
            assert past == [200]
            assert {own, b"transfer-encoding: chunked", b"x-content-type-options: nosniff"} < set(by_asgi)

    runner.run(asyncio.wait_for(ask(), 60))


@pytest.mark.parametrize("way", ["direct", "framework"])
@pytest.mark.parametrize("chunks", [0, 1])
def test_a_stream_that_is_cut_off_has_one_head_and_no_end(
    runner: asyncio.Runner, folder: Path, caplog: pytest.LogCaptureFixture, way: str, chunks: int
) -> None:
    """Whoever serves it learns that the answer has begun past ASGI, and does not try to begin another."""
    under_way: list[Serving] = []

    def let_in(scope: Any, _: KeyScope) -> None:
        scope["state"]["principal"] = OPERATOR
        under_way.append(scope["state"][STATE_KEY])

    async def ask() -> None:
        head, end, _ = ANSWER.partition(b"\r\n\r\n")
        engine = Talker([head + end, *[b"1\r\nx\r\n"] * chunks], holds=asyncio.Event())
        keys = Keys(60.0)
        async with gateway_over(engine, folder) as world:
            direct = direct_operations(world.gateway, cast(Any, SimpleNamespace(keys=keys, let_in=let_in)))

            async def begun(scope: Any, receive: Any, send: Any) -> None:
                let_in(scope, KeyScope.INFER)
                await world.gateway.serve(scope, receive, send)

            serve = direct["/v1/chat/completions"] if way == "direct" else end_with_key(keys)(begun)

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await serve(scope, receive, send)

            async with listening(world, app) as (port, state):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request("/v1/chat/completions"))
                said = await reader.readuntil(b"1\r\nx\r\n" if chunks else b"\r\n\r\n")
                under_way[0].cut()
                said += await reader.read()
                assert said.count(b"HTTP/1.1") == 1
                assert not said.endswith(b"0\r\n\r\n")
                await until(lambda: not state.tasks)
                assert not [record for record in caplog.records if record.exc_info]
                writer.transport.abort()
            await within(engine.closed.wait())

    runner.run(asyncio.wait_for(ask(), 60))


# Clients that leave


async def leave(world: GatewayWorld, port: int, draw: random.Random) -> None:
    """Ask for something, and leave at some moment: from within the request to within the answer."""
    size = draw.randrange(len(ANSWER))
    world.engine.pieces = cut(ANSWER[:size], draw.choice([2, 10, 40]))
    world.engine.holds = asyncio.Event()
    asked = request(draw.choice(ROUTES))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asked if draw.random() < 0.9 else asked[: draw.randrange(len(asked))])
    reads = draw.random() < 0.7
    for _ in range(int(draw.expovariate(0.1))):
        await asyncio.sleep(0)
    if draw.random() < 0.5:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(draw.random() * 0.02):
                while reads and await reader.read(2**16):
                    pass
                await asyncio.Event().wait()
    if draw.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()
    await within(world.engine.closed.wait())


@pytest.mark.parametrize("waiting", [0, 1, 6])
def test_who_leaves_is_noticed_whatever_waits_for_its_turn(runner: asyncio.Runner, folder: Path, waiting: int) -> None:
    """uvicorn reads nothing more of a client one of whose requests waits, and so does not see the end."""

    async def run() -> None:
        engine = Talker(holds=asyncio.Event())
        async with gateway_over(engine, folder) as world, listening(world) as (port, state):
            for leave in ("abort", "close"):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request("/v1/chat/completions"))
                await until(lambda: world.in_flight() == 1 and bool(engine.open))
                writer.write(request("/v1/chat/completions") * waiting)
                (connection,) = cast(set[Any], state.connections)
                await until(lambda at=connection: len(at.pipeline) == waiting)
                getattr(writer.transport, leave)()
                await within(engine.closed.wait())
                await until(lambda: not (state.connections or state.tasks or world.in_flight()))

    runner.run(asyncio.wait_for(run(), 60))


def test_who_leaves_while_its_answer_waits_for_it_is_written_nothing(
    runner: asyncio.Runner, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two requests that come one behind the other uvicorn tells the second that the client has left."""

    async def run() -> None:
        pieces = [b"%x\r\n%b\r\n" % (60_000, b"x" * 60_000)] * 400
        engine = Talker([ANSWER.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", *pieces], holds=asyncio.Event())
        async with gateway_over(engine, folder) as world, listening(world) as (port, state):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            writer.write(request("/v1/chat/completions") * 2)
            await reader.readexactly(100)
            (connection,) = cast(set[Any], state.connections)
            await until(lambda: not connection._outlet.is_open)
            assert connection.transport.get_write_buffer_size() < 1_000_000
            await until(lambda: all(each.transport.get_write_buffer_size() for each in engine.open))
            writer.transport.abort()
            await within(engine.closed.wait())
            await until(lambda: not (state.connections or state.tasks or world.in_flight()))

    runner.run(asyncio.wait_for(run(), 60))
    assert not [record for record in caplog.records if record.exc_info]


def test_a_head_is_not_written_to_who_has_left(runner: asyncio.Runner, caplog: pytest.LogCaptureFixture) -> None:
    class Closed(asyncio.Transport):
        def write(self, data: object) -> None:
            raise AssertionError("it was written")

    async def run() -> None:
        corked = CorkedTransport(Closed())
        corked.write(b"HTTP/1.1 200 OK\r\n\r\n")
        corked.lose()
        await asyncio.sleep(0)

    runner.run(run())
    assert not caplog.records


def leave_often(runner: asyncio.Runner, folder: Path, times: int, seed: int) -> None:
    """Leave so often, and find nothing left: no connection, no task, no count."""

    async def run() -> None:
        engine, draw = Talker(), random.Random(seed)
        engine.closed.set()
        tasks = len(asyncio.all_tasks())
        async with gateway_over(engine, folder, has_door=True) as world, listening(world) as (port, state):
            descriptors = open_descriptors()
            for _ in range(times):
                await leave(world, port, draw)
                await until(lambda: not (state.connections or state.tasks or world.in_flight()))
                await within(engine.closed.wait())  # also where it began as its client left
            assert world.pool._idle == {}
            await until(lambda: open_descriptors() <= descriptors)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)

    runner.run(run())


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_left_of_who_leaves_a_connection(runner: asyncio.Runner, tmp_path: Path, seed: int) -> None:
    leave_often(runner, tmp_path, 100, seed)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_left_of_ten_thousand_who_leave_one(runner: asyncio.Runner, tmp_path: Path, seed: int) -> None:
    leave_often(runner, tmp_path, 1000, 100 + seed)

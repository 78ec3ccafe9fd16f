"""Requests that wait until their service can take them, and streams that are kept alive meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_world import Listener, World, opened
from test_api_keys import bearer, make
from test_gateway import TOKENS, Engine, add, chat, known, served, until

from tests.doors import door_context, listening

CHAT = "/v1/chat/completions"
LONG = "600"
STREAM = {"model": "dummy", "messages": [], "stream": True}
EVENTS = (b"data: 1\n\n", b"data: 2\n\n")

pytestmark = pytest.mark.usefixtures("waiting")


def streamed(**more: Any) -> Engine:
    return Engine(content_type="text/event-stream", chunks=EVENTS, **more)


async def starting(world: World, message: str = "loading weights, 40 %") -> str:
    service = await world.create()
    await world.observe(service, available=False, reason="Starting", message=message)
    await known(world, service, "starting")
    return service


async def test_a_request_waits_for_a_replica_that_is_about_to_be_ready(
    folder: Path, waiting: Callable[[], int]
) -> None:
    engine = Engine()
    async with opened(folder, gateway__queue_seconds=LONG) as world:
        service = await starting(world)
        asking = asyncio.create_task(chat(world))
        await until(lambda: waiting() == 1)
        async with listening(engine.serve, door_context(TOKENS[0])) as port:
            await world.observe(service, available=True, reason="AsWanted", ready_replicas=1)
            await add(world, port, service=service)
            assert (await asking).status_code == 200
    assert len(engine.heads) == 1


async def test_who_has_waited_long_enough_is_told_why(folder: Path, waiting: Callable[[], int]) -> None:
    async with opened(folder, gateway__queue_seconds="0.2") as world:
        await starting(world)
        answer = await chat(world)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert answer.json()["error"]["code"] == "model_not_ready"
        assert "starting: loading weights, 40 %" in answer.json()["error"]["message"]
        assert waiting() == 0


async def test_nobody_waits_for_what_does_not_come_soon(folder: Path) -> None:
    async with opened(folder, gateway__queue_seconds=LONG) as world:
        service = await world.create()
        await world.observe(service, available=False, reason="Queued", message="it waits for GPUs")
        await known(world, service, "pending")
        assert (await chat(world)).status_code == 503
        await world.observe(service, available=False, reason="Failed")
        await known(world, service, "failed")
        assert (await chat(world)).status_code == 503


async def test_one_at_a_time_in_the_order_in_which_they_came(folder: Path, waiting: Callable[[], int]) -> None:
    engine, order = Engine(holds=asyncio.Event()), []
    async with opened(folder, gateway__queue_seconds=LONG, gateway__in_flight="1") as world, served(world, engine):

        async def ask(number: int) -> None:
            assert (await chat(world, number=number)).status_code == 200

        asking = [asyncio.create_task(ask(0))]
        await until(lambda: len(engine.heads) == 1)
        for number in range(1, 6):
            asking.append(asyncio.create_task(ask(number)))
            await until(lambda number=number: waiting() == number)  # type: ignore[misc]
        assert len(engine.heads) == 1
        assert engine.holds is not None
        engine.holds.set()
        await asyncio.gather(*asking)
        order = [json.loads(body)["number"] for body in engine.bodies]
    assert order == [0, 1, 2, 3, 4, 5]


async def test_a_full_queue_is_said_to_be_full(folder: Path, waiting: Callable[[], int]) -> None:
    engine = Engine(holds=asyncio.Event())
    flags = {"gateway__queue_seconds": LONG, "gateway__queue_length": "1", "gateway__in_flight": "1"}
    async with opened(folder, **flags) as world, served(world, engine):
        asking = [asyncio.create_task(chat(world))]
        await until(lambda: len(engine.heads) == 1)
        asking.append(asyncio.create_task(chat(world)))
        await until(lambda: waiting() == 1)
        refused = await chat(world)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        error = refused.json()["error"]
        assert (error["code"], error["type"]) == ("queue_full", "rate_limit_error")
        assert "1 replicas answer 1 requests each (gateway.in_flight)" in error["message"]
        assert engine.holds is not None
        engine.holds.set()
        assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200, 200]


async def test_who_waits_too_long_for_a_busy_replica_is_told(folder: Path) -> None:
    engine = Engine(holds=asyncio.Event())
    async with opened(folder, gateway__queue_seconds="0.2", gateway__in_flight="1") as world, served(world, engine):
        asking = asyncio.create_task(chat(world))
        await until(lambda: len(engine.heads) == 1)
        refused = await chat(world)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_busy")
        assert engine.holds is not None
        engine.holds.set()
        assert (await asking).status_code == 200


async def test_who_leaves_frees_a_place(folder: Path, waiting: Callable[[], int]) -> None:
    async with opened(
        folder, gateway__queue_seconds=LONG, gateway__queue_length="1", gateway__comment_after="0.05"
    ) as world:
        await starting(world)
        for _ in range(3):
            async with world.listen(CHAT, body=STREAM):
                assert waiting() == 1
                assert (await chat(world)).status_code == 503
            assert waiting() == 0


async def test_both_replicas_are_filled(folder: Path, waiting: Callable[[], int]) -> None:
    holds = asyncio.Event()
    engines = Engine(holds=holds), Engine(holds=holds)
    async with opened(folder, gateway__queue_seconds=LONG, gateway__in_flight="2") as world, served(world, *engines):
        asking = [asyncio.create_task(chat(world)) for _ in range(6)]
        await until(lambda: [len(engine.heads) for engine in engines] == [2, 2] and waiting() == 2)
        holds.set()
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}


# Comments


async def commented(client: Listener, times: int = 2) -> None:
    await client.until(lambda: client.text.count(": waiting\n\n") >= times)


async def test_comments_keep_a_stream_alive_until_its_first_byte(folder: Path) -> None:
    async with opened(folder, gateway__queue_seconds=LONG, gateway__comment_after="0.05") as world:
        service = await starting(world)
        engine = streamed()
        async with world.listen(CHAT, body=STREAM) as client:
            await commented(client)
            assert (client.status, client.headers["content-type"]) == (200, "text/event-stream")
            assert client.headers["x-request-id"]
            async with listening(engine.serve, door_context(TOKENS[0])) as port:
                await world.observe(service, available=True, reason="AsWanted", ready_replicas=1)
                await add(world, port, service=service)
                assert [(await client.next()).text, (await client.next()).text] == ["1", "2"]
                await client.until(client.left.is_set)
    assert client.text.replace(": waiting\n\n", "") == "data: 1\n\ndata: 2\n\n"
    assert client.text.endswith("data: 1\n\ndata: 2\n\n"), "there is none after the first byte"


async def test_there_is_no_comment_after_the_first_byte(folder: Path) -> None:
    engine = streamed(holds=asyncio.Event())
    async with (
        opened(folder, gateway__comment_after="0.5") as world,
        served(world, engine),
        world.listen(CHAT, body=STREAM) as client,
    ):
        await client.next()
        before = client.text
        await asyncio.sleep(1.2)
        assert client.text == before


class SlowEngine(Engine):
    """Sends a head, and waits before its first byte."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {self.content_type}", *self.more, "", ""]
        writer.write("\r\n".join(lines).encode())
        assert self.holds is not None
        await self.holds.wait()
        writer.write(b"".join(self.chunks))
        await writer.drain()


async def test_comments_go_on_after_the_engines_head(folder: Path) -> None:
    engine = SlowEngine(content_type="text/event-stream", chunks=EVENTS, holds=asyncio.Event())
    async with (
        opened(folder, gateway__comment_after="0.05") as world,
        served(world, engine),
        world.listen(CHAT, body=STREAM) as client,
    ):
        await commented(client)
        assert engine.holds is not None
        engine.holds.set()
        await client.until(client.left.is_set)
    assert client.text.endswith("data: 1\n\ndata: 2\n\n")


@pytest.mark.parametrize("body", [STREAM | {"stream": False}, STREAM | {"stream": None}])
async def test_only_streams_have_comments(folder: Path, body: Any) -> None:
    engine = SlowEngine(chunks=(b"{}",), holds=asyncio.Event())
    async with opened(folder, gateway__comment_after="0.01") as world, served(world, engine):
        asking = asyncio.create_task(world.post(CHAT, body))
        await until(lambda: engine.heads != [])
        await asyncio.sleep(0.1)
        assert engine.holds is not None
        engine.holds.set()
        assert (await asking).text == "{}"


async def test_no_comment_makes_an_answer_longer_than_it_says(folder: Path) -> None:
    more = (f"Content-Length: {sum(map(len, EVENTS))}",)
    engine = SlowEngine(content_type="text/event-stream", chunks=EVENTS, more=more, holds=asyncio.Event())
    async with (
        opened(folder, gateway__comment_after="0.01") as world,
        served(world, engine),
        world.listen(CHAT, body=STREAM) as client,
    ):
        await asyncio.sleep(0.1)
        assert engine.holds is not None
        engine.holds.set()
        await client.until(client.left.is_set)
    assert client.text.endswith("data: 2\n\n")
    assert "content-length" not in client.headers or client.text == "data: 1\n\ndata: 2\n\n"


async def test_an_engine_that_breaks_off_after_comments_is_told_of(folder: Path) -> None:
    engine = LateEngine(status=400, chunks=(b'{"er',), breaks=True, holds=asyncio.Event())
    async with (
        opened(folder, gateway__comment_after="0.05") as world,
        served(world, engine),
        world.listen(CHAT, body=STREAM) as client,
    ):
        await commented(client, 1)
        assert engine.holds is not None
        engine.holds.set()
        assert "broke off" in (await client.next()).data["error"]["message"]


class LateEngine(Engine):
    """Answers once it may."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self.holds is not None
        await self.holds.wait()
        await Engine(status=self.status, content_type=self.content_type, chunks=self.chunks, breaks=self.breaks).serve(
            reader, writer
        )


VLLM = json.dumps({"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}).encode()


@pytest.mark.parametrize(
    ("status", "said", "kind", "message"),
    [
        (400, VLLM, "invalid_request_error", "too long"),
        (500, b"<html>", "api_error", "The engine answered with status 500, and with no stream."),
        (200, b'{"choices": []}', "api_error", "The engine answered with status 200, and with no stream."),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_an_error_after_comments_is_an_event(
    folder: Path, path: str, status: int, said: bytes, kind: str, message: str
) -> None:
    engine = LateEngine(status=status, chunks=(said,), holds=asyncio.Event())
    async with (
        opened(folder, gateway__comment_after="0.05") as world,
        served(world, engine),
        world.listen(path, body=STREAM) as client,
    ):
        await commented(client, 1)
        assert engine.holds is not None
        engine.holds.set()
        event = await client.next()
        await client.until(client.left.is_set)
    assert event.data["error"]["message"] == message
    assert event.data["error"]["type"] == kind
    assert (event.name, event.data.get("type")) == (("error", "error") if path == "/v1/messages" else ("message", None))
    assert client.status == 200


async def test_a_refusal_of_the_gateways_own_after_comments_is_one_too(folder: Path) -> None:
    async with opened(folder, gateway__queue_seconds="0.3", gateway__comment_after="0.05") as world:
        await starting(world)
        async with world.listen(CHAT, body=STREAM) as client:
            event = await client.next()
            await client.until(client.left.is_set)
    assert event.data["error"]["code"] == "model_not_ready"
    assert ": waiting\n\n" in client.text


async def test_who_leaves_amid_comments_leaves_nothing_behind(folder: Path) -> None:
    engine = LateEngine(holds=asyncio.Event())
    async with opened(folder, gateway__comment_after="0.02") as world, served(world, engine):
        for _ in range(3):
            async with world.listen(CHAT, body=STREAM) as client:
                await commented(client)
        before = client.text
        await asyncio.sleep(0.1)
        assert client.text == before


# Time-outs


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        ({"gateway__first_byte": "0.2"}, 504, "nothing came for 0.2 s"),
        ({"gateway__silence": "0.2"}, 200, ""),
    ],
)
async def test_the_first_byte_has_a_time_of_its_own(
    folder: Path, flags: dict[str, str], status: int, said: str
) -> None:
    """An engine that answers after a second: the silence between chunks is no matter there."""
    engine = LateEngine(holds=asyncio.Event())
    async with opened(folder, **flags) as world, served(world, engine):
        assert engine.holds is not None
        asyncio.get_running_loop().call_later(1.0, engine.holds.set)
        answer = await chat(world)
    assert answer.status_code == status
    assert said in answer.text


async def test_a_silence_between_chunks_ends_a_stream_and_a_long_one_has_no_end(folder: Path) -> None:
    engine = streamed(holds=asyncio.Event())
    async with (
        opened(folder, gateway__silence="0.2") as world,
        served(world, engine),
        world.listen(CHAT, body=STREAM) as client,
    ):
        assert (await client.next()).text == "1"
        assert "nothing came for 0.2 s" in (await client.next()).data["error"]["message"]


async def test_a_connection_has_its_time(folder: Path) -> None:
    """What accepts, and says nothing of TLS."""
    async with opened(folder, gateway__connect="0.2") as world:

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            await asyncio.Event().wait()

        async with listening(say_nothing) as port:
            await known(world, await add(world, port), replicas=1)
            answer = await chat(world)
    assert (answer.status_code, "no connection within 0.2 s" in answer.text) == (503, True)


# Errors of replicas


async def test_a_replica_that_fails_several_callers_is_left_out(folder: Path) -> None:
    bad, good = Engine(status=500), Engine()
    async with opened(folder) as world, served(world, bad, good):
        keys = [await make(world) for _ in range(2)]
        answers: list[httpx.Response] = []
        while len(bad.heads) < 5 and len(answers) < 200:
            key = keys[len(bad.heads) % 2]
            answers.append(await world.post(CHAT, {"model": "dummy"}, headers=bearer(key["secret"])))
        asked = len(bad.heads)
        for _ in range(20):
            assert (await chat(world)).status_code == 200
    assert (asked, len(bad.heads)) == (5, 5)

"""Prompts answered bit by bit: POST /api/v1/vllm/{id}/prompt?stream=true."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from api_world import World
from test_api_vllm import VLLM, StartEngine, ready_service, respond, upstream

from tests.ports import free_port


async def stream(world: World, service: str, **rest: Any) -> list[tuple[str, Any]]:
    """Ask, and return the events."""
    answer = await world.post(f"{VLLM}/{service}/prompt?stream=true", {"prompt": "hi there", **rest})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def chunked(*chunks: Any, whole: bool = True) -> Any:
    """Answer with a stream of these objects; one that breaks off, unless it is whole."""

    async def answer(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            event = b"data: %b\n\n" % (chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode())
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        if whole:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    return answer


@pytest.mark.parametrize("flags", [(), ("--no-chat-template",)])
async def test_the_bits_make_the_answer(world: World, engine: StartEngine, flags: tuple[str, ...]) -> None:
    service = await ready_service(world, engine(*flags))
    whole = (await world.post(f"{VLLM}/{service}/prompt", {"prompt": "hi there"})).json()
    *deltas, (name, last) = await stream(world, service)
    assert {name for name, _ in deltas} == {"delta"}
    assert len(deltas) > 1
    assert "".join(data["text"] for _, data in deltas) == last["response"] == whole["response"]
    assert (name, last) == ("done", whole)


async def test_the_body_may_ask_for_it_too(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine())
    body = {"prompt": "hi", "stream": True, "stream_options": {"include_usage": True}}
    answer = await world.post(f"{VLLM}/{service}/prompt", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: done" in answer.text
    whole = await world.post(f"{VLLM}/{service}/prompt?stream=false", body)
    assert whole.json()["success"] is True


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
async def test_a_stream_that_is_all_reasoning_says_so(world: World, key: str) -> None:
    bits = [{"choices": [{"delta": {key: bit}, "finish_reason": end}]} for bit, end in (("H", None), ("m.", "length"))]
    async with upstream(chunked(*bits)) as engine:
        ((name, data),) = await stream(world, await ready_service(world, engine))
    assert (name, data["response"], data["finish_reason"], data["reasoning"]) == ("done", "", "length", "Hm.")


async def test_what_is_refused_is_told_at_the_end(world: World, engine: StartEngine) -> None:
    async with upstream(respond(400, {"error": "no"})) as refusing:
        service = await ready_service(world, refusing)
        ((name, data),) = await stream(world, service)
    assert (name, data["success"], data["error"], data["body"]) == ("done", False, "vLLM returned 400", {"error": "no"})


async def test_nothing_listens(world: World) -> None:
    service = await world.create()
    await world.observe(service, available=True, reason="AsWanted")
    await world.endpoint(service, "127.0.0.1", free_port(), token="af-inst22-x-0-1")
    ((name, data),) = await stream(world, service)
    assert (name, data["error"]) == ("done", "Service not available")


async def test_a_service_that_is_not_ready_answers_json_as_ever(world: World) -> None:
    service = await world.create()
    answer = await world.post(f"{VLLM}/{service}/prompt?stream=true", {"prompt": "hi"})
    assert answer.json()["error"] == "Service is not ready yet (status: pending)"
    assert (await world.post(f"{VLLM}/{service}/prompt?stream=true", {})).status_code == 400
    assert (await world.post(f"{VLLM}/{service}/prompt?stream=x", {"prompt": "hi"})).status_code == 422


def said(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


async def test_an_answer_that_breaks_off(world: World) -> None:
    async with upstream(chunked(said("one "), said("two"), whole=False)) as broken:
        events = await stream(world, await ready_service(world, broken))
    assert [data["text"] for name, data in events if name == "delta"] == ["one ", "two"]
    name, last = events[-1]
    assert (name, last["success"], last["error"], last["response"]) == (
        "done", False, "The answer broke off", "one two",
    )  # fmt: skip


async def test_an_error_in_the_midst(world: World) -> None:
    async with upstream(chunked(said("one"), {"error": {"message": "out of memory"}}, b"[DONE]")) as failing:
        events = await stream(world, await ready_service(world, failing))
    assert events[-1][1]["success"] is False
    assert "out of memory" in str(events[-1][1]["body"])
    assert events[-1][1]["response"] == "one"


async def test_odd_chunks(world: World) -> None:
    odd = (b"nonsense", [], {"choices": "x"}, {"choices": [1]}, said("a\u2028b"), {"choices": [{"delta": {}}]})
    async with upstream(chunked(*odd)) as engine:
        events = await stream(world, await ready_service(world, engine))
    assert events[0] == ("delta", {"text": "a\u2028b"})
    assert events[1][1]["response"] == "a\u2028b"


async def test_nothing_that_an_engine_says_begins_another_event(world: World) -> None:
    said = 'x\n\nevent: done\ndata: {"success": false}\r\revent: delta\u2028\0'
    async with upstream(chunked({"choices": [{"delta": {"content": said}}]})) as port:
        service = await ready_service(world, port)
        found = await stream(world, service)
    assert [name for name, _ in found] == ["delta", "done"]
    assert (found[0][1]["text"], found[1][1]["response"]) == (said, said)


async def test_a_stream_without_choices(world: World) -> None:
    async with upstream(chunked({"usage": {}})) as engine:
        ((_, data),) = await stream(world, await ready_service(world, engine))
    assert data["error"] == "No response generated"


async def test_a_client_that_leaves_ends_the_generation(world: World) -> None:
    left = asyncio.Event()

    async def endless(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        event = b"data: %b\n\n" % json.dumps(said("x")).encode()
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
        await reader.read()
        left.set()

    async with upstream(endless) as engine:
        service = await ready_service(world, engine)
        async with world.listen(f"{VLLM}/{service}/prompt?stream=true", body={"prompt": "hi"}) as listener:
            assert (await listener.next()).name == "delta"
        async with asyncio.timeout(60):
            await left.wait()


async def test_a_stream_of_nothing_but_lines_breaks_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.web.sse.MOST_LINES", 100)
    bit = {"choices": [{"delta": {"content": "a"}}]}
    async with upstream(chunked(*[bit] * 10, b"\n" * 90)) as flooding:
        service = await ready_service(world, flooding)
        *_, (name, last) = await stream(world, service)
    assert (name, last["success"]) == ("done", False)
    assert "its answer has more than 100 lines" in last["technical_details"]

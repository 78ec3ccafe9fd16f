"""One address in front of every model: what clients of OpenAI's and Anthropic's APIs send and get."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from api_world import World

from tests.doors import door_context, key_id, listening

TOKENS = ("af-inst22-one-0-1", "af-inst22-one-1-1")


@dataclass
class Engine:
    """An engine that answers with its name, in chunks, and remembers what it was asked."""

    name: str = "it"
    status: int = 200
    content_type: str = "application/json"
    chunks: tuple[bytes, ...] = (b'{"choices": []}',)
    more: tuple[str, ...] = ()
    """Further headers."""
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    holds: asyncio.Event | None = None
    """Between the chunks it waits for this."""
    breaks: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lengths = (int(line[15:]) for line in head.lower().split("\r\n") if line[:15] == "content-length:")
                self.bodies.append(await reader.readexactly(next(lengths, 0)))
                self.heads.append(head)
                lines = [f"HTTP/1.1 {self.status} OK", f"Content-Type: {self.content_type}", *self.more]
                writer.write("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
                for chunk in self.chunks:
                    writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    await writer.drain()
                    if self.holds is not None:
                        waiting = asyncio.ensure_future(self.holds.wait())
                        leaving = asyncio.ensure_future(reader.read(1))
                        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
                        if leaving.done():
                            return
                        leaving.cancel()
                if self.breaks:
                    return
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        finally:
            self.open -= 1


async def add(world: World, port: int, *, replica: int = 0, service: str | None = None, **rest: Any) -> str:
    if service is None:
        service = await world.create(**rest)
        await world.observe(service, available=True, reason="AsWanted", ready_replicas=1)
    await world.endpoint(service, "127.0.0.1", port, token=TOKENS[replica], replica=replica, door=key_id())
    return service


@asynccontextmanager
async def served(world: World, *engines: Engine, **rest: Any) -> AsyncIterator[str]:
    """Give a service that these engines serve, once the gateway knows of them."""
    service = None
    async with AsyncExitStack() as stack:
        for replica, engine in enumerate(engines):
            port = await stack.enter_async_context(listening(engine.serve, door_context(TOKENS[replica])))
            service = await add(world, port, replica=replica, service=service, **rest)
        assert service is not None
        await known(world, service, replicas=len(engines))
        yield service


async def until(condition: Any, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not (await condition() if asyncio.iscoroutinefunction(condition) else condition()):
            await asyncio.sleep(0.01)


async def known(world: World, service: str, status: str = "running", replicas: int = 0) -> None:
    """Wait until the gateway knows a service."""
    name = (await world.get(f"/api/v1/services/{service}")).json()["name"]

    async def is_known() -> bool:
        answer = await world.get(f"/v1/models/{name}")
        found = answer.json()
        return answer.status_code == 200 and (found["status"], found["ready_replicas"]) == (status, replicas)

    await until(is_known)


async def chat(world: World, model: str = "dummy", **more: Any) -> httpx.Response:
    return await world.post("/v1/chat/completions", {"model": model, "messages": [], **more})


async def test_a_request_passes_byte_for_byte(world: World) -> None:
    engine = Engine()
    body = b'{"model": "dummy",  "messages": [ ], "temperature": 0.70, "x": "\\u00e9"}'
    async with served(world, engine):
        answer = await world.client.post("/v1/chat/completions", content=body)
    assert (answer.status_code, answer.content) == (200, b'{"choices": []}')
    assert engine.bodies == [body]
    assert engine.heads[0].startswith("POST /v1/chat/completions HTTP/1.1\r\n")


async def test_a_service_is_asked_for_by_its_name_too(world: World) -> None:
    engine = Engine()
    async with served(world, engine, name="chat"):
        await chat(world, "chat", temperature=0.5)
    assert json.loads(engine.bodies[0]) == {"model": "dummy", "messages": [], "temperature": 0.5}


async def test_an_adapter_is_a_model_too(world: World) -> None:
    engine, adapters = Engine(), ["--enable-lora", "--lora-modules", "sql=/models/sql"]
    async with served(world, engine, name="chat", config={"extra_args": adapters}):
        models = (await world.get("/v1/models")).json()["data"]
        assert {model["id"] for model in models} == {"dummy", "chat", "sql"}
        assert (await chat(world, "sql")).status_code == 200
    assert json.loads(engine.bodies[0])["model"] == "sql"


async def test_a_form_passes_byte_for_byte(world: World) -> None:
    engine, sound = Engine(chunks=(b'{"text": "hi"}',)), bytes(range(256)) * 1000
    files = {"file": ("a.wav", sound, "audio/wav"), "model": (None, "dummy")}
    sent = httpx.Request("POST", "http://x", files=files)
    headers = {"content-type": sent.headers["content-type"]}
    async with served(world, engine, name="chat"):
        for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
            answer = await world.client.post(path, content=sent.read(), headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"text": "hi"})
        renamed = sent.read().replace(b"dummy", b"chat")
        await world.client.post(path, content=renamed, headers=headers)
        assert (await world.post(path, {"model": "dummy"})).status_code == 400
    assert engine.bodies == [sent.read()] * 3
    assert f"content-type: {sent.headers['content-type']}\r\n" in engine.heads[0]


async def test_speech_is_bytes(world: World) -> None:
    engine = Engine(content_type="audio/mpeg", chunks=(b"\xff\xfb\0", b"\r\n\r\n"))
    async with served(world, engine):
        answer = await world.post("/v1/audio/speech", {"model": "dummy", "input": "hi", "voice": "x"})
    assert (answer.headers["content-type"], answer.content) == ("audio/mpeg", b"\xff\xfb\0\r\n\r\n")


async def test_what_proves_who_asks_stays_here(world: World) -> None:
    engine = Engine(more=("Set-Cookie: a=b", "Server: vllm"))
    async with served(world, engine):
        headers = {"authorization": "Bearer secret-1", "x-api-key": "secret-2", "cookie": "c=secret-3"}
        answer = await world.client.post("/v1/chat/completions", json={"model": "dummy"}, headers=headers)
    assert "secret" not in engine.heads[0]
    assert "set-cookie" not in answer.headers
    assert "server" not in answer.headers


async def test_connections_are_kept(world: World) -> None:
    engine = Engine()
    async with served(world, engine):
        for _ in range(3):
            assert (await chat(world)).status_code == 200
    assert engine.connections == 1


async def test_a_stream_passes_as_it_comes(world: World) -> None:
    holds = asyncio.Event()
    engine = Engine(content_type="text/event-stream", chunks=(b"data: 1\n\n", b"data: 2\n\n"), holds=holds)
    async with (
        served(world, engine),
        world.listen("/v1/chat/completions", body={"model": "dummy", "stream": True}) as client,
    ):
        assert (await client.next()).text == "1"
        assert client.waiting == 0
        holds.set()
        assert (await client.next()).text == "2"
        await client.until(client.left.is_set)
    assert client.headers["content-type"] == "text/event-stream"


async def test_who_leaves_ends_the_engines_work(world: World) -> None:
    engine = Engine(content_type="text/event-stream", chunks=(b"data: 1\n\n",) * 2, holds=asyncio.Event())
    async with served(world, engine):
        async with world.listen("/v1/chat/completions", body={"model": "dummy", "stream": True}) as client:
            await client.next()
            assert engine.open == 1
        await until(lambda: engine.open == 0)


async def test_a_stream_that_breaks_says_so(world: World) -> None:
    engine = Engine(content_type="text/event-stream", chunks=(b"data: 1\n\n",), breaks=True)
    async with (
        served(world, engine),
        world.listen("/v1/chat/completions", body={"model": "dummy", "stream": True}) as client,
    ):
        assert (await client.next()).text == "1"
        error = (await client.next()).data["error"]
    assert (error["code"], error["type"]) == ("engine_unreachable", "api_error")


async def test_another_replica_answers_where_one_is_gone(world: World) -> None:
    engine = Engine()
    async with served(world, engine, Engine()) as service:
        await world.endpoint(service, "127.0.0.1", 1, token="af-inst22-one-2-1", replica=2, door=key_id())
        await known(world, service, replicas=3)
        for _ in range(20):
            assert (await chat(world)).status_code == 200


async def test_another_replica_answers_where_one_is_busy(world: World) -> None:
    busy, free = Engine(status=503), Engine()
    async with served(world, busy, free):
        for _ in range(10):
            assert (await chat(world)).status_code == 200
    assert busy.heads


async def test_busy_is_said_where_all_are(world: World) -> None:
    engine = Engine(status=503, chunks=(b'{"error": {}}',), more=("Retry-After: 7",))
    async with served(world, engine):
        answer = await chat(world)
    assert (answer.status_code, answer.headers["retry-after"], answer.text) == (503, "7", '{"error": {}}')


async def test_none_answers(world: World) -> None:
    service = await add(world, 1)
    await known(world, service, replicas=1)
    answer = await chat(world)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["error"]["code"] == "engine_unreachable"


async def test_models_are_listed_with_their_state(world: World) -> None:
    service = await world.create(name="chat")
    await world.observe(service, available=False, reason="Starting", message="It loads its weights.")
    await known(world, service, "starting")
    models = (await world.get("/v1/models")).json()
    assert models["object"] == "list"
    assert [(m["id"], m["root"], m["status"]) for m in models["data"]] == [
        ("dummy", "dummy", "starting"),
        ("chat", "dummy", "starting"),
    ]
    assert models["data"][0]["message"] == "It loads its weights."


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [("nope", 404, "model_not_found"), ("", 400, None), ("dummy", 503, "model_not_ready")],
)
async def test_models_that_do_not_answer(world: World, model: str, status: int, code: str | None) -> None:
    service = await world.create()
    await world.observe(service, available=False, reason="Starting", message="It loads its weights.")
    await known(world, service, "starting")
    answer = await chat(world, model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_stopped_model_says_how_to_start_it(world: World) -> None:
    service = await world.create(name="chat")
    await world.observe(service, available=False, reason="Stopped")
    await world.patch(f"/api/v1/services/{service}", {"desired_state": "stopped"})
    await known(world, service, "cancelled")
    error = (await chat(world, "chat")).json()["error"]
    assert error["code"] == "model_stopped"
    assert "ai-factory services start chat" in error["message"]


async def test_a_deleted_model_is_gone(world: World) -> None:
    async with served(world, Engine()) as service:
        await world.delete(f"/api/v1/services/{service}")

        async def is_gone() -> bool:
            return (await chat(world)).status_code == 404

        await until(is_gone)


async def test_errors_have_the_form_of_the_api_that_was_called(world: World) -> None:
    async def asked() -> bool:
        return (await world.post("/v1/messages", {"model": "nope"})).status_code == 404

    await until(asked)
    answer = await world.post("/v1/messages", {"model": "nope"})
    error = answer.json()
    assert (answer.status_code, error["type"], error["error"]["type"]) == (404, "error", "not_found_error")
    assert error["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/chat", "/v1/", "/v1/chat/completions/../../metrics"])
async def test_other_paths_are_not_passed_on(world: World, path: str) -> None:
    engine = Engine()
    async with served(world, engine):
        answer = await world.post(path, {"model": "dummy"})
    assert answer.status_code == 404
    assert not engine.heads


async def test_the_wrong_method(world: World) -> None:
    wrong = await world.get("/v1/chat/completions"), await world.post("/v1/models", {})
    assert [(answer.status_code, answer.headers["allow"]) for answer in wrong] == [(405, "POST"), (405, "GET, HEAD")]
    async with served(world, Engine()):
        assert (await world.client.head("/v1/models")).status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"model"', b"[" * 100_000, b"\xff"])
async def test_bodies_that_are_none(world: World, body: bytes) -> None:
    answer = await world.post("/v1/chat/completions", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "image_url", "image_url": "file:///etc/passwd"},
        {"type": "input_image", "image_url": "https://somewhere/"},
        {"type": "image", "source": {"type": "url", "url": "https://somewhere/"}},
        {"type": "audio_url", "audio_url": {"url": "//somewhere/"}},
    ],
)
async def test_engines_fetch_nothing_for_others(world: World, part: Any) -> None:
    engine = Engine()
    async with served(world, engine):
        answer = await chat(world, messages=[{"role": "user", "content": [part]}])
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_url")
        allowed = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        assert (await chat(world, messages=[{"role": "user", "content": [allowed]}])).status_code == 200
    assert len(engine.heads) == 1


@pytest.mark.parametrize("field", [{"store": True}, {"background": True}, {"previous_response_id": "resp_1"}])
async def test_engines_keep_no_conversations(world: World, field: dict[str, Any]) -> None:
    engine = Engine()
    async with served(world, engine):
        answer = await world.post("/v1/responses", {"model": "dummy", "input": "x", **field})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(field)))
        assert (await world.post("/v1/responses", {"model": "dummy", "input": "x"})).status_code == 200
    assert len(engine.heads) == 1


async def test_pages_of_engines_are_bytes(world: World) -> None:
    async with served(world, Engine(content_type="text/html", chunks=(b"<script>",))):
        answer = await chat(world)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_strangers_get_nothing(world: World) -> None:
    world.uid = 1
    engine = Engine()
    answer = await world.post("/v1/chat/completions", {"model": "dummy"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert (await world.get("/v1/models")).status_code == 401
    assert not engine.heads

"""Engines behind doors: only those that prove whose they are get anything, and no secret is sent to any."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from api_world import World

from tests.doors import KEY, NEWER_KEY, STRANGE_KEY, door_context, key_id, listening, write_keys

TOKEN, NEXT_TOKEN, OTHER_TOKEN = "af-inst22-one-0-1", "af-inst22-one-0-2", "af-inst22-one-1-1"


@dataclass
class Stub:
    """An engine that answers every prompt with its name, keeps its connections, and asks for nothing."""

    name: str = "it"
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    status: int = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            first = await reader.readexactly(1)
            if first not in (b"G", b"P"):
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            length = next((int(line[15:]) for line in head.lower().split("\r\n") if line[:15] == "content-length:"), 0)
            body = await reader.readexactly(length)
            kind, answer = self.answer(head.split(" ")[1], body)
            writer.write(b"HTTP/1.1 %d OK\r\nContent-Type: %b\r\n" % (self.status, kind))
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(answer), answer))
            await writer.drain()

    def answer(self, path: str, body: bytes) -> tuple[bytes, bytes]:
        if path == "/metrics":
            return b"text/plain", b"# TYPE tokens gauge\ntokens 7.0\n"
        if path == "/v1/models":
            return b"application/json", json.dumps({"data": [{"id": "dummy"}]}).encode()
        if json.loads(body).get("stream"):
            chunk = json.dumps({"choices": [{"delta": {"content": self.name}}]}).encode()
            return b"text/event-stream", b"data: %b\n\ndata: [DONE]\n\n" % chunk
        return b"application/json", json.dumps({"choices": [{"message": {"content": self.name}}]}).encode()


async def service_at(world: World, port: int, token: str = TOKEN, key: bytes = KEY) -> str:
    service = await world.create()
    await world.observe(service, available=True, reason="AsWanted", ready_replicas=1)
    await world.endpoint(service, "127.0.0.1", port, token=token, door=key_id(key))
    return service


@asynccontextmanager
async def behind_door(world: World, stub: Stub) -> AsyncIterator[str]:
    """Give a service whose engine is this one, behind its door."""
    async with listening(stub.serve, door_context(TOKEN)) as port:
        yield await service_at(world, port)


async def prompt(world: World, service: str) -> dict[str, object]:
    answer = await world.post(f"/api/v1/vllm/{service}/prompt", {"prompt": "my secret"})
    assert answer.status_code == 200
    found: dict[str, object] = answer.json()
    return found


async def test_all_that_is_asked_goes_through_the_door(world: World) -> None:
    stub = Stub()
    async with behind_door(world, stub) as service:
        models = (await world.get(f"/api/v1/vllm/{service}/models")).json()
        assert (models["success"], models["models"]) == (True, ["dummy"])
        answer = await prompt(world, service)
        assert answer["response"] == "it"
        async with world.listen(f"/api/v1/vllm/{service}/prompt?stream=true", body={"prompt": "hi"}) as stream:
            assert (await stream.next()).data == {"text": "it"}
            assert (await stream.next()).data["success"] is True
        figures = (await world.get(f"/api/v1/services/{service}/metrics")).text
        assert 'tokens{replica="0"} 7.0' in figures
    assert len(stub.heads) == 4
    assert not any("authorization" in head.lower() for head in stub.heads)


@pytest.mark.parametrize("status", [200, 400])
async def test_answers_name_the_gateway_where_clients_reach_no_engine(world: World, status: int) -> None:
    shown = "http://127.0.0.1:8001/services/engine-{}"
    stub = Stub(status=status)
    async with behind_door(world, stub) as service:
        assert (await prompt(world, service))["endpoint"] == shown.format(service)
        async with world.listen(f"/api/v1/vllm/{service}/prompt?stream=true", body={"prompt": "hi"}) as stream:
            while (event := await stream.next()).name != "done":
                pass
            assert event.data["endpoint"] == shown.format(service)
        if status == 200:
            models = (await world.get(f"/api/v1/vllm/{service}/models")).json()
            assert models["endpoint"] == shown.format(service)


async def test_where_it_is_shown_is_the_gateway(world: World) -> None:
    service = await service_at(world, 8000)
    plain = await world.create()
    await world.observe(plain, available=True)
    await world.endpoint(plain, "n1", 8000, token=OTHER_TOKEN)
    listed = (await world.get("/api/v1/vllm/services")).json()["vllm_services"]
    assert {one["id"]: one["endpoint"] for one in listed} == {
        service: f"http://127.0.0.1:8001/services/engine-{service}",
        plain: "http://n1:8000",
    }
    assert (await world.get(f"/api/v1/services/{service}")).json()["endpoint"] == listed[0]["endpoint"]
    targets = (await world.get("/api/v1/services/targets")).json()
    assert [one["labels"].get("__scheme__") for one in targets] == ["https", None]


@pytest.mark.parametrize(
    "door",
    [None, door_context(OTHER_TOKEN), door_context(TOKEN, STRANGE_KEY)],
    ids=["plain", "of another attempt", "of another key"],
)
async def test_another_program_in_its_place_gets_nothing(world: World, door: ssl.SSLContext | None) -> None:
    stub = Stub()
    async with listening(stub.serve, door) as port:
        answer = await prompt(world, await service_at(world, port))
    assert answer["error"] == "Service not available"
    assert f"another program listens there: it can't prove that it is {TOKEN}" in str(answer["technical_details"])
    assert stub.heads == []


async def test_who_says_nothing_is_slow_and_no_other_program(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.contract.asking.CONNECT_SECONDS", 0.2)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent) as port:
        answer = await prompt(world, await service_at(world, port))
    assert answer["error"] == "Service not available"
    assert "another program" not in str(answer)


async def test_the_other_replica_is_asked_instead(world: World) -> None:
    impostor, stub = Stub("impostor"), Stub()
    async with (
        listening(impostor.serve, door_context(OTHER_TOKEN)) as taken,
        listening(stub.serve, door_context(NEXT_TOKEN)) as port,
    ):
        service = await service_at(world, taken)
        await world.endpoint(service, "127.0.0.1", port, token=NEXT_TOKEN, replica=1, door=key_id())
        for _ in range(8):
            assert (await prompt(world, service))["response"] == "it"
    assert impostor.heads == []


async def test_no_connection_is_used_for_another_attempt_than_it_was_opened_for(world: World) -> None:
    """One attempt's door still holds a connection when the next attempt has its port already."""
    before, after = Stub("before"), Stub("after")
    async with listening(before.serve, door_context(TOKEN)) as port:
        service = await service_at(world, port)
        assert [(await prompt(world, service))["response"] for _ in range(3)] == ["before"] * 3
        assert before.connections == 1, "kept"
        async with world.database.write() as connection:
            await connection.exec_driver_sql(f"UPDATE endpoints SET token = '{NEXT_TOKEN}'")
        answer = await prompt(world, service)
        assert "another program listens there" in str(answer["technical_details"])
    async with listening(after.serve, door_context(NEXT_TOKEN), port=port):
        assert (await prompt(world, service))["response"] == "after"
    assert len(before.heads) == 3


async def test_a_door_of_an_unknown_key_is_not_tried_until_the_key_is_there(world: World) -> None:
    stub = Stub()
    async with listening(stub.serve, door_context(TOKEN, NEWER_KEY)) as port:
        service = await service_at(world, port, key=NEWER_KEY)
        answer = await prompt(world, service)
        assert f"under the key {key_id(NEWER_KEY)}, which the key file does not hold" in str(answer)
        assert stub.connections == 0
        write_keys(world.settings.key_file, NEWER_KEY, KEY)
        assert (await prompt(world, service))["response"] == "it"

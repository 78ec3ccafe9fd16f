"""REST's prompts and lists of models come to engines as the gateway's requests do: within limits, and in queues."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_world import World, opened
from sqlalchemy import update
from test_api_keys import bearer, make
from test_gateway import TOKENS, Engine, add, chat, served, until
from test_gateway_key_limits import limits_of

from api.contract.tables import EndpointRow
from api.gateway.ledger import Ledger
from api.gateway.limits import MINUTE
from api.web.key_limits import KeyLimits
from api.web.responses import JsonResponse
from tests.doors import door_context, key_id, listening

VLLM = "/api/v1/vllm"
USAGE = {"prompt_tokens": 30, "completion_tokens": 70, "total_tokens": 100}
WHOLE = json.dumps({"choices": [{"message": {"content": "Paris"}}], "usage": USAGE}).encode()
BITS = (
    b'data: {"choices": [{"delta": {"content": "Paris"}}]}\n\n',
    b'data: {"choices": [], "usage": %b}\n\n' % json.dumps(USAGE).encode(),
)
LONG = "600"
NO_TEMPLATE = b'{"error": {"message": "must provide a chat template"}}'


@pytest.fixture
async def still(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A world in which the ledger's time stands still."""
    monkeypatch.setattr("api.gateway.ledger.time.monotonic_ns", lambda: 10**15)
    yield world


async def prompt(world: World, service: str, key: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
    headers = {} if key is None else bearer(key["secret"])
    return await world.post(f"{VLLM}/{service}/prompt", {"prompt": "hi", **more}, headers=headers)


async def limited(world: World, *scopes: str, **limits: int) -> dict[str, Any]:
    """Make a key of the operator's, with limits."""
    return await make(world, *(scopes or ("read", "write")), **limits)


async def test_prompts_count_as_requests(still: World) -> None:
    key = await limited(still, requests_per_minute=2)
    async with served(still, Engine(chunks=(WHOLE,))) as service:
        for left in ("1", "0"):
            answer = await prompt(still, service, key)
            assert (answer.status_code, answer.json()["response"]) == (200, "Paris")
            assert limits_of(answer)["remaining-requests"] == left
        refused = await prompt(still, service, key)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
        assert refused.headers["retry-after-ms"] == "30000"
        assert "may ask 2 requests a minute" in refused.json()["detail"]
        streamed = await prompt(still, service, key, stream=True)
        assert (streamed.status_code, streamed.headers["content-type"]) == (429, "application/json")
        assert (await prompt(still, service)).status_code == 200, "the operator needs no key, and has no limits"


async def test_lists_of_models_count_as_requests_too(still: World) -> None:
    key = await limited(still, requests_per_minute=1, tokens_per_minute=100)
    models = b'{"data": [{"id": "dummy"}]}'
    async with served(still, Engine(chunks=(models,))) as service:
        answers = [await still.get(f"{VLLM}/{service}/models", headers=bearer(key["secret"])) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[0].json()["models"] == ["dummy"]
    assert limits_of(answers[1])["remaining-tokens"] == "100"


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_tokens_are_as_the_engine_counts_them(still: World, *, is_streamed: bool) -> None:
    key = await limited(still, tokens_per_minute=1000)
    kind = "text/event-stream" if is_streamed else "application/json"
    async with served(still, Engine(content_type=kind, chunks=BITS if is_streamed else (WHOLE,))) as service:
        answer = await prompt(still, service, key, stream=is_streamed)
        assert "Paris" in answer.text
        told = int(limits_of(answer)["remaining-tokens"])
        assert 800 < told < 850, "what it allows, and the estimate of its prompt, are set aside at first"
        assert 700 < int(limits_of(await prompt(still, service, key))["remaining-tokens"]) < 750, "100 was taken"


async def test_a_prompt_is_one_request_where_the_model_has_no_template(still: World) -> None:
    """An engine is asked twice for it. What the refused one took is nothing."""
    key = await limited(still, requests_per_minute=10, tokens_per_minute=1000)
    engine = Engine(status=400, chunks=(NO_TEMPLATE,))
    async with served(still, engine) as service:
        answer = await prompt(still, service, key)
        assert len(engine.bodies) == 2
        assert answer.json()["error"] == "vLLM returned 400"
        engine.status, engine.chunks = 200, (WHOLE,)
        answer = await prompt(still, service, key)
    assert limits_of(answer)["remaining-requests"] == "8"
    assert int(limits_of(answer)["remaining-tokens"]) > 1000 - 170, "the refused ones took no tokens"


async def test_what_no_engine_answered_costs_nothing(still: World) -> None:
    key = await limited(still, requests_per_minute=1)
    service = await still.create()
    await still.observe(service, available=True, reason="AsWanted")
    await still.endpoint(service, "127.0.0.1", 1, token=TOKENS[0], door=key_id())
    for is_streamed in (False, True, False):
        answer = await prompt(still, service, key, stream=is_streamed)
        assert (answer.status_code, "Service not available" in answer.text) == (200, True)
    models = await still.get(f"{VLLM}/{service}/models", headers=bearer(key["secret"]))
    assert models.json()["error"] == "Service not available"


async def test_who_leaves_a_stream_is_answered_no_longer(still: World) -> None:
    key = await limited(still, requests_at_once=1, tokens_per_minute=1000)
    engine = Engine(content_type="text/event-stream", chunks=BITS * 3, holds=asyncio.Event())
    ledger = Ledger(still.settings.state_dir / "limits")

    def used() -> tuple[int, int]:
        account = ledger.look(key["id"], KeyLimits(tokens_per_minute=1000))
        return account.at_once, account.tokens // MINUTE

    async with served(still, engine) as service:
        path, body = f"{VLLM}/{service}/prompt", {"prompt": "hi", "stream": True}
        async with still.listen(path, body=body, key=key["secret"]) as client:
            assert (await client.next()).data == {"text": "Paris"}
            assert client.headers["x-ratelimit-limit-tokens"] == "1000"
            assert used()[0] == 1
            assert (await prompt(still, service, key)).status_code == 429
        await until(lambda: used()[0] == 0 and engine.open == 0)
        assert 1 <= used()[1] < 30
    ledger.close()


async def test_a_stream_that_nobody_begins_with_is_answered_no_longer(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client may leave between the answer's head and its first event; then nobody asks for that."""
    key = await limited(still, requests_at_once=1)

    async with served(still, Engine(chunks=(WHOLE,))) as service:
        with monkeypatch.context() as patched:
            patched.setattr("api.http.routes.vllm.event_stream", lambda *_, **__: JsonResponse({}))
            assert (await prompt(still, service, key, stream=True)).json() == {}

        async def is_free() -> bool:
            gc.collect()
            return (await prompt(still, service, key)).status_code == 200

        await until(is_free)


async def test_prompts_wait_in_the_queue_of_their_service(folder: Path, waiting: Callable[[], int]) -> None:
    engine = Engine(chunks=(WHOLE,), holds=asyncio.Event())
    flags = {"gateway__queue_seconds": LONG, "gateway__in_flight": "1", "gateway__queue_length": "2"}
    async with opened(folder, **flags) as world, served(world, engine) as service:
        key, asking = await limited(world, requests_per_minute=10), [asyncio.create_task(chat(world))]
        await until(lambda: len(engine.bodies) == 1)
        asking.append(asyncio.create_task(prompt(world, service, key)))
        await until(lambda: waiting() == 1)
        refused = await prompt(world, service, key)
        assert refused.status_code == 429
        assert "of those that wait are this key's" in refused.json()["detail"]
        assert refused.headers["retry-after"] == "2"
        assert len(engine.bodies) == 1
        assert engine.holds is not None
        engine.holds.set()
        first, second = await asyncio.gather(*asking)
        assert (first.status_code, second.json()["response"]) == (200, "Paris")
        assert limits_of(second)["remaining-requests"] == "9"


async def test_a_prompt_that_waits_too_long_is_told(folder: Path) -> None:
    engine = Engine(chunks=(WHOLE,), holds=asyncio.Event())
    async with (
        opened(folder, gateway__queue_seconds="0.1", gateway__in_flight="1") as world,
        served(world, engine) as service,
    ):
        asking = asyncio.create_task(prompt(world, service))
        await until(lambda: len(engine.bodies) == 1)
        for path in (f"{VLLM}/{service}/prompt", f"{VLLM}/{service}/prompt?stream=true"):
            refused = await world.post(path, {"prompt": "hi"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert "is busy: 1 replicas answer 1 requests each" in refused.json()["detail"]
            assert refused.json()["request_id"] == refused.headers["x-request-id"]
        assert engine.holds is not None
        engine.holds.set()
        assert (await asking).json()["response"] == "Paris"


async def test_who_leaves_the_queue_frees_the_place_and_pays_nothing(folder: Path, waiting: Callable[[], int]) -> None:
    engine = Engine(chunks=(WHOLE,), holds=asyncio.Event())
    flags = {"gateway__queue_seconds": LONG, "gateway__in_flight": "1", "gateway__queue_length": "1"}
    async with opened(folder, **flags) as world, served(world, engine) as service:
        key = await limited(world, requests_per_minute=1)
        asking = asyncio.create_task(chat(world))
        await until(lambda: len(engine.bodies) == 1)
        for _ in range(3):
            left = asyncio.Event()
            leaving = asyncio.create_task(ask_and_leave(world, service, key, left))
            await until(lambda: waiting() == 1)
            left.set()
            await leaving
            assert waiting() == 0
        assert engine.holds is not None
        engine.holds.set()
        await asking
        assert (await prompt(world, service, key)).status_code == 200


async def ask_and_leave(world: World, service: str, key: dict[str, Any], left: asyncio.Event) -> None:
    body: list[bytes] = [b'{"prompt": "hi"}']

    async def receive() -> dict[str, Any]:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    path = f"{VLLM}/{service}/prompt"
    headers = [(b"host", b"127.0.0.1:8001"), (b"authorization", f"Bearer {key['secret']}".encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 2), "server": ("127.0.0.1", 8001),
    }  # fmt: skip
    await world._served(scope, receive, send)


async def test_what_waited_goes_to_the_replicas_that_are_there_then(folder: Path, waiting: Callable[[], int]) -> None:
    """The one that was ready when it came may have been rolled meanwhile."""
    former, successor = Engine(chunks=(WHOLE,), holds=asyncio.Event()), Engine(chunks=(WHOLE,))
    async with (
        opened(folder, gateway__queue_seconds=LONG, gateway__in_flight="1") as world,
        served(world, former) as service,
        listening(successor.serve, door_context(TOKENS[1])) as port,
    ):
        asking = [asyncio.create_task(prompt(world, service))]
        await until(lambda: len(former.bodies) == 1)
        asking.append(asyncio.create_task(prompt(world, service)))
        await until(lambda: waiting() == 1)
        async with world.database.write() as connection:
            await connection.execute(update(EndpointRow).values(state="unready"))
        await add(world, port, replica=1, service=service)
        assert (await asking[1]).json()["response"] == "Paris"
        assert (len(former.bodies), len(successor.bodies)) == (1, 1)
        assert former.holds is not None
        former.holds.set()
        await asking[0]

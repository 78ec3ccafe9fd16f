"""Limits of keys at the gateway: what is let through, what is told, and what costs nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_world import World, opened
from openai import AsyncOpenAI, RateLimitError
from sqlalchemy import update
from test_api_keys import KEYS, bearer, make
from test_gateway import Engine, known, served, until

from api.contract.tables import ApiKeyRow
from api.gateway.admission import duration
from api.gateway.ledger import Ledger
from api.gateway.limits import MINUTE
from api.web.key_limits import KeyLimits

CHAT = "/v1/chat/completions"
USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 70}}).encode()


@pytest.fixture
async def still(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A world in which the ledger's time stands still."""
    now = 10**12
    monkeypatch.setattr("api.gateway.ledger.time.monotonic_ns", lambda: now * 1000)
    yield world


async def asked(world: World, key: dict[str, Any], **more: Any) -> httpx.Response:
    return await world.post(CHAT, {"model": "dummy", "messages": [], **more}, headers=bearer(key["secret"]))


def limits_of(answer: httpx.Response) -> dict[str, str]:
    return {name.removeprefix("x-ratelimit-"): value for name, value in answer.headers.items() if "ratelimit" in name}


async def test_requests_a_minute(still: World) -> None:
    engine, key = Engine(), await make(still, requests_per_minute=3)
    async with served(still, engine):
        for left, reset in ((2, "20s"), (1, "40s"), (0, "1m0s")):
            answer = await asked(still, key)
            assert answer.status_code == 200
            told = {"limit-requests": "3", "remaining-requests": str(left), "reset-requests": reset}
            assert limits_of(answer) == told
        for _ in range(5):
            refused = await asked(still, key)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "20")
            assert refused.headers["retry-after-ms"] == "20000"
            assert limits_of(refused) == told
            error = refused.json()["error"]
            assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
            assert "3 requests a minute" in error["message"]
    assert len(engine.heads) == 3


async def test_it_passes_again_when_that_was_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10**15]
    monkeypatch.setattr("api.gateway.ledger.time.monotonic_ns", lambda: now[0])
    key = await make(world, requests_per_minute=1000)
    async with served(world, Engine()):
        for _ in range(1000):
            assert (await asked(world, key)).status_code == 200
        refused = await asked(world, key)
        wait = int(refused.headers["retry-after-ms"])
        assert (wait, refused.headers["retry-after"]) == (60, "1")
        now[0] += (wait - 1) * 10**6
        assert (await asked(world, key)).status_code == 429
        now[0] += 10**6
        assert (await asked(world, key)).status_code == 200


async def test_anthropics_clients_are_told_in_their_form(still: World) -> None:
    key = await make(still, requests_per_minute=1)
    async with served(still, Engine()):
        for status in (200, 429):
            answer = await still.post("/v1/messages", {"model": "dummy"}, headers={"x-api-key": key["secret"]})
            assert answer.status_code == status
    assert answer.json()["error"]["type"] == "rate_limit_error"


async def test_tokens_are_counted_as_the_engine_says(still: World) -> None:
    key = await make(still, tokens_per_minute=250)
    async with served(still, Engine(chunks=(USAGE,))):
        for status, left in ((200, "250"), (200, "150"), (200, "50"), (429, "0")):
            answer = await asked(still, key)
            assert answer.status_code == status
            assert int(left) - 12 <= int(limits_of(answer)["remaining-tokens"]) <= int(left)
    assert answer.headers["retry-after"] in ("14", "15"), "a debt of 50 and the estimate, at 250 a minute"
    assert "250 tokens a minute" in answer.json()["error"]["message"]


async def test_tokens_of_a_stream_and_of_who_leaves_it(still: World) -> None:
    key = await make(still, tokens_per_minute=1000)
    chunks = (b"data: 1\n\n", b"data: 2\n\n")
    engine = Engine(content_type="text/event-stream", chunks=chunks, holds=asyncio.Event())
    ledger = Ledger(still.settings.state_dir / "limits")

    def used() -> tuple[int, int]:
        account = ledger.look(key["id"], KeyLimits(tokens_per_minute=1000))
        return account.at_once, account.tokens // MINUTE

    async with served(still, engine):
        body = {"model": "dummy", "stream": True, "max_tokens": 500}
        async with still.listen(CHAT, body=body, key=key["secret"]) as client:
            await client.next()
            assert used()[0] == 1
            assert used()[1] >= 500
            assert client.headers["x-ratelimit-remaining-tokens"] == str(1000 - used()[1])
        await until(lambda: used()[0] == 0)
        assert 1 <= used()[1] < 30
    ledger.close()


async def test_a_request_that_may_take_more_than_is_left_waits(still: World) -> None:
    key = await make(still, tokens_per_minute=600)
    async with served(still, Engine(chunks=(USAGE,))):
        assert (await asked(still, key, max_tokens=5000)).status_code == 200
        assert (await asked(still, key, max_tokens=450)).status_code == 200
        refused = await asked(still, key, max_tokens=450)
        assert refused.status_code == 429
        assert (await asked(still, key)).status_code == 200


async def test_what_runs_no_model_takes_no_tokens(still: World) -> None:
    key = await make(still, tokens_per_minute=100, requests_per_minute=10)
    async with served(still, Engine(chunks=(USAGE,))):
        for _ in range(5):
            answer = await still.post(
                "/tokenize", {"model": "dummy", "prompt": "x" * 99}, headers=bearer(key["secret"])
            )
    assert (limits_of(answer)["remaining-tokens"], limits_of(answer)["remaining-requests"]) == ("100", "5")


async def test_requests_at_a_time(world: World) -> None:
    key, holds = await make(world, requests_at_once=2), asyncio.Event()
    engine = Engine(content_type="text/event-stream", chunks=(b"data: 1\n\n",) * 2, holds=holds)
    body = {"model": "dummy", "stream": True}
    async with served(world, engine):
        async with world.listen(CHAT, body=body, key=key["secret"]), world.listen(CHAT, body=body, key=key["secret"]):
            refused = await asked(world, key)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "2 requests at a time" in refused.json()["error"]["message"]
        holds.set()

        async def passes() -> bool:
            return (await asked(world, key)).status_code == 200

        await until(passes)


@pytest.mark.parametrize("model", ["nope", "dummy"])
async def test_what_no_engine_answered_costs_nothing(still: World, model: str) -> None:
    key = await make(still, requests_per_minute=1, tokens_per_minute=100)
    if model == "dummy":
        service = await still.create()
        await still.observe(service, available=False, reason="Starting")
        await known(still, service, "starting")
    for _ in range(3):
        answer = await asked(still, key, model=model, max_tokens=70)
        assert answer.status_code in (404, 503)


async def test_what_an_engine_refused_is_a_request_and_no_tokens(still: World) -> None:
    key = await make(still, requests_per_minute=10, tokens_per_minute=100)
    async with served(still, Engine(status=400, chunks=(USAGE,))):
        for _ in range(3):
            answer = await asked(still, key, max_tokens=70)
    assert (answer.status_code, limits_of(answer)["remaining-requests"]) == (400, "7")
    assert int(limits_of(answer)["remaining-tokens"]) >= 10


async def test_keys_without_limits_are_told_of_none_and_write_nothing(world: World) -> None:
    key = await make(world)
    async with served(world, Engine()):
        assert limits_of(await asked(world, key)) == {}
    assert not (world.settings.state_dir / "limits").exists()


async def test_a_limit_that_is_changed_elsewhere_is_heard_of(anywhere: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.gateway.key_reader.LOOK_SECONDS", 3600.0)
    key = await make(anywhere)

    async def told() -> bool:
        answer = await asked(anywhere, key)
        return limits_of(answer).get("limit-requests") == "1000"

    async with served(anywhere, Engine()):
        async with anywhere.database.write() as connection:
            await connection.execute(update(ApiKeyRow).values(requests_per_minute=1000))
        await until(told)


async def test_limits_that_can_not_be_counted(world: World) -> None:
    key, unlimited = await make(world, requests_per_minute=1), await make(world)
    (world.settings.state_dir / "limits").write_text("in the way")
    async with served(world, Engine()):
        answer = await asked(world, key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "limits_unavailable")
        assert (await asked(world, unlimited)).status_code == 200


async def test_two_programs_on_one_host_count_together(folder: Path) -> None:
    async with opened(folder) as one, opened(folder) as two:
        key = await make(one, requests_per_minute=10)
        async with served(one, Engine()) as service:
            await known(two, service, replicas=1)

            async def is_known() -> bool:
                return (await two.get("/v1/models", headers=bearer(key["secret"]))).status_code == 200

            await until(is_known)
            passed = [(await asked((one, two)[number % 2], key)).status_code for number in range(14)]
    assert passed.count(200) in (10, 11), "one more where six seconds went by meanwhile"
    assert passed[:10] == [200] * 10


async def test_openais_client_understands(still: World) -> None:
    key = await make(still, requests_per_minute=1)
    client = AsyncOpenAI(
        base_url="http://127.0.0.1:8001/v1", api_key=key["secret"], http_client=still.client, max_retries=0
    )
    async with served(still, Engine(chunks=(b'{"id": "x", "choices": [], "object": "chat.completion"}',))):
        await client.chat.completions.create(model="dummy", messages=[])
        with pytest.raises(RateLimitError) as refusal:
            await client.chat.completions.create(model="dummy", messages=[])
    assert refusal.value.code == "rate_limit_exceeded"


async def test_limits_are_shown_and_a_rotated_key_has_them(world: World) -> None:
    limits = {"requests_per_minute": 60, "tokens_per_minute": 10**9, "requests_at_once": 4}
    made = await make(world, **limits)
    rotated = (await world.post(f"{KEYS}/{made['id']}/rotate", {})).json()
    for key in (made, rotated, *(await world.get(KEYS)).json()):
        assert {limit: key[limit] for limit in limits} == limits
    assert (await make(world))["requests_per_minute"] is None


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(0, "0s"), (1, "1ms"), (120_000, "120ms"), (999_001, "1s"), (8_640_000, "8.64s"), (60 * 10**6, "1m0s"),
     (360 * 10**6, "6m0s"), (3_661_500_000, "1h1m1.5s")],
)  # fmt: skip
def test_times_are_written_as_openai_writes_them(microseconds: int, text: str) -> None:
    assert duration(microseconds) == text
    assert re.fullmatch(r"(\d+h)?(\d+m)?[\d.]+m?s", text)

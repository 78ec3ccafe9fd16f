"""Signed keys: what they open, for how long, and with what they end."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from api_world import World
from hypothesis import given
from hypothesis import strategies as st
from test_api_keys import KEYS, bearer, change, make
from test_gateway import until

from api.web.principal import OPERATOR, KeyScope, Principal
from api.web.signed_key import LONGEST_LIFE, PREFIX, Signed, read_signed, sign

TOKENS = "/api/v1/tokens"
ALICE = Principal("k1", frozenset(KeyScope), owner="alice")


async def token(world: World, *scopes: str, key: str | None = None, **rest: Any) -> str:
    body = {**({"scopes": list(scopes)} if scopes else {}), **rest}
    answer = await world.post(TOKENS, body, headers={} if key is None else bearer(key))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["secret"])


def read_until(text: str) -> float:
    content = text.removeprefix(PREFIX).partition(".")[0]
    return float(json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))["until"])


async def status(world: World, secret: str, path: str = "/v1/models") -> int:
    return (await world.get(path, headers=bearer(secret))).status_code


@given(st.frozensets(st.sampled_from(KeyScope)), st.floats(0, 1e11))
def test_what_is_signed_is_read(scopes: frozenset[KeyScope], until: float) -> None:
    text = sign(ALICE, scopes, until, b"one")
    found = read_signed(text, (b"other", b"one"))
    assert found == Signed(scopes=tuple(sorted(scopes)), until=until, key="k1", owner="alice")
    assert read_signed(text, (b"other",)) is None
    assert read_signed(text, ()) is None


@given(st.text() | st.text("aift_.=-AZ09"))
def test_whatever_is_sent(text: str) -> None:
    assert read_signed(text, (b"one",)) is None
    assert read_signed(PREFIX + text, (b"one",)) is None


@given(st.data())
def test_a_letter_that_is_changed_is_noticed(data: st.DataObject) -> None:
    text = sign(ALICE, (KeyScope.INFER,), 1.0, b"one")
    place = data.draw(st.integers(len(PREFIX), len(text) - 2))  # of the last letter some bits mean nothing
    letter = data.draw(st.sampled_from("AZaz09-_.").filter(lambda one: one != text[place]))
    assert read_signed(text[:place] + letter + text[place + 1 :], (b"one",)) is None


async def test_a_token_asks_models_for_hours(world: World) -> None:
    answer = (await world.post(TOKENS, b"")).json()
    assert answer["scopes"] == ["infer"]
    world.uid = 1

    async def is_read() -> bool:
        return await status(world, answer["secret"]) != 503

    await until(is_read)
    assert await status(world, answer["secret"]) == 200
    assert await status(world, answer["secret"], "/api/v1/services") == 403
    forged = sign(OPERATOR, KeyScope, time.time() + 1000, b"a key of somebody else's")
    refusal = await world.get("/v1/models", headers=bearer(forged))
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "body",
    [{"expires_in": LONGEST_LIFE + 1}, {"expires_in": 0}, {"expires_in": "1h"}, {"scopes": []}, {"scopes": ["root"]},
     {"owner": "alice"}, []],
)  # fmt: skip
async def test_what_is_no_token(world: World, body: Any) -> None:
    assert (await world.post(TOKENS, body)).status_code == 422


async def test_it_ends_by_itself(world: World) -> None:
    secret = await token(world, expires_in=1)
    ends = read_until(secret)
    async with world.listen("/api/v1/watch", key=await token(world, "read", expires_in=1)) as client:
        await client.until(client.ended.is_set)
    assert time.time() >= ends
    answer = await world.get("/v1/models", headers=bearer(secret))
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "expired_api_key")


async def test_it_opens_no_more_than_who_asked_for_it(world: World) -> None:
    made = await make(world, "infer", "read", owner="alice", project="p", models=["chat"])
    secret = await token(world, "read", "infer", key=made["secret"])
    world.uid = 1
    assert await status(world, secret, "/api/v1/services") == 200
    assert await status(world, secret, KEYS) == 403
    answer = await world.post("/v1/chat/completions", {"model": "other"}, headers=bearer(secret))
    assert answer.json()["error"]["code"] == "model_not_allowed"
    await change(world, made["id"], scopes=["infer"])

    async def is_narrowed() -> bool:
        return await status(world, secret, "/api/v1/services") == 403

    await until(is_narrowed)
    refused = await world.post(TOKENS, {"scopes": ["write"]}, headers=bearer(made["secret"]))
    assert (refused.status_code, "scope write" in refused.text) == (403, True)
    less = await token(world, "infer", key=secret)
    refused = await world.post(TOKENS, {"scopes": ["read"]}, headers=bearer(less))
    assert refused.status_code == 403


async def test_a_token_makes_none_that_outlives_it(world: World) -> None:
    short = await token(world, expires_in=100)
    answer = (await world.post(TOKENS, {"expires_in": 1000}, headers=bearer(short))).json()
    assert read_until(answer["secret"]) == read_until(short)


async def test_it_ends_with_the_key_with_which_it_was_asked_for(world: World) -> None:
    made = await make(world, "infer", "read")
    secret = await token(world, "read", key=made["secret"])
    assert await status(world, secret, "/api/v1/services") == 200
    async with world.listen("/api/v1/watch", key=secret) as client:
        await world.delete(f"{KEYS}/{made['id']}")
        await client.until(client.ended.is_set)
    answer = await world.get("/api/v1/services", headers=bearer(secret))
    assert (answer.status_code, "was revoked" in answer.text) == (401, True)


async def test_what_the_operators_token_makes_is_the_operators(world: World) -> None:
    secret = await token(world, "write", "read")
    world.uid = 1
    asked = {"recipe_name": "inference/engine", "name": "mine"}
    made = (await world.post("/api/v1/services", asked, headers=bearer(secret))).json()
    assert (made["owner"], made["access"]) == (None, "owner"), "without publish nothing is published"
    assert await status(world, secret, "/api/v1/services/mine") == 200

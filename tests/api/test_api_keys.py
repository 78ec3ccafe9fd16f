"""Keys of people: made, shown once, checked in memory, revoked at once; and who may do what with which."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_world import World, new_app, settings_for
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, insert, update
from test_gateway import TOKENS, Engine, add, chat, known, served, until

import api.gateway.key_reader
from api.contract.database import Database
from api.contract.tables import ApiKeyRow
from api.http.key_requests import read_grace, read_key_request
from api.web.errors import InvalidError
from api.web.key_secret import PREFIX, digest_of, is_whole, new_secret, with_checksum
from tests.doors import door_context, listening

KEYS = "/api/v1/keys"
STRANGER = 1
KEY = {"name": "x", "owner": "x", "start": "aif_", "scopes": ["infer"], "created_at": 1.0}
"""The other columns of a key."""
WRONG = with_checksum(PREFIX + "A" * 43)[:-1] + "-"


@pytest.fixture
async def keyed(folder: Path) -> AsyncIterator[World]:
    """The API with an administrator's key."""
    settings = settings_for(folder)
    database = Database(settings.database_url)
    world = World(settings, database, new_app(settings, database, key="the-key"))
    async with world.running():
        yield world
    await database.close()


async def make(world: World, *scopes: str, **rest: Any) -> dict[str, Any]:
    asked = {"name": "laptop", "scopes": list(scopes) or ["infer"], **rest}
    answer = await world.post(KEYS, asked)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def change(world: World, key_id: str, **columns: Any) -> None:
    """Change a key as another process does."""
    async with world.database.write() as connection:
        await connection.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(**columns))


def refused(world: World, key: str) -> Callable[[], Any]:
    async def is_refused() -> bool:
        return (await world.get("/v1/models", headers=bearer(key))).status_code == 401

    return is_refused


# Making them


async def test_a_key_is_shown_once(world: World) -> None:
    made = await make(world, "infer", "read", owner="alice", models=["dummy"])
    assert is_whole(made["secret"])
    assert made["secret"].startswith(made["start"])
    assert (made["name"], made["owner"], made["state"]) == ("laptop", "alice", "active")
    assert (made["scopes"], made["models"]) == (["infer", "read"], ["dummy"])
    listed = await world.get(KEYS)
    assert listed.json() == [{name: value for name, value in made.items() if name != "secret"}]
    assert made["secret"] not in listed.text


async def test_what_is_left_out(world: World) -> None:
    made = (await world.post(KEYS, {"name": "laptop"})).json()
    assert (made["owner"], made["scopes"], made["models"]) == ("laptop", ["infer"], None)
    assert made["created_at"][:10] < made["expires_at"][:10]
    assert (await make(world, expires_in=None))["expires_at"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 161}, "name"),
        ({"name": "x", "owner": 1}, "owner"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["infer", "root"]}, "scopes"),
        ({"name": "x", "scopes": "infer"}, "scopes"),
        ({"name": "x", "models": []}, "models"),
        ({"name": "x", "models": [1]}, "models"),
        ({"name": "x", "model": ["qwen"]}, "model"),
        ({"name": "x", "expires_in": 0}, "expires_in"),
        ({"name": "x", "expires_in": True}, "expires_in"),
        ({"name": "x", "expires_in": 1e300}, "expires_in"),
        ({"name": "x", "expires_in": "90d"}, "expires_in"),
    ],
)
async def test_what_is_no_key(world: World, body: Any, field: str) -> None:
    answer = await world.post(KEYS, body)
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", field]]
    assert (await world.get(KEYS)).json() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(["name", "owner", "scopes", "models", "expires_in", "grace", "x"]), JSON))
def test_whatever_is_asked_for_is_read_or_refused(body: dict[str, Any]) -> None:
    for read in (read_key_request, read_grace):
        try:
            read(json.dumps(body).encode())
        except InvalidError as error:
            assert error.status == 422


async def test_no_secret_is_kept_or_logged(keyed: World, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = await make(keyed, "admin")
    rotated = (await keyed.post(f"{KEYS}/{made['id']}/rotate", {"grace": 60}, headers=bearer(made["secret"]))).json()
    for secret in (made["secret"], rotated["secret"]):
        await keyed.get("/v1/models", headers=bearer(secret))
        await keyed.get("/api/v1/services", headers=bearer(secret[:-1]))
        await keyed.get("/v1/models", headers={"x-api-key": secret})
        files = [file.read_bytes() for file in (folder / "state").iterdir() if file.is_file()]
        assert any(digest_of(secret).encode() in content for content in files)
        assert not any(secret[10:40].encode() in content for content in files)
        assert secret[10:40] not in caplog.text
    assert made["id"] in caplog.text


# Who may do what


async def test_who_sends_a_key_is_judged_by_it_the_operator_too(world: World) -> None:
    """So is what comes through a proxy that runs as the operator."""
    made = await make(world, "infer")
    for key, status in ((made["secret"], 403), (new_secret(), 401), (WRONG, 401)):
        assert (await world.get("/api/v1/services", headers=bearer(key))).status_code == status
    assert (await world.get("/api/v1/services", headers=bearer("unused"))).status_code == 200


async def test_health_is_told_to_who_may_read(world: World) -> None:
    world_keys = [(await make(world, scope))["secret"] for scope in ("infer", "read")]
    world.uid = STRANGER
    infer, read = [(await world.get("/health", headers=bearer(key))).json() for key in world_keys]
    assert infer == {"status": "healthy"}
    assert read["keys"]["last_reading"] < 60
    assert (await world.get("/health", headers=bearer(WRONG))).json() == {"status": "healthy"}


async def test_the_guard_asks_no_page_of_another_site_for_more_than_the_key(world: World) -> None:
    made = await make(world, "read")
    headers = {"Host": "api.site.example", "Origin": "https://ui.site.example", **bearer(made["secret"])}
    assert (await world.get("/api/v1/services", headers=headers)).status_code == 200


async def test_anthropics_clients_send_their_key_elsewhere(keyed: World) -> None:
    made = await make(keyed, "infer", "read")
    keyed.uid = STRANGER
    for key in (made["secret"], "the-key"):
        answer = await keyed.post("/v1/messages", {"model": "none"}, headers={"x-api-key": key})
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
        assert (await keyed.get("/api/v1/services", headers={"x-api-key": key})).status_code == 401
    wrong = await keyed.post("/v1/messages", {"model": "none"}, headers={"x-api-key": WRONG})
    assert (wrong.status_code, wrong.json()["type"]) == (401, "error")
    assert wrong.json()["error"]["type"] == "authentication_error"
    assert "checksum" in wrong.json()["error"]["message"]


async def test_a_key_reaches_no_engine(world: World) -> None:
    engine, made = Engine(), await make(world)
    async with served(world, engine):
        for headers in (bearer(made["secret"]), {"x-api-key": made["secret"]}):
            assert (await world.post("/v1/chat/completions", {"model": "dummy"}, headers=headers)).status_code == 200
    assert len(engine.heads) == 2
    assert not any(made["secret"] in head for head in engine.heads)


async def test_a_key_asks_for_its_models_and_sees_no_others(world: World) -> None:
    engine, made = Engine(), await make(world, models=["chat", "later"])
    headers = bearer(made["secret"])
    async with served(world, engine, name="chat"):
        models = (await world.get("/v1/models", headers=headers)).json()["data"]
        assert [model["id"] for model in models] == ["chat"]
        assert (await world.get("/v1/models/chat", headers=headers)).status_code == 200
        assert (await world.get("/v1/models/dummy", headers=headers)).status_code == 404
        assert (await world.post("/v1/chat/completions", {"model": "chat"}, headers=headers)).status_code == 200
        for model in ("dummy", "nowhere"):
            answer = await world.post("/v1/chat/completions", {"model": model}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
            assert "chat, later" in answer.json()["error"]["message"]
        messages = await world.post("/v1/messages", {"model": "dummy"}, headers=headers)
        assert messages.json()["error"]["type"] == "permission_error"
        assert len((await world.get("/v1/models")).json()["data"]) == 2
    assert len(engine.heads) == 1


async def test_a_key_prompts_its_models_alone(world: World) -> None:
    engine, made = Engine(chunks=(b'{"choices": [{"text": "ok"}]}',)), await make(world, "write", models=["chat"])
    headers = bearer(made["secret"])
    async with served(world, engine, name="chat") as chat:
        other = await world.create(name="other")
        for service, model, status in (
            (chat, None, 200),
            (chat, "chat", 200),
            (chat, "dummy", 403),
            (other, None, 403),
        ):
            body = {"prompt": "hi", **({"model": model} if model else {})}
            answer = await world.post(f"/api/v1/vllm/{service}/prompt", body, headers=headers)
            assert answer.status_code == status, answer.text
    assert len(engine.heads) == 2


# Their ends


async def test_what_is_changed_elsewhere_is_heard_at_once(anywhere: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the change feed alone: by itself nothing is looked at for an hour. On both databases."""
    monkeypatch.setattr(api.gateway.key_reader, "LOOK_SECONDS", 3600.0)
    secret = new_secret()

    async def status() -> int:
        return (await anywhere.get("/v1/models", headers=bearer(secret))).status_code

    async def is_good() -> bool:
        return await status() == 200

    async def is_bad() -> bool:
        return await status() == 401

    await anywhere.get("/health")
    async with anywhere.database.write() as connection:
        await connection.execute(insert(ApiKeyRow).values(id="one", digest=digest_of(secret), **KEY))
    await until(is_good)
    for columns in ({"revoked_at": 1.0}, {"expires_at": 1.0}):
        await change(anywhere, "one", **columns)
        await until(is_bad)
        await change(anywhere, "one", **dict.fromkeys(columns))
        await until(is_good)
    async with anywhere.database.write() as connection:
        await connection.execute(delete(ApiKeyRow))
    await until(is_bad)


async def test_what_is_heard_of_without_a_ring(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losing every wake-up costs seconds."""
    monkeypatch.setattr(api.gateway.key_reader, "LOOK_SECONDS", 0.05)
    secret = new_secret()
    async with world.database.write() as connection:
        for event in ("insert", "delete"):
            await connection.exec_driver_sql(f"DROP TRIGGER api_keys_{event}")
        await connection.execute(insert(ApiKeyRow).values(id="one", digest=digest_of(secret), **KEY))

    async def is_good() -> bool:
        return (await world.get("/v1/models", headers=bearer(secret))).status_code == 200

    await until(is_good)
    async with world.database.write() as connection:
        await connection.execute(delete(ApiKeyRow))
    await until(refused(world, secret))


async def test_a_key_that_was_made_or_revoked_here_counts_when_that_is_answered(world: World) -> None:
    for _ in range(20):
        made = await make(world)
        assert (await world.get("/v1/models", headers=bearer(made["secret"]))).status_code == 200
        ended = (await world.delete(f"{KEYS}/{made['id']}")).json()
        assert ended["state"] == "ended"
        assert (await world.get("/v1/models", headers=bearer(made["secret"]))).status_code == 401
    again = (await world.delete(f"{KEYS}/{made['id']}")).json()
    assert again["revoked_at"] == ended["revoked_at"]


async def test_a_running_stream_ends_with_its_key(world: World) -> None:
    engine = Engine(content_type="text/event-stream", chunks=(b"data: 1\n\n",) * 2, holds=asyncio.Event())
    made, other = await make(world), await make(world)
    asked = {"model": "dummy", "stream": True}
    async with (
        served(world, engine),
        world.listen("/v1/chat/completions", body=asked, key=made["secret"]) as client,
        world.listen("/v1/chat/completions", body=asked, key=other["secret"]) as left,
    ):
        await client.next()
        await left.next()
        await change(world, made["id"], revoked_at=1.0)
        await client.until(client.ended.is_set)
        await until(lambda: engine.open == 1)
        assert not client.left.is_set(), "the answer was cut, not ended"
        assert not left.ended.is_set()


async def test_so_does_a_watch_when_the_key_expires(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.gateway.key_reader, "LOOK_SECONDS", 0.05)
    made = await make(world, "read", expires_in=1)
    async with world.listen("/api/v1/watch?after=0", key=made["secret"]) as client:
        await client.until(client.ended.is_set)


async def test_who_has_no_answer_yet_is_told(world: World) -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    made = await make(world)
    async with listening(silent, door_context(TOKENS[0])) as port:
        await known(world, await add(world, port), replicas=1)
        asking = asyncio.create_task(
            world.post("/v1/chat/completions", {"model": "dummy"}, headers=bearer(made["secret"]))
        )
        await until(asked.is_set)
        await world.delete(f"{KEYS}/{made['id']}")
        answer: httpx.Response = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "revoked_api_key")


async def test_rotated_it_has_a_new_secret_and_the_old_one_a_grace(world: World) -> None:
    made = await make(world, "read", owner="alice", expires_in=1000)
    new = (await world.post(f"{KEYS}/{made['id']}/rotate", {"grace": 1000})).json()
    assert new["id"] != made["id"]
    assert [new[field] for field in ("name", "owner", "scopes", "models")] == ["laptop", "alice", ["read"], None]
    for key in (made, new):
        assert (await world.get("/api/v1/services", headers=bearer(key["secret"]))).status_code == 200
    newest = (await world.post(f"{KEYS}/{new['id']}/rotate", b"")).json()
    states = {key["id"]: key["state"] for key in (await world.get(KEYS)).json()}
    assert states == {made["id"]: "active", new["id"]: "ended", newest["id"]: "active"}
    assert (await world.post(f"{KEYS}/{new['id']}/rotate", b"")).status_code == 404
    assert (await world.delete(f"{KEYS}/{made['id']}")).json()["state"] == "ended"
    assert (await world.post(f"{KEYS}/{newest['id']}/rotate", {"grace": -1})).status_code == 422


# Without the database


async def test_keys_are_refused_once_they_are_too_old(folder: Path) -> None:
    settings = settings_for(folder, gateway__stale_keys="0")
    database = Database(settings.database_url)
    world = World(settings, database, new_app(settings, database))
    async with world.running():
        made = await make(world, "infer", "read")
        for path in ("/v1/models", "/api/v1/services"):
            answer = await world.get(path, headers=bearer(made["secret"]))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "gateway.stale_keys" in answer.text
        assert (await world.get("/v1/models", headers=bearer(WRONG))).status_code == 401
        assert (await chat(world)).status_code == 404
    await database.close()

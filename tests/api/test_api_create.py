"""contract.md: ServiceRequest, ServiceResponse and POST /api/v1/services."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta
from typing import Any

import aiosqlite
import pytest
from api_world import ENGINE, World, new_app, settings_for
from sqlalchemy import select, text

import api.contract.database
from api.contract.configuration import shared_folder
from api.contract.database import Database
from api.contract.tables import Service, UserEvent

SERVICES = "/api/v1/services"


async def test_create(world: World) -> None:
    config = {"max_model_len": 4096, "note": {"who": "me"}}
    answer = await world.post(SERVICES, {"recipe_name": ENGINE, "config": config})
    assert answer.status_code == 200
    service = answer.json()
    assert re.fullmatch(r"[a-z0-9]{8}", service["id"])
    assert service["name"] == f"engine-{service['id']}"
    assert service["recipe_name"] == ENGINE
    assert service["status"] == "pending"
    assert service["config"] == {**config, "nodes": 1}
    made = datetime.fromisoformat(service["created_at"])
    assert made.utcoffset() == timedelta(0)
    assert abs(made.timestamp() - datetime.now().timestamp()) < 10


async def test_what_create_answers_is_what_get_shows(world: World) -> None:
    created = (await world.post(SERVICES, {"recipe_name": "engine", "config": {"replicas": 2}, "name": "mine"})).json()
    assert (await world.get(f"{SERVICES}/{created['id']}")).json() == created
    assert (await world.get(SERVICES)).json() == [created]
    assert created["replicas"] == 2


async def test_config_is_echoed_as_sent_plus_nodes_where_absent(world: World) -> None:
    for config in ({}, {"nodes": 2}, {"resources": {"nodes": 3}}, {"x": [1, 2.5, None, True, "é😀\u2028"]}):
        answer = await world.post(SERVICES, {"recipe_name": ENGINE, "config": config})
        assert answer.json()["config"] == {"nodes": 1, **config}


async def test_the_shown_number_of_nodes_does_not_outweigh_the_recipes(world: World) -> None:
    service = await world.create()
    query = select(Service.config).where(Service.id == service)
    stored = await world.database.read(lambda connection: connection.scalar(query))
    assert stored == {}


@pytest.mark.parametrize("name", ["inference/engine", "engine"])
async def test_recipe_name_is_a_path_a_stem_or_a_name_and_kept_as_sent(world: World, name: str) -> None:
    answer = await world.post(SERVICES, {"recipe_name": name})
    assert (answer.status_code, answer.json()["recipe_name"]) == (200, name)


async def test_recipe_by_the_name_it_gives_itself(world: World) -> None:
    created = (await world.post(SERVICES, {"recipe_name": "hello-world"})).json()
    assert created["name"].startswith("hello-world-")


@pytest.mark.parametrize("name", ["inference/vllm", "inference/vllm-single-node", "inference/vllm-replicas", "vllm"])
@pytest.mark.parametrize("more", [{}, {"config": {}}, {"config": {"environment": {"VLLM_MODEL": "org/model"}}}])
async def test_a_shipped_recipes_bare_name_is_enough(world: World, name: str, more: dict[str, Any]) -> None:
    settings = settings_for(world.settings.state_dir.parent, recipes=str(shared_folder("recipes")))
    own = World(settings, world.database, new_app(settings, world.database))
    async with own.running():
        answer = await own.post(SERVICES, {"recipe_name": name, **more})
    assert (answer.status_code, answer.json()["status"]) == (200, "pending"), answer.text
    assert (answer.json()["recipe_name"], answer.json()["config"]) == (name, {**more.get("config", {}), "nodes": 1})


async def test_unknown_recipe(world: World) -> None:
    answer = await world.post(SERVICES, {"recipe_name": "inference/nope"})
    assert answer.status_code == 404
    assert "inference/nope" in answer.json()["detail"]
    assert (await world.get(SERVICES)).json() == []


async def test_a_recipe_that_does_not_parse(world: World) -> None:
    answer = await world.post(SERVICES, {"recipe_name": "simple/broken"})
    assert answer.status_code == 409
    assert "broken.yaml:5: program" in answer.json()["detail"]


BAD: list[tuple[Any, list[Any], str]] = [
    ({}, ["body", "recipe_name"], "missing"),
    ({"recipe_name": ""}, ["body", "recipe_name"], "string_too_short"),
    ({"recipe_name": " \t\n"}, ["body", "recipe_name"], "string_too_short"),
    ({"recipe_name": 5}, ["body", "recipe_name"], "string_type"),
    ({"recipe_name": None}, ["body", "recipe_name"], "string_type"),
    ({"recipe_name": ["engine"]}, ["body", "recipe_name"], "string_type"),
    ({"recipe_name": "engine", "config": None}, ["body", "config"], "dict_type"),
    ({"recipe_name": "engine", "config": []}, ["body", "config"], "dict_type"),
    ({"recipe_name": "engine", "config": "{}"}, ["body", "config"], "dict_type"),
    ({"recipe_name": "engine", "name": 5}, ["body", "name"], "string_type"),
    ({"recipe_name": "engine", "name": ""}, ["body", "name"], "string_pattern_mismatch"),
    ({"recipe_name": "engine", "name": "Upper"}, ["body", "name"], "string_pattern_mismatch"),
    ({"recipe_name": "engine", "name": "a b"}, ["body", "name"], "string_pattern_mismatch"),
    ({"recipe_name": "engine", "name": "a\n"}, ["body", "name"], "string_pattern_mismatch"),
    ({"recipe_name": "engine", "name": "-a"}, ["body", "name"], "string_pattern_mismatch"),
    ({"recipe_name": "engine", "name": "a" * 64}, ["body", "name"], "string_pattern_mismatch"),
    ({"recipe_name": "engine", "name": "services"}, ["body", "name"], "value_error"),
    ([], ["body"], "dict_type"),
    ("engine", ["body"], "dict_type"),
    (None, ["body"], "dict_type"),
    (b"", ["body"], "missing"),
    (b" \n", ["body"], "missing"),
    (b"{", ["body", 1], "json_invalid"),
    (b'{"recipe_name": engine}', ["body", 16], "json_invalid"),
    (b'{"recipe_name": "engine", "config": {"a": NaN}}', ["body", 42], "json_invalid"),
    (b'{"recipe_name": "engine", "config": {"a": Infinity}}', ["body", 42], "json_invalid"),
    (b'{"recipe_name": "engine", "config": {"a": 1e999}}', ["body", 49], "json_invalid"),
    (b'{"recipe_name": "engine", "config": {"a": "\\ud800"}}', ["body", 52], "json_invalid"),
    (b'{"recipe_name": "\xff"}', ["body", 20], "json_invalid"),
    (b'{"recipe_name": "engine", "config": {"a": %b}}' % (b"9" * 5000), ["body", 5044], "json_invalid"),
    (b'{"recipe_name": "engine", "config": {"a": %b%b}}' % (b"[" * 100, b"]" * 100), ["body", 244], "json_invalid"),
    (b'{"recipe_name": "engine", "config": %b%b}' % (b'{"a":' * 50_000, b"}" * 50_000), ["body"], "json_invalid"),
    ({"recipe_name": "engine", "config": {"note": "a\0b"}}, ["body", "config"], "value_error"),
    ({"recipe_name": "engine", "config": {"a\0b": 1}}, ["body", "config"], "value_error"),
    ({"recipe_name": "engine", "config": {f"key{n}": n for n in range(40_000)}}, ["body", "config"], "value_error"),
    ({"recipe_name": "engine", "config": {"note": "x" * 2**16}}, ["body", "config"], "value_error"),
    ({"recipe_name": "engine", "config": {"max_model_len": 0}}, ["body", "config", "max_model_len"], "value_error"),
    ({"recipe_name": "engine", "config": {"replicas": -1}}, ["body", "config", "replicas"], "value_error"),
    (
        {"recipe_name": "engine", "config": {"resources": {"memory": "lots"}}},
        ["body", "config", "resources", "memory"],
        "value_error",
    ),
    (
        {"recipe_name": "engine", "config": {"extra_args": ["--a", "--host=x"]}},
        ["body", "config", "extra_args", 1],
        "value_error",
    ),
    ({"recipe_name": "engine", "config": {"command": ["sh"]}}, ["body", "config", "command"], "value_error"),
]


@pytest.mark.parametrize(("body", "loc", "kind"), BAD, ids=lambda value: repr(value)[:60])
async def test_bad_bodies(world: World, body: Any, loc: list[Any], kind: str) -> None:
    answer = await world.post(SERVICES, body)
    assert answer.status_code == 422, answer.text
    problem = answer.json()["detail"][0]
    assert problem["loc"][: len(loc)] == loc
    assert problem["type"] == kind
    assert problem["msg"]
    assert (await world.get(SERVICES)).json() == []


async def test_words_that_clients_know_from_pydantic(world: World) -> None:
    assert (await world.post(SERVICES, {"config": None})).json() == {
        "detail": [
            {"loc": ["body", "recipe_name"], "msg": "Field required", "type": "missing", "input": {"config": None}},
            {
                "loc": ["body", "config"],
                "msg": "Input should be a valid dictionary",
                "type": "dict_type",
                "input": None,
            },
        ]
    }
    blank = (await world.post(SERVICES, {"recipe_name": ""})).json()["detail"]
    assert blank == [
        {
            "loc": ["body", "recipe_name"],
            "msg": "String should have at least 1 character",
            "type": "string_too_short",
            "input": "",
            "ctx": {"min_length": 1},
        }
    ]
    number = (await world.post(SERVICES, {"recipe_name": 5})).json()["detail"][0]
    assert (number["msg"], number["input"]) == ("Input should be a valid string", 5)
    malformed = (await world.post(SERVICES, b"{")).json()["detail"][0]
    assert (malformed["msg"], malformed["input"]) == ("JSON decode error", {})
    assert malformed["ctx"]["error"]


async def test_a_refusal_says_what_to_change(world: World) -> None:
    answer = await world.post(SERVICES, {"recipe_name": "engine", "config": {"time_limit": "soon"}})
    problem = answer.json()["detail"][0]
    assert problem["loc"] == ["body", "config", "time_limit"]
    assert problem["input"] == "soon"
    assert "HH:MM:SS" in problem["msg"]


async def test_other_keys_are_ignored(world: World) -> None:
    older = {"recipe_name": ENGINE, "nodes": 4, "cpus": "many", "memory": None, "time": "soon", "zzz": [1]}
    answer = await world.post(SERVICES, older)
    assert (answer.status_code, answer.json()["config"]) == (200, {"nodes": 1})


async def test_a_name_of_the_users_own(world: World) -> None:
    answer = await world.post(SERVICES, {"recipe_name": ENGINE, "name": "llama-3"})
    assert answer.json()["name"] == "llama-3"
    again = await world.post(SERVICES, {"recipe_name": ENGINE, "name": "llama-3"})
    assert again.status_code == 409
    assert "llama-3" in again.json()["detail"]


async def test_a_name_is_unique_among_the_living_only(world: World) -> None:
    first = await world.create(name="llama-3")
    await world.delete(f"{SERVICES}/{first}")
    second = await world.create(name="llama-3")
    assert second != first


async def test_name_null_is_a_name_left_out(world: World) -> None:
    created = (await world.post(SERVICES, {"recipe_name": ENGINE, "name": None})).json()
    assert created["name"] == f"engine-{created['id']}"


async def test_of_many_that_want_one_name_one_gets_it(world: World) -> None:
    answers = await asyncio.gather(
        *(world.post(SERVICES, {"recipe_name": ENGINE, "name": "only-one"}) for _ in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19


async def test_what_the_user_did_is_recorded(world: World) -> None:
    service = await world.create(name="mine")
    await world.delete(f"{SERVICES}/mine")
    await world.delete(f"{SERVICES}/mine")
    query = select(UserEvent.service_id, UserEvent.action).order_by(UserEvent.id)
    rows = await world.database.read(lambda connection: connection.execute(query).all())
    assert [tuple(row) for row in rows] == [(service, "create"), (service, "delete")]


async def test_largest_body(world: World) -> None:
    answer = await world.post(SERVICES, {"recipe_name": ENGINE, "note": "x" * 1_000_000})
    assert answer.status_code == 200
    answer = await world.post(SERVICES, {"recipe_name": ENGINE, "note": "x" * 1_100_000})
    assert answer.status_code == 413
    assert "1 MiB" in answer.json()["detail"]


async def test_a_body_without_a_length_is_limited_too(world: World) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 65_536

    answer = await world.client.post(SERVICES, content=chunks())
    assert answer.status_code == 413


HOSTILE = [
    "'; DROP TABLE services; --",
    '"quoted" \\ back',
    "$(touch /tmp/x) `id` ${HOME}",
    "--leading-dashes",
    "line\nbreak\r\n\ttab",
    "x" * 10_000,
    "zero\u200bwidth \u202e right to left",
    "😀 𝒳 é e\u0301 ß ﷽",
    "</script><script>alert(1)</script>",
    "%00%0a%s%n{}{0}",
    "../../../etc/passwd",
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:30])
async def test_hostile_values_are_echoed_or_refused(world: World, value: str) -> None:
    config = {"note": value, value: value, "deep": [{value: value}]}
    created = await world.post(SERVICES, {"recipe_name": ENGINE, "config": config})
    assert created.status_code == 200
    service = created.json()["id"]
    assert (await world.get(f"{SERVICES}/{service}")).json()["config"] == {**config, "nodes": 1}
    for refused in (
        {"recipe_name": value},
        {"recipe_name": ENGINE, "name": value},
        {"recipe_name": ENGINE, "config": {"replicas": value}},
        {"recipe_name": ENGINE, "config": {"resources": {"partition": value}}},
        {"recipe_name": ENGINE, "config": {"resources": {value: 1}}},
        {"recipe_name": ENGINE, "config": {"environment": {value: "1"}}},
        {"recipe_name": ENGINE, "config": {"parameters": {value: "1"}}},
    ):
        answer = await world.post(SERVICES, refused)
        assert answer.status_code in (404, 422), (refused, answer.text)


async def test_a_busy_database_is_said_to_be_busy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.contract.database, "BUSY_SECONDS", 2)  # more than any other write takes
    database = Database(world.settings.database_url)
    busy = World(world.settings, database, new_app(world.settings, database))
    async with (
        aiosqlite.connect(str(database.url.database), isolation_level=None, timeout=60) as other,
        busy.running(),
    ):
        service = await busy.create()
        await other.execute(
            "BEGIN IMMEDIATE"
        )  # this loop goes on: what the application is writing must come to its end
        answer = await busy.post(SERVICES, {"recipe_name": ENGINE})
        assert answer.status_code == 503
        assert "database is locked" in answer.json()["detail"]
        assert answer.headers["retry-after"] == "5"
        assert (await busy.delete(f"{SERVICES}/{service}")).status_code == 503
        assert (await busy.get(f"{SERVICES}/{service}")).status_code == 200
        await other.execute("ROLLBACK")
        assert (await busy.post(SERVICES, {"recipe_name": ENGINE})).status_code == 200
    await database.close()


async def test_an_error_of_ours_says_nothing_but_leaves_a_line(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("with a secret in it")

    monkeypatch.setattr("api.http.services.Services.find", broken)
    answer = await world.get(f"{SERVICES}/x", headers={"X-Request-ID": "find-me"})
    assert (answer.status_code, answer.json()) == (
        500,
        {"detail": "Internal Server Error", "request_id": "find-me"},
    )
    line = next(record for record in caplog.records if record.levelname == "ERROR")
    assert line.request_id == "find-me"  # type: ignore[attr-defined]
    assert line.exc_info is not None


async def test_created_by_sql_and_shown_here(world: World) -> None:
    async with world.database.write() as connection:
        await connection.execute(text("INSERT INTO services (recipe_name) VALUES ('inference/engine')"))
        await connection.execute(
            text("INSERT INTO services (recipe_name, config) VALUES ('no/such', :config)"),
            {"config": '{"text": "\\ud800", "big": 123456789012345678901234567890, "float": 1e999}'},
        )
    answer = await world.get(SERVICES)
    assert answer.status_code == 200
    first, second = answer.json()
    assert first["name"] == f"engine-{first['id']}"
    assert (first["status"], first["config"]) == ("pending", {"nodes": 1})
    assert second["config"]["big"] == 123456789012345678901234567890

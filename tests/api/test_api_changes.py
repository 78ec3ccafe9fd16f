"""PATCH of a service, its ETag, and POST …/status."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from api_world import ENGINE, World
from sqlalchemy import select, text, update

from api.contract.tables import Service, UserEvent

SERVICES = "/api/v1/services"


async def columns(world: World, service: str) -> Any:
    query = select(Service.__table__).where(Service.id == service)
    return await world.database.read(lambda connection: connection.execute(query).one())


async def test_a_change_is_merged_and_counted(anywhere: World) -> None:
    world = anywhere
    service = await world.create(config={"max_model_len": 1, "note": {"a": 1, "b": [1]}, "environment": {"X": "1"}})
    patch = {"config": {"max_model_len": None, "note": {"b": [2], "c": {"d": None, "e": 1}}, "nodes": 3}}
    answer = await world.patch(f"{SERVICES}/{service}", patch)
    assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert changed["config"] == {"note": {"a": 1, "b": [2], "c": {"e": 1}}, "environment": {"X": "1"}, "nodes": 3}
    assert (changed["generation"], changed["version"], answer.headers["etag"]) == (2, 2, '"2"')
    assert [text.partition(":")[0] for text in changed.pop("warnings")] == ["note"]
    assert (await world.get(f"{SERVICES}/{service}")).json() == changed


async def test_the_etag_of_every_answer_is_that_of_the_service(world: World) -> None:
    created = await world.post(SERVICES, {"recipe_name": ENGINE})
    shown = await world.get(f"{SERVICES}/{created.json()['id']}")
    assert created.headers["etag"] == shown.headers["etag"] == f'"{shown.json()["version"]}"'


async def test_only_the_version_that_was_read_is_changed(anywhere: World) -> None:
    world = anywhere
    path = f"{SERVICES}/{await world.create(name='mine')}"
    tag = (await world.get(path)).headers["etag"]
    assert (await world.patch(path, {"replicas": 2}, if_match=tag)).status_code == 200
    late = await world.patch(path, {"replicas": 5}, if_match=tag)
    assert late.status_code == 412
    body = late.json()
    assert body["etag"] == late.headers["etag"] == '"2"'
    assert body["service"]["replicas"] == 2
    assert body["request_id"] == late.headers["x-request-id"]
    assert (await world.get(path)).json()["replicas"] == 2
    for tags in (body["etag"], "*", f'"77", {body["etag"]}', f"W/{body['etag']}"):
        answer = await world.patch(path, {}, if_match=tags)
        assert answer.status_code == 200, tags


@pytest.mark.parametrize("header", ["2", '"2', "", '"1" "2"', "W/2"])
async def test_an_if_match_that_is_none(world: World, header: str) -> None:
    answer = await world.patch(f"{SERVICES}/{await world.create()}", {"replicas": 2}, if_match=header)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "If-Match"])


async def test_of_many_at_once_on_one_version_one_wins(anywhere: World) -> None:
    world = anywhere
    path = f"{SERVICES}/{await world.create()}"
    answers = await asyncio.gather(*(world.patch(path, {"replicas": n}, if_match='"1"') for n in range(2, 12)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
    winner = next(answer for answer in answers if answer.status_code == 200)
    assert (await world.get(path)).json() == winner.json()


async def test_of_many_at_once_without_a_version_none_is_lost(anywhere: World) -> None:
    world = anywhere
    path = f"{SERVICES}/{await world.create()}"
    answers = await asyncio.gather(*(world.patch(path, {"config": {f"n{n}": n}}) for n in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await world.get(path)).json()["config"] == {"nodes": 1, **{f"n{n}": n for n in range(5)}}


async def test_replicas_beside_and_inside_the_config_agree(world: World) -> None:
    path = f"{SERVICES}/{await world.create(config={'replicas': '2'})}"
    shown = (await world.patch(path, {"replicas": 4})).json()
    assert (shown["replicas"], shown["config"]["replicas"]) == (4, 4)
    shown = (await world.patch(path, {"config": {"replicas": 3}})).json()
    assert (shown["replicas"], shown["config"]["replicas"]) == (3, 3)
    shown = (await world.patch(path, {"replicas": None})).json()
    assert (shown["replicas"], "replicas" in shown["config"]) == (None, False)
    shown = (await world.patch(path, {"replicas": 0})).json()
    assert (shown["replicas"], "replicas" in shown["config"]) == (0, False)


async def test_the_declaration_is_what_was_declared(anywhere: World) -> None:
    world = anywhere
    service = await world.create(name="mine", config={"environment": {"X": None}})
    await world.observe(service, available=True, ready_replicas=1)
    answer = await world.get(f"{SERVICES}/mine/declaration")
    assert answer.json() == {
        "id": service, "name": "mine", "recipe_name": ENGINE, "config": {"environment": {"X": None}},
        "replicas": None, "desired_state": "running", "deleted_at": None, "version": 1,
        "access": None,
    }  # fmt: skip
    assert answer.headers["etag"] == '"1"'
    await world.patch(f"{SERVICES}/mine", {"replicas": 2, "desired_state": "stopped"})
    shown = (await world.get(f"{SERVICES}/{service}/declaration")).json()
    assert (shown["replicas"], shown["desired_state"], shown["config"]) == (2, "stopped", {"environment": {"X": None}})
    await world.delete(f"{SERVICES}/mine")
    assert (await world.get(f"{SERVICES}/{service}/declaration")).json()["deleted_at"]
    assert (await world.get(f"{SERVICES}/nobody/declaration")).status_code == 404


async def test_what_changes_nothing_counts_nothing(world: World) -> None:
    path = f"{SERVICES}/{await world.create(config={'a': 1, 'replicas': 2})}"
    before = (await world.get(path)).json()
    for patch in ({}, {"config": {}}, {"config": {"a": 1, "b": None}}, {"replicas": 2}, {"desired_state": "running"}):
        assert (await world.patch(path, patch)).json() == before


BAD: list[tuple[Any, list[Any]]] = [
    ([], ["body"]),
    ({"config": None}, ["body", "config"]),
    ({"config": []}, ["body", "config"]),
    ({"config": {"max_model_len": 0}}, ["body", "config", "max_model_len"]),
    ({"config": {"command": ["sh"]}}, ["body", "config", "command"]),
    ({"config": {"replicas": -1}}, ["body", "config", "replicas"]),
    ({"config": {"x": "a\0"}}, ["body", "config"]),
    ({"config": {"x": "a" * 2**16}}, ["body", "config"]),
    ({"replicas": -1}, ["body", "replicas"]),
    ({"replicas": 1.5}, ["body", "replicas"]),
    ({"replicas": True}, ["body", "replicas"]),
    ({"replicas": "2"}, ["body", "replicas"]),
    ({"replicas": 1001}, ["body", "replicas"]),
    ({"desired_state": "paused"}, ["body", "desired_state"]),
    ({"desired_state": []}, ["body", "desired_state"]),
    ({"name": "other"}, ["body", "name"]),
]


@pytest.mark.parametrize(("patch", "loc"), BAD, ids=repr)
async def test_bad_patches(world: World, patch: Any, loc: list[Any]) -> None:
    path = f"{SERVICES}/{await world.create()}"
    before = (await world.get(path)).json()
    answer = await world.patch(path, patch)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == loc
    assert answer.json()["request_id"]
    assert (await world.get(path)).json() == before


async def test_a_config_does_not_grow_without_an_end(world: World) -> None:
    path = f"{SERVICES}/{await world.create()}"
    assert (await world.patch(path, {"config": {"a": "x" * 40_000}})).status_code == 200
    refused = await world.patch(path, {"config": {"b": "x" * 40_000}})
    assert (refused.status_code, "may have 65,536" in refused.json()["detail"]) == (413, True)
    assert (await world.patch(path, {"config": {"a": None, "b": "x" * 40_000}})).status_code == 200


async def test_a_service_whose_config_is_too_large_can_be_stopped(world: World) -> None:
    """SQL takes it, and so did the release before."""
    path = f"{SERVICES}/{(key := await world.create())}"
    async with world.database.write() as connection:
        await connection.execute(update(Service).where(Service.id == key).values(config={"a": "x" * 70_000}))
    assert (await world.patch(path, {"desired_state": "stopped"})).status_code == 200
    scaled = await world.patch(path, {"replicas": 2})
    assert (scaled.status_code, "may have 65,536" in scaled.text) == (422, True)
    assert (await world.patch(path, {"replicas": 2, "config": {"a": None}})).status_code == 200


async def test_unknown_and_deleted(world: World) -> None:
    missing = await world.patch(f"{SERVICES}/999", {"replicas": 2})
    assert (missing.status_code, missing.json()["detail"]) == (404, "Service not found")
    service = await world.create()
    await world.delete(f"{SERVICES}/{service}")
    gone = await world.patch(f"{SERVICES}/{service}", {"replicas": 2})
    assert (gone.status_code, "Create a new one" in gone.json()["detail"]) == (409, True)


async def test_a_service_whose_recipe_is_gone_can_be_stopped_but_not_changed(world: World) -> None:
    service = await world.create()
    async with world.database.write() as connection:
        await connection.execute(text("UPDATE services SET recipe_name = 'inference/gone'"))
    assert (await world.patch(f"{SERVICES}/{service}", {"replicas": 2})).status_code == 404
    assert (await world.patch(f"{SERVICES}/{service}", {"desired_state": "stopped"})).status_code == 200


async def test_cancelled_and_started_again(anywhere: World) -> None:
    world = anywhere
    service = await world.create(name="mine")
    path = f"{SERVICES}/mine"
    for _ in range(2):
        answer = await world.post(f"{path}/status", {"status": "cancelled"})
        assert answer.status_code == 200
        assert answer.json() == {"message": "Service mine cancelled", "service_id": service, "status": "cancelled"}
    assert (await world.get(f"{path}/status")).json() == {"status": "cancelled"}
    assert (await columns(world, service)).desired_state == "stopped"
    started = (await world.patch(path, {"desired_state": "running"})).json()
    assert (started["status"], started["generation"]) == ("pending", 3)
    await world.delete(path)
    assert (await world.post(f"{SERVICES}/{service}/status", {"status": "cancelled"})).status_code == 200


async def test_another_word_than_cancelled(world: World) -> None:
    path = f"{SERVICES}/{await world.create()}/status"
    assert (await world.post(path, {"status": "running"})).status_code == 400
    for body in ({}, {"status": 5}, [], b""):
        assert (await world.post(path, body)).status_code == 422
    assert (await world.post(f"{SERVICES}/999/status", {"status": "cancelled"})).status_code == 404
    assert (await world.get(path)).json() == {"status": "pending"}


async def test_what_users_do_is_written_down(world: World) -> None:
    service = await world.create(name="mine")
    await world.patch(f"{SERVICES}/mine", {"replicas": 2, "config": {"a": 1}})
    await world.post(f"{SERVICES}/mine/status", {"status": "cancelled"})
    query = select(UserEvent.action, UserEvent.message).order_by(UserEvent.id)
    rows = await world.database.read(lambda connection: connection.execute(query).all())
    assert [row.action for row in rows] == ["create", "change", "stop"]
    assert rows[1].message == "config, replicas of mine changed."
    assert service

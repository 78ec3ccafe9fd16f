"""The life of a service on SQLite and on PostgreSQL: the statements are the same."""

from __future__ import annotations

from contextlib import suppress

from api_world import ENGINE, World
from backends import Backend, Refused

SERVICES = "/api/v1/services"


async def test_no_config_that_sql_can_store_holds_the_others_up(anywhere: World, backend: Backend) -> None:
    strange = {
        "deep": '{"a": ' + "[" * 900 + "]" * 900 + "}",
        "deeper": '{"a": ' * 900 + "1" + "}" * 900,
        "endless": '{"a": ' + "9" * 5000 + "}",
        "infinite": '{"a": 1e999}',
        "half": '{"a": "\\ud800"}',
        "steers": '{"\\u001b[31m": 1}',
    }
    taken = []
    for key, config in strange.items():
        with suppress(Refused):
            await backend.run(
                f"INSERT INTO services (id, recipe_name, config) VALUES ('{key}', '{ENGINE}', '{config}')"
            )
            taken.append(key)
    assert {"deep", "deeper", "endless"} <= {*taken}
    assert (await anywhere.get(SERVICES)).status_code == 200
    for key in taken:
        for path in (key, f"{key}/declaration"):
            assert (await anywhere.get(f"{SERVICES}/{path}")).status_code == 200, path
        assert (await anywhere.patch(f"{SERVICES}/{key}", {"config": {"b": 1}})).status_code < 500, key
        assert (await anywhere.delete(f"{SERVICES}/{key}")).status_code == 200


async def test_life_of_a_service(anywhere: World) -> None:
    world = anywhere
    config = {"note": "é😀'\"\\", "big": 10**30, "list": [1, 2.5, None]}
    created = (await world.post(SERVICES, {"recipe_name": ENGINE, "config": config, "name": "mine"})).json()
    assert created["config"] == {**config, "nodes": 1}
    del created["warnings"]  # for who has just written it
    assert (await world.get(f"{SERVICES}/mine")).json() == created
    assert (await world.get(SERVICES)).json() == [created]
    taken = await world.post(SERVICES, {"recipe_name": ENGINE, "name": "mine"})
    assert (taken.status_code, "mine" in taken.json()["detail"]) == (409, True)

    service = created["id"]
    folder = world.job_folder(await world.attempt(service, 0, 2))
    await world.attempt(service, 0, 1, closed_at=1.0, outcome="Failed")
    (folder / "stdout.log").write_text("hello")
    assert "hello" in (await world.get(f"{SERVICES}/mine/logs")).json()["logs"]

    await world.observe(service, available=True, reason="AsWanted", ready_replicas=1)
    await world.endpoint(service, "127.0.0.1", 1, token="af-x-y-0-1")
    await world.endpoint(service, "127.0.0.1", 2, token="af-x-y-1-1", replica=1)
    shown = (await world.get(f"{SERVICES}/{service}")).json()
    assert (shown["status"], shown["endpoint"], shown["ready_replicas"]) == ("running", "http://127.0.0.1:1", 1)
    assert (await world.get("/api/v1/vllm/services")).json()["vllm_services"][0]["endpoint"] == "http://127.0.0.1:1"
    prompt = (await world.post("/api/v1/vllm/mine/prompt", {"prompt": "hi"})).json()
    assert prompt["error"] == "Service not available"
    assert f"{service}-1: " in prompt["technical_details"]

    for key in ("mine", service, "mine"):
        assert (await world.delete(f"{SERVICES}/{key}")).status_code == 200
    assert (await world.get(f"{SERVICES}/mine/status")).json() == {"status": "cancelled"}
    again = await world.create(name="mine")
    assert (await world.get(f"{SERVICES}/mine")).json()["id"] == again
    assert [one["id"] for one in (await world.get(SERVICES)).json()] == [service, again]


async def test_hostile_keys(anywhere: World) -> None:
    for key in ("%00", "%F0%9F%98%80", "'", "x" * 1000, "%ED%A0%80", "1%20OR%201=1"):
        assert (await anywhere.get(f"{SERVICES}/{key}")).status_code == 404
        assert (await anywhere.delete(f"{SERVICES}/{key}")).status_code == 404
        assert (await anywhere.get(f"/api/v1/vllm/{key}/models")).status_code == 200


async def test_health(anywhere: World) -> None:
    await anywhere.heartbeat(ago=5)
    health = (await anywhere.get("/health")).json()
    assert (health["status"], health["database"]) == ("healthy", "ok")
    assert 5 <= health["controller"]["last_heartbeat"] < 8

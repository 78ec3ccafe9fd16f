"""GET /api/v1/watch, and POST of a service that is waited for."""

from __future__ import annotations

import asyncio
import time

import pytest
from api_world import World
from sqlalchemy import event, text, update

from api.contract.tables import Service

SERVICES = "/api/v1/services"
WATCH = "/api/v1/watch"


async def test_each_change_of_a_service_is_told(anywhere: World) -> None:
    world = anywhere
    async with world.listen(WATCH) as listener:
        assert (listener.status, listener.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
        await listener.until(lambda: listener.last_id != "")
        service = await world.create(name="mine")
        created = await listener.next()
        assert created.name == "created"
        assert created.data == (await world.get(f"{SERVICES}/mine")).json()
        await world.patch(f"{SERVICES}/mine", {"replicas": 3})
        changed = await listener.next()
        assert (changed.name, changed.data["replicas"]) == ("changed", 3)
        await world.observe(service, reason="Starting")
        assert (await listener.next()).data["status"] == "starting"
        await world.observe(service, available=True, reason="AsWanted")
        assert (await listener.next()).data["status"] == "running"
        await world.endpoint(service, "10.0.0.1", 80, token="af-x-y-0-1")
        assert (await listener.next()).data["endpoint"] == "http://10.0.0.1:80"
        async with world.database.write() as connection:
            await connection.execute(text("DELETE FROM endpoints"))
        assert (await listener.next()).data["endpoint"] is None
        await world.delete(f"{SERVICES}/mine")
        gone = await listener.next()
        assert (gone.name, gone.data["status"], gone.data["id"]) == ("deleted", "cancelled", service)
        assert int(gone.id) > int(changed.id) > int(created.id)
        assert listener.waiting == 0


async def test_changes_by_other_programs_are_told(anywhere: World) -> None:
    async with anywhere.listen(WATCH) as listener:
        await listener.until(lambda: listener.last_id != "")
        async with anywhere.database.write() as connection:
            await connection.execute(
                text("INSERT INTO services (name, recipe_name) VALUES ('sql', 'inference/engine')")
            )
        assert (await listener.next()).data["name"] == "sql"


async def test_who_comes_back_is_told_what_was_missed(anywhere: World) -> None:
    world = anywhere
    kept = await world.create(name="kept")
    await world.create(name="quiet")
    async with world.listen(f"{WATCH}?after=0") as listener:
        assert [(await listener.next()).data["name"] for _ in range(2)] == ["kept", "quiet"]
        last = listener.last_id
    await world.create(name="new")
    await world.patch(f"{SERVICES}/kept", {"replicas": 2})
    await world.patch(f"{SERVICES}/kept", {"replicas": 5})
    again = World(world.settings, world.database, world.app)
    for resumed in (world, again):
        async with resumed.listen(WATCH, last) as listener:
            found = {}
            while found.get(kept, 0) != 5:
                change = await listener.next()
                found[change.data["id"]] = change.data["replicas"]
            assert len(found) == 2


async def test_a_removal_that_can_not_be_told_means_looking_anew(anywhere: World) -> None:
    world = anywhere
    await world.create(name="stays")
    gone = await world.create(name="goes")
    async with world.listen(f"{WATCH}?after=0") as listener:
        await listener.next()
        await listener.next()
        last = listener.last_id
    async with world.database.write() as connection:
        await connection.execute(update(Service).where(Service.id == gone).values(purge=1))
        await connection.execute(text("DELETE FROM services WHERE name = 'goes'"))
    async with world.listen(WATCH, last) as listener:
        assert (await listener.next()).name == "reset"
        assert (await listener.next()).data["name"] == "stays"
        assert listener.waiting == 0


async def test_who_watches_is_told_of_such_a_removal_at_once(anywhere: World) -> None:
    world = anywhere
    await world.create(name="goes")
    async with world.listen(f"{WATCH}?after=0") as listener:
        assert (await listener.next()).name == "created"
        async with world.database.write() as connection:
            await connection.execute(text("UPDATE services SET purge = 1"))
            await connection.execute(text("DELETE FROM services"))
        names = [(await listener.next()).name]
        while names[-1] != "reset":
            names.append((await listener.next()).name)


async def test_the_removal_of_what_was_deleted_long_ago_disturbs_nobody(anywhere: World) -> None:
    world = anywhere
    await world.create(name="goes")
    await world.delete(f"{SERVICES}/goes")
    async with world.listen(f"{WATCH}?after=0") as listener:
        assert (await listener.next()).name == "deleted"
        async with world.database.write() as connection:
            await connection.execute(text("UPDATE services SET purge = 1"))
        assert (await listener.next()).name == "deleted"
        async with world.database.write() as connection:
            await connection.execute(text("DELETE FROM services"))
        await world.create(name="next")
        assert (await listener.next()).data["name"] == "next"


async def test_a_number_from_another_database(world: World) -> None:
    await world.create(name="mine")
    async with world.listen(WATCH, str(10**12)) as listener:
        assert (await listener.next()).name == "reset"
        assert (await listener.next()).data["name"] == "mine"


async def test_one_service(world: World) -> None:
    await world.create(name="mine")
    async with world.listen(f"{WATCH}?service=mine") as listener:
        await listener.until(lambda: listener.last_id != "")
        await world.create(name="other")
        await world.patch(f"{SERVICES}/mine", {"replicas": 2})
        assert (await listener.next()).data["name"] == "mine"
    assert (await world.get(f"{WATCH}?service=nope")).status_code == 404


async def test_a_stream_that_lasts_so_long(world: World) -> None:
    await world.create()
    answer = await world.get(f"{WATCH}?after=0&timeout=2")
    assert answer.status_code == 200
    assert answer.text.count("event: created") == 1


async def test_a_heartbeat(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.web.sse.HEARTBEAT_SECONDS", 0.02)
    async with world.listen(WATCH) as listener:
        await listener.until(lambda: listener.text.count(": \n\n") >= 3)


async def test_who_is_slow_misses_steps_but_no_service(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.web.recent.MOST", 5)
    service = await world.create()
    async with world.listen(f"{WATCH}?after=0") as slow, world.listen(WATCH) as quick:
        await slow.next()
        slow.reading.clear()
        made = [await world.create() for _ in range(10)]
        for replicas in range(20):
            await world.patch(f"{SERVICES}/{service}", {"replicas": replicas + 2})
        while (await quick.next()).data["replicas"] != 21:
            pass
        slow.reading.set()
        found = {}
        while found.get(service) != 21:
            change = (await slow.next()).data
            found[change["id"]] = change["replicas"]
        assert set(made) <= set(found)


async def test_many_watchers_cost_one_reading(world: World) -> None:
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(world.listen(WATCH)) for _ in range(100)]
        for listener in listeners:
            await listener.until(lambda listener=listener: listener.last_id != "")
        statements: list[str] = []

        @event.listens_for(world.database._reader._engine, "before_cursor_execute")
        def count(*arguments: object) -> None:
            statements.append(str(arguments[2]))

        await world.create()
        for listener in listeners:
            await listener.next()
        assert 0 < len([s for s in statements if "service_changes" in s and "services" in s.split("FROM")[1]]) <= 3


@pytest.mark.parametrize("header", ["x", "-1", "1.5", "\u00b2", "9" * 30])
async def test_a_last_id_that_is_none(world: World, header: str) -> None:
    answer = await world.client.get(WATCH, headers={"Last-Event-ID": header.encode()})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "Last-Event-ID"])


# Waiting.


async def test_waiting_until_it_is_ready(anywhere: World) -> None:
    world = anywhere
    waiting = asyncio.create_task(world.post(f"{SERVICES}?wait=ready&timeout=120", {"recipe_name": "engine"}))
    while not (listed := (await world.get(SERVICES)).json()):
        await asyncio.sleep(0.01)
    service = listed[0]["id"]
    await world.observe(service, reason="Starting")
    began = time.monotonic()
    await world.observe(service, available=True, reason="AsWanted")
    answer = await waiting
    assert time.monotonic() - began < 60
    assert (answer.status_code, answer.json()["status"], answer.json()["id"]) == (200, "running", service)


@pytest.mark.parametrize("word", ["failed", "cancelled"])
async def test_waiting_ends_with_the_service(world: World, word: str) -> None:
    waiting = asyncio.create_task(world.post(f"{SERVICES}?wait=ready", {"recipe_name": "engine", "name": "mine"}))
    while not (listed := (await world.get(SERVICES)).json()):
        await asyncio.sleep(0.01)
    if word == "failed":
        await world.observe(listed[0]["id"], reason="Failed")
    else:
        await world.delete(f"{SERVICES}/mine")
    assert (await waiting).json()["status"] == word


async def test_waiting_no_longer_than_told(world: World) -> None:
    began = time.monotonic()
    answer = await world.post(f"{SERVICES}?wait=ready&timeout=0.2", {"recipe_name": "engine"})
    assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    assert 0.2 <= time.monotonic() - began < 60


@pytest.mark.parametrize("query", ["wait=nope", "wait=", "wait=ready&timeout=x", "timeout=-1", "timeout=nan"])
async def test_waiting_for_what_is_not_known(world: World, query: str) -> None:
    answer = await world.post(f"{SERVICES}?{query}", {"recipe_name": "engine"})
    assert (answer.status_code, answer.json()["detail"][0]["loc"][0]) == (422, "query")
    assert (await world.get(SERVICES)).json() == []


async def test_both_end_when_the_api_stops(world: World) -> None:
    async with world.listen(WATCH) as listener:
        waiting = asyncio.create_task(world.post(f"{SERVICES}?wait=ready", {"recipe_name": "engine"}))
        await listener.next()
        await world.app.state.end_streams()
        assert (await waiting).json()["status"] == "pending"
        async with asyncio.timeout(60):
            await listener.ended.wait()

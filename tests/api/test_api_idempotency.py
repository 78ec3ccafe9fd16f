"""Idempotency-Key: what is asked for twice is made once."""

from __future__ import annotations

import asyncio
import time

import pytest
from api_world import World
from sqlalchemy import func, select, update

from api.contract.tables import IdempotencyKey, Service, UserEvent
from api.http.idempotency import KEPT_SECONDS

SERVICES = "/api/v1/services"
BODY = {"recipe_name": "engine", "config": {"a": 1, "b": [2]}, "name": "mine"}


async def count(world: World, table: type) -> int:
    query = select(func.count()).select_from(table)
    return int(await world.database.read(lambda connection: connection.execute(query).scalar_one()))


async def test_the_same_again_is_answered_as_before(anywhere: World) -> None:
    world = anywhere
    first = await world.post(SERVICES, BODY, headers={"Idempotency-Key": '"k-1"'})
    await world.patch(f"{SERVICES}/mine", {"replicas": 2})
    for header, body in (
        ('"k-1"', BODY),
        ("k-1", BODY),
        ("k-1", b'{"name":"mine", "config":{"b":[2],"a":1}, "recipe_name":"engine", "nodes":3}'),
    ):
        again = await world.post(SERVICES, body, headers={"Idempotency-Key": header})
        assert (again.status_code, again.json(), again.headers["etag"]) == (200, first.json(), first.headers["etag"])
    assert (await count(world, Service), await count(world, IdempotencyKey)) == (1, 1)


async def test_another_body_under_the_same_key(anywhere: World) -> None:
    world = anywhere
    await world.post(SERVICES, BODY, headers={"Idempotency-Key": "k"})
    for body in ({**BODY, "name": "other"}, {**BODY, "config": {}}, {**BODY, "recipe_name": "inference/engine"}):
        answer = await world.post(SERVICES, body, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "Idempotency-Key"])
    assert await count(world, Service) == 1


async def test_sent_many_times_at_once(anywhere: World) -> None:
    world = anywhere
    body = {"recipe_name": "engine"}
    answers = await asyncio.gather(*(world.post(SERVICES, body, headers={"Idempotency-Key": "k"}) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await count(world, Service), await count(world, UserEvent)) == (1, 1)


async def test_a_refusal_is_not_kept(world: World) -> None:
    refused = await world.post(SERVICES, {"recipe_name": "nope"}, headers={"Idempotency-Key": "k"})
    assert refused.status_code == 404
    assert (await world.post(SERVICES, BODY, headers={"Idempotency-Key": "k"})).status_code == 200
    taken = await world.post(SERVICES, BODY, headers={"Idempotency-Key": "k2"})
    assert taken.status_code == 409
    assert await count(world, IdempotencyKey) == 1


async def test_old_keys_are_forgotten(world: World) -> None:
    first = await world.post(SERVICES, BODY, headers={"Idempotency-Key": "old"})
    await world.delete(f"{SERVICES}/mine")
    async with world.database.write() as connection:
        await connection.execute(update(IdempotencyKey).values(at=time.time() - KEPT_SECONDS - 1))
    again = await world.post(SERVICES, BODY, headers={"Idempotency-Key": "old"})
    assert (again.status_code, again.json()["id"] == first.json()["id"]) == (200, False)
    assert await count(world, IdempotencyKey) == 1


async def test_a_key_goes_with_its_service(anywhere: World) -> None:
    world = anywhere
    service = (await world.post(SERVICES, BODY, headers={"Idempotency-Key": "k"})).json()["id"]
    await world.delete(f"{SERVICES}/{service}")
    async with world.database.write() as connection:
        await connection.execute(update(Service).values(purge=1))
        await connection.execute(Service.__table__.delete())
    assert await count(world, IdempotencyKey) == 0


@pytest.mark.parametrize("key", ["", '""', '"a', "a b", "x" * 256, "é"])
async def test_keys_that_are_none(world: World, key: str) -> None:
    answer = await world.post(SERVICES, BODY, headers={"Idempotency-Key": key.encode()})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "Idempotency-Key"])
    assert await count(world, Service) == 0

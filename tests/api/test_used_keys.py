"""When keys were last used: written down now and then, by whoever lets them in, and shown with them."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api_world import World, opened
from sqlalchemy import delete, insert, select, text
from test_api_keys import KEY, KEYS, WRONG, bearer, make
from test_gateway import until

import api.gateway.used_keys
from api.contract.database import Database
from api.contract.tables import ApiKeyRow, KeyUseRow
from api.gateway.used_keys import UsedKeys
from api.web.key_secret import digest_of, new_secret
from api.web.keys import Keys, KnownKey
from api.web.principal import KeyScope, Principal

LATER = 9e9


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.gateway.used_keys, "WRITE_SECONDS", 0.02)


def known(key: str) -> KnownKey:
    return KnownKey(principal=Principal(key, frozenset(KeyScope), owner="o"), expires_at=None, revoked_at=None)


async def rows(database: Database) -> dict[str, float]:
    query = select(KeyUseRow.key_id, KeyUseRow.last_used_at)
    return {row.key_id: row.last_used_at for row in await database.read(lambda found: found.execute(query).all())}


def written(world: World, *keys: dict[str, Any]) -> Callable[[], Awaitable[bool]]:
    async def are_written() -> bool:
        return {key["id"] for key in keys} <= (await rows(world.database)).keys()

    return are_written


async def use(world: World, key: dict[str, Any], path: str = "/v1/models") -> None:
    assert (await world.get(path, headers=bearer(key["secret"]))).status_code == 200


async def test_a_key_says_when_it_was_last_used(anywhere: World) -> None:
    made, looks, unused = await make(anywhere), await make(anywhere, "read"), await make(anywhere)
    assert made["last_used_at"] is None
    before = time.time()
    await use(anywhere, made)
    await use(anywhere, looks, "/api/v1/services")
    await until(written(anywhere, made, looks))
    shown = {key["id"]: key["last_used_at"] for key in (await anywhere.get(KEYS)).json()}
    assert shown[unused["id"]] is None
    for key in (made, looks):
        assert before - 1 <= datetime.fromisoformat(shown[key["id"]]).timestamp() <= time.time() + 1
    first = await rows(anywhere.database)

    async def is_later() -> bool:
        await use(anywhere, made)
        return (await rows(anywhere.database))[made["id"]] > first[made["id"]]

    await until(is_later)
    assert (await rows(anywhere.database))[looks["id"]] == first[looks["id"]]


async def test_a_token_is_a_use_of_the_key_it_was_asked_for_with(world: World) -> None:
    made = await make(world)
    answer = await world.post("/api/v1/tokens", {}, headers=bearer(made["secret"]))
    await until(written(world, made))
    async with world.database.write() as connection:
        await connection.execute(delete(KeyUseRow))
    await use(world, answer.json())
    await until(written(world, made))


async def test_who_is_not_let_in_has_used_nothing(world: World) -> None:
    revoked, used = await make(world), await make(world)
    await world.delete(f"{KEYS}/{revoked['id']}")
    for secret in (revoked["secret"], WRONG):
        assert (await world.get("/v1/models", headers=bearer(secret))).status_code == 401
    await use(world, used)
    await until(written(world, used))
    assert (await rows(world.database)).keys() == {used["id"]}


async def test_requests_write_nothing_and_the_end_writes_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.gateway.used_keys, "WRITE_SECONDS", 3600.0)
    async with opened(folder) as world:
        made, other = await make(world), await make(world)
        ends = time.monotonic() + 0.3
        while time.monotonic() < ends:
            await use(world, made)
            await use(world, other)
            assert await rows(world.database) == {}
        url = world.settings.database_url
    database = Database(url)
    try:
        assert (await rows(database)).keys() == {made["id"], other["id"]}
    finally:
        await database.close()


async def test_what_another_gateway_has_written_later_stays(anywhere: World) -> None:
    made, other = await make(anywhere), await make(anywhere)
    async with anywhere.database.write() as connection:
        await connection.execute(insert(KeyUseRow).values(key_id=made["id"], last_used_at=LATER))
    for key in (made, other):
        await use(anywhere, key)
    await until(written(anywhere, other))
    assert (await rows(anywhere.database))[made["id"]] == LATER


async def test_it_goes_with_its_key(anywhere: World) -> None:
    kept, left = await make(anywhere), await make(anywhere)
    for key in (kept, left):
        await use(anywhere, key)
    await until(written(anywhere, kept, left))
    async with anywhere.database.write() as connection:
        await connection.execute(delete(ApiKeyRow).where(ApiKeyRow.id == left["id"]))
    assert (await rows(anywhere.database)).keys() == {kept["id"]}


async def test_of_a_key_that_is_deleted_meanwhile_nothing_is_written_and_of_others_all_is(database: Database) -> None:
    keys, secrets = Keys(60.0), {name: new_secret() for name in ("a", "gone", "z")}
    keys.learn((digest_of(secrets[name]), known(name)) for name in secrets)
    keys.confirm(time.monotonic())
    async with database.write() as connection:
        for name in ("a", "z"):
            await connection.execute(insert(ApiKeyRow).values(id=name, digest=digest_of(secrets[name]), **KEY))
    for secret in secrets.values():
        keys.find(secret)
    used = UsedKeys(database, keys)
    used.begin()
    await used.close()
    assert (await rows(database)).keys() == {"a", "z"}


async def test_one_that_can_not_write_serves_says_so_once_and_forgets_nothing(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, write = [], UsedKeys._write

    async def counted(self: UsedKeys) -> None:
        tried.append(self)
        await write(self)

    monkeypatch.setattr(UsedKeys, "_write", counted)
    made, other = await make(world), await make(world)
    async with world.database.write() as connection:
        await connection.execute(text("ALTER TABLE key_use RENAME TO elsewhere"))

    def told() -> list[str]:
        return [r.getMessage() for r in caplog.records if "when they were last used can't be" in r.getMessage()]

    with caplog.at_level(logging.WARNING):
        await use(world, made)
        await until(told)
        await use(world, other)
        before = len(tried)
        await until(lambda: len(tried) > before + 2)
        async with world.database.write() as connection:
            await connection.execute(text("ALTER TABLE elsewhere RENAME TO key_use"))
        await until(written(world, made, other))
    assert len(told()) == 1

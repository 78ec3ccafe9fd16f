"""Hundreds who begin to follow at once: whoever asks for something else meanwhile does not wait for all of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from api_world import World

from api.http.logs.following import BEGINNING_AT_ONCE

SERVICES = "/api/v1/services"
FOLLOWERS = 300


@pytest.mark.parametrize("path", [f"{SERVICES}/mine/logs?follow=true", "/api/v1/watch?after=0"], ids=["logs", "watch"])
async def test_a_list_comes_before_what_most_followers_need(
    world: World, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """900 held it up for 5 s. Counted is what is read from the database before the list."""
    service = await world.create(name="mine")
    folder = world.job_folder(await world.attempt(service))
    (folder / "stdout.log").write_text("one\n")
    reads, read = 0, world.database.read

    async def count(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*arguments)

    monkeypatch.setattr(world.database, "read", count)
    async with AsyncExitStack() as stack:

        async def follow() -> None:
            listener = await stack.enter_async_context(world.listen(path))
            await listener.next()

        following = [asyncio.create_task(follow()) for _ in range(FOLLOWERS)]
        await asyncio.sleep(0)
        assert (await world.get(SERVICES)).status_code == 200
        reads_by_then = reads
        await asyncio.gather(*following)
    assert reads >= FOLLOWERS or "logs" not in path
    assert reads_by_then <= 4 * BEGINNING_AT_ONCE

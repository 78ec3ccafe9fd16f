"""Waiting until a service has come to what it will be."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Row

from api.http.services import Services
from api.http.wire import status_of
from api.web.change_feed import ChangeFeed
from api.web.principal import Principal
from api.web.query import Query

WAIT_SECONDS = 300.0
MOST_SECONDS = 3600.0
SETTLED = frozenset({"running", "completed", "failed", "cancelled"})


def read_wait(query: Query) -> float | None:
    """Read for how many seconds a client waits; `None`: not at all. Raises `InvalidError`."""
    wait, seconds = query.word("wait", ("ready",)), query.seconds("timeout", MOST_SECONDS)
    query.check()
    return None if wait is None else WAIT_SECONDS if seconds is None else seconds


async def until_settled(
    services: Services, feed: ChangeFeed, service_id: str, seconds: float, principal: Principal
) -> Row[Any] | None:
    """Return a service once it is ready or has ended, or as it is when the time is over; `None` if it is removed."""
    ends = asyncio.get_running_loop().time() + seconds
    position: int | None = await feed.begin()
    while True:
        row = await services.find(service_id, principal)
        if row is None or position is None or status_of(row) in SETTLED:
            return row
        position = await feed.changed(service_id, position, ends - asyncio.get_running_loop().time())

"""Writing down what this gateway has heard, so that the controller knows when it routes nothing to what drains.

A gateway that can't write, for want of the database or of the right to, is not waited for: it meets a closed door.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time

from sqlalchemy import bindparam, delete, insert, update

from api.contract.database import Database
from api.contract.tables import GatewayRow
from api.gateway.following import RoutingTableReader
from api.web.bell import rung
from api.web.transactions import writing

LEAST_SECONDS = 1.0
"""Between two signs."""
MOST_SECONDS = 3.0
"""So often one is given where there is nothing new."""
LEAVING_SECONDS = 2.0
"""That taking back its row may take at the end."""

_SIGN = (
    update(GatewayRow)
    .where(GatewayRow.id == bindparam("key"))
    .values(applied=bindparam("reached"), signs=GatewayRow.signs + 1, heard_at=bindparam("now"))
)

log = logging.getLogger(__name__)


class Confirmation:
    """Says again and again that this gateway lives, and up to where its table tells all."""

    def __init__(self, database: Database, reader: RoutingTableReader) -> None:
        self._database = database
        self._reader = reader
        self._id = secrets.token_hex(16)
        self._began_at = time.time()
        self._is_told = False
        """Whether the log says that it can't be written."""
        self._saying: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to say so."""
        self._saying = asyncio.create_task(self._say_on())

    async def close(self) -> None:
        """Say no more, and take back what was said: nobody need wait for this gateway."""
        if self._saying is None:
            return
        self._saying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._saying
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LEAVING_SECONDS), writing(self._database) as connection:
                await connection.execute(delete(GatewayRow).where(GatewayRow.id == self._id))

    async def _say_on(self) -> None:
        while True:
            ring = self._reader.applied.next
            try:
                await self._say(self._reader.position)
                self._is_told = False
            except Exception as error:
                # Whatever is wrong with one writing, the next may succeed.
                if not self._is_told:
                    log.warning("hand-overs do not wait for this gateway, it can't write what it has heard: %s", error)
                self._is_told = True
            await asyncio.sleep(LEAST_SECONDS)
            await rung(ring, MOST_SECONDS - LEAST_SECONDS)

    async def _say(self, reached: int) -> None:
        now = time.time()
        async with writing(self._database) as connection:
            said = await connection.execute(_SIGN, {"key": self._id, "reached": reached, "now": now})
            if said.rowcount == 0:
                row = {"host": socket.gethostname()[:255], "pid": os.getpid(), "began_at": self._began_at}
                values = {"id": self._id, "applied": reached, "signs": 1, "heard_at": now, **row}
                await connection.execute(insert(GatewayRow).values(values))

"""Writing down when each key was last used: now and then, in one transaction, and never on the path of a request.

While that can't be written, for want of the database or of the right to, it is kept: a time for each key, no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from sqlalchemy import Double, bindparam, text

from api.contract.database import Database, cause
from api.web.keys import Keys
from api.web.transactions import writing

WRITE_SECONDS = 60.0
"""Between two times."""
LEAVING_SECONDS = 2.0
"""That writing the rest may take at the end."""

# Of a key that has been deleted nothing is written; what another process has written later stays.
_NOTE = text(
    "INSERT INTO key_use (key_id, last_used_at) SELECT id, :at FROM api_keys WHERE id = :key"
    " ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at"
    " WHERE excluded.last_used_at > key_use.last_used_at"
).bindparams(bindparam("at", type_=Double()))

log = logging.getLogger(__name__)


class UsedKeys:
    """Writes down the keys that this process has let in."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys
        self._unwritten: dict[str, float] = {}
        self._is_told = False
        """Whether the log says that it can't be written."""
        self._writing: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to write."""
        self._writing = asyncio.create_task(self._write_on())

    async def close(self) -> None:
        """Write what is left, and end."""
        if self._writing is None:
            return
        self._writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._writing
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LEAVING_SECONDS):
                await self._write()

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self._write()
                self._is_told = False
            except Exception as error:
                # Whatever is wrong with one writing, the next may succeed.
                if not self._is_told:
                    log.warning(
                        "keys go on to be served, but when they were last used can't be written: %s", cause(error)
                    )
                self._is_told = True

    async def _write(self) -> None:
        self._unwritten |= self._keys.take_used()
        if not self._unwritten:
            return
        # In one order, so that no two processes wait for each other.
        noted = [{"key": key, "at": at} for key, at in sorted(self._unwritten.items())]
        async with writing(self._database) as connection:
            await connection.execute(_NOTE, noted)
        self._unwritten = {}

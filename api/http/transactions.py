"""Transactions of requests: a database that does not answer is told of as such."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.contract.database import cause
from api.http.errors import UnavailableError

RETRY_SECONDS = 5
NO_ANSWER = (OperationalError, InterfaceError, PoolTimeoutError, OSError)
"""What a database that is locked for long, or away, raises."""


@asynccontextmanager
async def answering(transaction: AbstractAsyncContextManager[AsyncConnection]) -> AsyncIterator[AsyncConnection]:
    """Run a transaction; raises `UnavailableError` where the database is locked for long, or does not answer."""
    try:
        async with transaction as connection:
            yield connection
    except NO_ANSWER as error:
        detail = f"The database is busy or can't be reached ({cause(error)}). Try again in a moment."
        raise UnavailableError(detail, retry_after=RETRY_SECONDS) from error

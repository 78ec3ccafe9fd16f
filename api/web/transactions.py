"""Transactions of requests: a database that does not answer is told of as such."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.contract.database import Database, cause
from api.web.errors import UnavailableError

RETRY_SECONDS = 5
NO_ANSWER = (OperationalError, InterfaceError, PoolTimeoutError, OSError)
"""What a database that is locked for long, or away, raises."""

_Found = TypeVar("_Found")


async def reading(database: Database, query: Callable[[Connection], _Found]) -> _Found:
    """Return what `query` finds, see `Database.read`; raises `UnavailableError` where the database does not answer."""
    with _answering():
        return await database.read(query)


@asynccontextmanager
async def writing(database: Database) -> AsyncIterator[AsyncConnection]:
    """Open a writing transaction; raises `UnavailableError` where the database is locked for long, or away."""
    with _answering():
        async with database.write() as connection:
            yield connection


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except NO_ANSWER as error:
        detail = f"The database is busy or can't be reached ({cause(error)}). Try again in a moment."
        raise UnavailableError(detail, retry_after=RETRY_SECONDS) from error

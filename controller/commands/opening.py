"""An installation, opened for one command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import cause
from api.contract.exits import ExitError
from api.contract.settings import Settings
from controller.installation import Installation, open_installation
from controller.ports import UnreadableError


class OpeningError(ExitError):
    """The database or the cluster can't be read; the message says why."""


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Installation]:
    """Open the installation of the settings. Raises `SchemaError`, and `OpeningError` for what fails inside as well."""
    try:
        async with open_installation(settings) as installation:
            yield installation
    except (SQLAlchemyError, OSError) as error:
        raise OpeningError(f"the database can't be read: {cause(error)}") from error
    except UnreadableError as error:
        raise OpeningError(error.message) from error

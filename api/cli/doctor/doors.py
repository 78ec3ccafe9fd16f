"""Jobs that were launched before there were doors, or before their recipe asked for one."""

from __future__ import annotations

import asyncio

from api.cli.doctor.check import Check, CheckFailedError, SkippedError
from api.contract.database import SchemaError
from api.contract.settings import Settings
from controller.commands.doors import without_door

NAMED = 10
"""Services that are named; more are only counted."""


class OpenEngines:
    """The check, over one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def checks(self) -> list[Check]:
        """Return the check."""
        return [Check("engines behind doors", self._doors, needs=("database",))]

    def _doors(self) -> str:
        try:
            names = asyncio.run(without_door(self._settings))
        except SchemaError as error:
            raise SkippedError("needs: database") from error
        if not names:
            return "all that are to be"
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise CheckFailedError(
            f"engines of {', '.join(names[:NAMED])}{more} listen on ports of their nodes: they were launched without "
            "a door",
            "; ".join(f"ai-factory services restart {name}" for name in names[:NAMED]),
        )

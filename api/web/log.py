"""Log lines of the programs that serve, on standard error."""

from __future__ import annotations

import logging

from api.contract.log import CountingHandler, formatter
from api.contract.settings import Settings


def log_to_stderr(settings: Settings) -> None:
    """Send everything of the level that is set and above; httpx's line for each request stays out."""
    handler = CountingHandler()
    handler.setFormatter(formatter(settings.log_format))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "aiosqlite", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)

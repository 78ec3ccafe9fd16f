"""Log lines: one JSON object each, on standard error."""

from __future__ import annotations

import logging

from api.contract.log import CountingHandler, JsonLines


def log_to_stderr(level: str) -> None:
    """Send everything of that level and above to standard error; httpx's line for each request stays out."""
    handler = CountingHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "aiosqlite", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)

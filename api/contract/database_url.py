"""Database URLs: as the driver wants them, and as people may see them."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

MASK = "***"
SHOWN = frozenset({"host", "port", "user", "dbname", "database", "ssl", "sslmode", "timeout", "application_name"})
"""The options of a URL that are no secrets; of all others only the names are shown."""
_ODD = re.compile(r"[@=:?&;\s]")
"""What in the name of a database or host tells that something stands in the wrong place, perhaps a password."""


def parse_url(url: str) -> URL | None:
    """Read a URL; `None`: it is none."""
    try:
        return make_url(url)
    except (SQLAlchemyError, ValueError):  # ValueError: a port that is no number
        return None


def shown_url(url: str | URL) -> str:
    """Return a URL without its password, wherever in it that stands."""
    parsed = parse_url(url) if isinstance(url, str) else url
    if parsed is None:
        return MASK
    if parsed.get_backend_name() != "sqlite" and _ODD.search(f"{parsed.database or ''}{parsed.username or ''}"):
        return f"{parsed.get_backend_name()}://{MASK}"
    query = {key: value if key in SHOWN else MASK for key, value in parsed.query.items()}
    return parsed.set(query=query).render_as_string(hide_password=True).replace("%2A%2A%2A", MASK)


def sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite database; `None`: it is no such URL."""
    parsed = parse_url(url)
    if parsed is None or parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)

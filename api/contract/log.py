"""How log lines are written: constant messages with fields, as JSON for programs or as text for people.

Fields come from a call's own `extra`, and from `about`, which gives them to every line of the work that it encloses,
whoever writes it and in whatever task.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType

from api.contract.settings import Settings

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Give these fields to every line that is logged inside."""
    before = _about.get()
    _about.set({**before, **fields})
    try:
        yield
    finally:
        _about.set(before)


def current() -> Mapping[str, object]:
    """Return the fields of the work under way."""
    return _about.get()


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a line: those of the work it belongs to, then its own, which are stronger."""
    own = {key: value for key, value in vars(record).items() if key not in _OWN}
    return {key: value for key, value in {**_about.get(), **own}.items() if value is not None}


class JsonLines(logging.Formatter):
    """One JSON object a line: when, how bad, who, what, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """One line for people, the fields behind the message as `name=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line without what `logging` itself adds below it."""
        return " ".join([super().formatMessage(record), *(f"{k}={_text(v)}" for k, v in fields_of(record).items())])


def log_to_stderr(settings: Settings) -> None:
    """Log the controller's own lines at the level that is set, libraries' from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.controller.log_format == "json" else TextLines())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("controller").setLevel(settings.log_level.upper())


def _text(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not any(c in text for c in ' "=') else json.dumps(text)

"""How log lines are written: constant messages with fields, as JSON for programs or as text for people.

Fields come from a call's own `extra`, and from `about`, which gives them to every line of the work that it encloses,
whoever writes it and in whatever task.

Warnings and errors that repeat are counted instead of written: no trouble, and nobody who makes some, fills the disk.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TextIO

from api.contract.settings import Settings

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


REPEATED_AFTER = 5
"""Lines of one kind, by logger, level and constant message, that are written in a window before others are counted."""
WINDOW_SECONDS = 60.0


class LogFields:
    """A block whose every line that is logged has some fields. No generator: each request of the gateway has one."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        self._before = _about.get()
        _about.set({**self._before, **self._fields})

    def __exit__(self, *_: object) -> None:
        _about.set(self._before)


def about(**fields: object) -> LogFields:
    """Give these fields to every line that is logged inside."""
    return LogFields(fields)


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


def formatter(log_format: str) -> logging.Formatter:
    """Return what writes lines of this format: text or json."""
    return JsonLines() if log_format == "json" else TextLines()


@dataclass(slots=True)
class _Window:
    began_at: float
    written: int = 0
    counted: int = 0
    last: logging.LogRecord | None = None


class Repeats:
    """Which lines are written, and what is said of those that were only counted. Time is that of the lines."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int, str], _Window] = {}

    def take(self, record: logging.LogRecord) -> Iterator[logging.LogRecord]:
        """Take a line in; yield what is to be written now."""
        yield from self._over(record.created - WINDOW_SECONDS)
        if record.levelno < logging.WARNING:
            yield record
            return
        window = self._windows.setdefault(_kind(record), _Window(record.created))
        if window.written < REPEATED_AFTER:
            window.written += 1
            yield record
        else:
            window.counted += 1
            window.last = record

    def rest(self) -> Iterator[logging.LogRecord]:
        """Yield what is still to be said at the end."""
        yield from self._over(float("inf"))

    def _over(self, before: float) -> Iterable[logging.LogRecord]:
        """Close the windows that began before then; return what is to be said of them."""
        over = {key: window for key, window in self._windows.items() if window.began_at <= before}
        for key in over:
            del self._windows[key]
        return [_summary(window) for window in over.values() if window.last is not None]


def _kind(record: logging.LogRecord) -> tuple[str, int, str]:
    """Return what the lines of one kind have in common. Further lines of a message are details (asyncio's are)."""
    return record.name, record.levelno, str(record.msg).partition("\n")[0]


def _summary(window: _Window) -> logging.LogRecord:
    last = window.last
    assert last is not None
    seconds = max(1, round(last.created - window.began_at))
    said = (last.getMessage().partition("\n")[0], window.counted, seconds)
    record = logging.LogRecord(last.name, last.levelno, last.pathname, last.lineno, _REPEATED, said, None)
    record.created = last.created
    return record


_REPEATED = "%s … and %d times more in the last %d s, with whatever details"


class CountingHandler(logging.StreamHandler[TextIO]):
    """Writes to standard error, and counts what repeats."""

    def __init__(self) -> None:
        super().__init__()
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, unless it is only counted."""
        for line in self._repeats.take(record):
            super().emit(line)

    def close(self) -> None:
        """Say what was counted. `logging` calls it at the end of the process."""
        for line in self._repeats.rest():
            super().emit(line)
        super().close()


def log_to_stderr(settings: Settings) -> None:
    """Log the controller's own lines at the level that is set, libraries' from warnings on."""
    handler = CountingHandler()
    handler.setFormatter(formatter(settings.log_format))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("controller").setLevel(settings.log_level.upper())


def _text(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not any(c in text for c in ' "=') else json.dumps(text)

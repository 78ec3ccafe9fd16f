"""Reading what stands behind the question mark, and headers, with words for what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request

from api.web.errors import InvalidError, Problem

LONGEST = 400
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})


class Query:
    """The query of one request. What is wrong is gathered; `check` raises it all at once. The last of a name counts."""

    def __init__(self, request: Request[Any, Any, Any]) -> None:
        text = request.scope["query_string"].decode("latin-1")
        self._values: dict[str, list[str]] = {}
        for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=None):
            self._values.setdefault(name, []).append(value)
        self._problems: list[Problem] = []

    def has(self, names: Iterable[str]) -> bool:
        """Whether any of these is given."""
        return any(name in self._values for name in names)

    def text(self, name: str) -> str | None:
        """Return a text as it is."""
        value = self._values.get(name, [None])[-1]
        if value is not None and (len(value) > LONGEST or "\0" in value or not value.isprintable()):
            self.refuse(name, f"must be at most {LONGEST} printable characters", value[:LONGEST])
            return None
        return value

    def words(self, name: str, known: Sequence[str]) -> list[str]:
        """Return words out of those known, given with commas or again and again."""
        given = [word for value in self._values.get(name, []) for word in value.split(",")]
        for word in given:
            if word not in known:
                self.refuse(name, f"must be one of {', '.join(known)}", word[:LONGEST])
        return given

    def word(self, name: str, known: Sequence[str]) -> str | None:
        """Return one of the words that are known."""
        value = self.text(name)
        if value is not None and value not in known:
            self.refuse(name, f"must be one of {', '.join(known)}", value)
            return None
        return value

    def flag(self, name: str) -> bool | None:
        """Return true or false."""
        value = self.text(name)
        if value is None:
            return None
        if value.lower() not in _TRUE | _FALSE:
            self.refuse(name, "must be true or false", value)
            return None
        return value.lower() in _TRUE

    def number(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number between two others."""
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal() and len(value) < 20 and least <= int(value) <= most):
            self.refuse(name, f"must be a whole number from {least} to {most}", value)
            return None
        return int(value)

    def seconds(self, name: str, most: float) -> float | None:
        """Return a number of seconds."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= most:
            self.refuse(name, f"must be a number of seconds from 0 to {most:g}", value)
            return None
        return number

    def refuse(self, name: str, what: str, value: str) -> None:
        """Note that a parameter is not as it should be."""
        self._problems.append(Problem(loc=("query", name), msg=f"{name} {what}.", type="value_error", input=value))

    def check(self) -> None:
        """Raise `InvalidError` if anything was wrong."""
        if self._problems:
            raise InvalidError(*self._problems)


def bad_header(name: str, what: str, value: str) -> InvalidError:
    """Say what is wrong with a header."""
    return InvalidError(Problem(loc=("header", name), msg=f"{name} {what}.", type="value_error", input=value[:LONGEST]))

"""Text that fits the terminal, and can't steer it."""

from __future__ import annotations

import unicodedata


def fitted(text: str, room: int) -> str:
    """Return a text shortened to so many columns, with an ellipsis."""
    if wide(text) <= room:
        return text
    while wide(text) > room - 1:
        text = text[:-1]
    return text.rstrip() + "…"


def wide(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def printable(text: str) -> str:
    """Return a text on one line and without control characters, which could steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def one_line(text: str) -> str:
    """Return a text with all its white space made single blanks."""
    return printable(" ".join(text.split()))


def duration(seconds: float) -> str:
    """Return a time span in one unit, so that it has two digits or more where it can: `100s`, `12m`, `30h`, `5d`."""
    seconds = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"

"""What is said where a config can't be launched."""

from __future__ import annotations


class ConfigError(Exception):
    """A config can't be launched: `key` names what is wrong (dotted), `message` says why and what to change."""

    def __init__(self, key: str, message: str) -> None:
        self.key = printable(key, 200)
        self.message = printable(message, 4000)
        super().__init__(f"{self.key}: {self.message}" if key else self.message)


def printable(text: str, most: int) -> str:
    """Return a text as databases and answers can hold it: short, and without control characters and surrogates."""
    short = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)

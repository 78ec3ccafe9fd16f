"""Secrets, blotted out of what an engine wrote before anything of it is told on."""

from __future__ import annotations

import re
from collections.abc import Iterable

SHORTEST_LINE = 4
"""Characters. Of a secret of several lines, shorter ones than that tell nothing, and stand everywhere."""


class Redaction:
    """Replaces these secrets, and each of their lines, as they look where a log is read as UTF-8."""

    def __init__(self, secrets: Iterable[str]) -> None:
        texts: set[str] = set()
        for secret in secrets:
            read = secret.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            lines = (line.strip() for line in re.split(r"[\r\n]+", read))
            texts.update([read, *(line for line in lines if len(line) >= SHORTEST_LINE)])
        self._texts = sorted(texts - {""}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text without them. What is cut off a text before may hide a part of one: cut afterwards."""
        for secret in self._texts:
            text = text.replace(secret, "***")
        return text

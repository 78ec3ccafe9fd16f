"""The token: the unique name under which an attempt's job is submitted, and its parts."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"af-(?P<installation>[0-9a-z]+)-(?P<service>[0-9a-zA-Z_]+)-(?P<replica>[0-9]+)-(?P<incarnation>[0-9]+)"
)
ANY_PREFIX = "af-"
"""What every token begins with, of whatever installation."""


@dataclass(frozen=True)
class Token:
    """The parts of a token, the unique name under which an attempt's job is submitted."""

    installation: str
    service: str
    replica: int
    incarnation: int

    def __str__(self) -> str:
        return f"{self.replica_name}-{self.incarnation}"

    @property
    def replica_name(self) -> str:
        """What all tokens of one replica begin with."""
        return f"{prefix(self.installation)}{self.service}-{self.replica}"


def prefix(installation: str) -> str:
    """Return what every token of an installation begins with."""
    return f"{ANY_PREFIX}{installation}-"


def parse_token(text: str) -> Token | None:
    """Read a token; `None` if the text is none."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    return Token(match["installation"], match["service"], int(match["replica"]), int(match["incarnation"]))

"""Slurm's short form of node lists, as far as it is needed: `rack[1-2]n[001-016],login1`."""

from __future__ import annotations

import re

_RANGE = re.compile(r"\[([^\],-]+)[^\]]*\]")
_NOBODY = frozenset({"", "n/a", "(null)", "None assigned", "None", "Unknown"})


def first_host(text: str) -> str | None:
    """Return the first node of a list, `None` where Slurm says that there is none.

    Numbers keep their leading zeros, and of several ranges in one name each gives its first ("HOSTLIST" of
    scontrol(1)).
    """
    if text in _NOBODY:
        return None
    outside = _RANGE.sub(lambda match: match[1], text)
    return outside.partition(",")[0]

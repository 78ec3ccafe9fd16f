"""JSON as it is read from the database, where people's own SQL may have put what no program here can work with."""

from __future__ import annotations

import json
import sys
from typing import Any

DEEPEST = 64
"""Levels of arrays and objects."""
LONGEST_NUMBER = 4300
"""Digits: Python reads no longer ones (sys.int_info)."""


class TooDeep(dict[str, Any]):
    """Stands for what is nested too deeply; it is empty."""


def read_json(text: str) -> Any:
    """Read the text of a column, whatever SQL has put there: one row must not hold all others up.

    A number beyond all floats is the largest of them; what is nested too deeply is `TooDeep`.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite)
    except RecursionError:
        return TooDeep()
    may_be_deep = text.count("[") + text.count("{") > DEEPEST
    return TooDeep() if may_be_deep and is_deeper(value, DEEPEST) else value


def is_deeper(value: Any, levels: int) -> bool:
    """Whether a value has more levels of arrays and objects than that."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(is_deeper(item, levels - 1) for item in inner if isinstance(item, dict | list))


def _whole(text: str) -> int | float:
    return int(text) if len(text) <= LONGEST_NUMBER else _finite(text)


def _finite(text: str) -> float:
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))

"""How large a config may be: it is stored, and stands in every answer that tells of its service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from api.contract.json_columns import TooDeep

MOST_BYTES = 64 * 1024
"""Of its JSON, in UTF-8 and without blanks."""
TOO_DEEP = "It is nested too deeply. Take levels out."


def size_problem(config: Mapping[str, Any]) -> str | None:
    """Return what is to be said of a config that is too large; `None`: it is not."""
    if isinstance(config, TooDeep):
        return TOO_DEEP
    try:
        text = json.dumps(config, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        return None  # a number of thousands of digits
    size = len(text.encode(errors="surrogatepass"))
    if size <= MOST_BYTES:
        return None
    return f"It has {size:,} bytes, and may have {MOST_BYTES:,}. Put what is large into files that it names."

"""Words for images."""

from __future__ import annotations

import re

from controller.commands.images import ImageFacts


def origin(image: ImageFacts) -> str:
    """Return what an image was made of, in few words."""
    if image["source"] is not None:
        return str(image["source"])
    if image["definition"] is None:
        return "unknown"
    base = re.search(r"^\s*from\s*:\s*(\S+)", image["definition"], re.IGNORECASE | re.MULTILINE)
    return f"definition from {base[1]}" if base else "definition"


def size(number: float) -> str:
    """Return a number of bytes in a unit that leaves up to four digits."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"

"""What lies in the cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from controller.wrapper.cache import Entry, read_record

_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One image that is whole and in its place. Times in Unix seconds."""

    key: str
    path: str
    source: str | None = None
    """The OCI reference it was pulled by."""
    definition: str | None = None
    """The text it was built from; neither is known of images that an older version made."""
    sha256: str | None = None
    """What was written down when it was made."""
    size: int
    """Bytes on the disk now."""
    made_at: float
    used_at: float
    """When a job took it last, or the controller saw it wanted; else when it was made."""


def stock(cache: Path) -> tuple[Stored, ...]:
    """Return the images, in the order of their keys. Raises `OSError`; a cache that is not there is empty."""
    found = (read(Entry(cache, path.stem)) for path in sorted(cache.glob("*.sif")) if _KEY.fullmatch(path.stem))
    return tuple(image for image in found if image is not None)


def read(entry: Entry) -> Stored | None:
    """Return one image; `None`: there is none of that key."""
    try:
        status = entry.image.stat()
    except FileNotFoundError:
        return None
    record = read_record(entry)
    made_at = record.made_at if record is not None else status.st_mtime
    return Stored(
        key=entry.key,
        path=str(entry.image),
        source=record.source if record is not None else None,
        definition=record.definition if record is not None else None,
        sha256=record.sha256 if record is not None else None,
        size=status.st_size,
        made_at=made_at,
        used_at=max(made_at, _touched(entry)),
    )


def _touched(entry: Entry) -> float:
    try:
        return entry.used.stat().st_mtime
    except FileNotFoundError:
        return 0.0

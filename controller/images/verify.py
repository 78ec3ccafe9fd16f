"""Whether an image is what was made: its digest against the record, and whether Apptainer can read it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controller.images.stock import Stored, read
from controller.wrapper import cache
from controller.wrapper.cache import Entry

SECONDS = 60.0
"""For Apptainer to read a header."""


class ImageHealth(StrEnum):
    """How an image was found."""

    OK = "ok"
    DAMAGED = "damaged"
    UNRECORDED = "unrecorded"
    """Readable, but without a digest to compare with: made by an older version, or its maker was killed at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFinding:
    """What was found of one image."""

    image: Stored
    health: ImageHealth
    message: str = ""


def verify(image: Stored, apptainer: str) -> ImageFinding:
    """Read the whole image; raises `OSError`."""
    path = Path(image.path)
    if image.sha256 is not None and (found := cache.sha256(path)) != image.sha256:
        now = read(Entry(path.parent, image.key))
        if now is not None and now.sha256 != image.sha256:  # it was made anew meanwhile
            return verify(now, apptainer)
        message = f"its SHA-256 is {found}, but {image.sha256} was written down when it was made"
        return ImageFinding(image=image, health=ImageHealth.DAMAGED, message=message)
    trouble, note = _read_by_apptainer(path, apptainer)
    if trouble:
        return ImageFinding(image=image, health=ImageHealth.DAMAGED, message=trouble)
    if image.sha256 is None:
        return ImageFinding(
            image=image, health=ImageHealth.UNRECORDED, message=note or "no digest was written down for it"
        )
    return ImageFinding(image=image, health=ImageHealth.OK, message=note)


def _read_by_apptainer(path: Path, apptainer: str) -> tuple[str, str]:
    """Have Apptainer read the file's table of contents; return its complaint, and what is to be noted besides."""
    command = [apptainer, "sif", "list", str(path)]
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        said = error.strerror if isinstance(error, OSError) else "no answer"
        return "", f"not read by Apptainer ({apptainer} on this host: {said})"
    if ended.returncode == 0:
        return "", ""
    lines = [line for line in ended.stderr.splitlines() if "rror" in line] or ended.stderr.splitlines()
    return f"Apptainer can't read it: {' '.join(lines[:1]).strip() or f'exit code {ended.returncode}'}", ""

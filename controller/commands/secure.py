"""Take from others what they need not have in STATE_DIR and RUN_DIR, and tell what may have been changed before.

Services run meanwhile: nothing is moved, and who has a file open goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from api.contract.settings import Settings
from api.contract.trust import IMAGES, Fault, Finding, inspect
from controller.images.stock import Stored, read, stock
from controller.images.verify import ImageHealth, verify
from controller.wrapper.cache import Entry

ANEW = "Have it made anew: ai-factory images pull RECIPE --refresh (jobs refuse this one)"


class Secured(TypedDict):
    """One folder or file that was not as it should be."""

    path: str
    found: str
    done: str
    """What was done, or what is left to do."""
    is_well: bool
    """Whether nothing is left to do."""


def secure(settings: Settings) -> Iterator[Secured]:
    """Mend what can be, and yield what was found, as it is done."""
    images = settings.run_dir / IMAGES
    was_open = False
    for finding in inspect(settings):
        if not finding.mode:
            yield _told(finding, finding.remedy, is_well=finding.fault is Fault.SHARED)
        elif finding.fault is Fault.WRITABLE and finding.path.parent == images:
            yield _of_the_cache(finding, settings.apptainer.command)
        else:
            yield _tightened(finding)
            was_open = was_open or (finding.path == images and finding.fault is Fault.WRITABLE)
    for image in stock(images) if was_open else ():
        yield _proven(image, settings.apptainer.command)


def _of_the_cache(finding: Finding, apptainer: str) -> Secured:
    """Close a file of an image, if that is what it was; else jobs are to go on refusing it."""
    path = finding.path
    if path.suffix == ".seen":
        path.unlink(missing_ok=True)
        return _told(finding, "removed; the next job reads the image in full", is_well=True)
    if path.suffix == ".json":
        return _told(finding, f"A record that others could write proves nothing. {ANEW}", is_well=False)
    if path.suffix != ".sif":
        return _tightened(finding)
    image = read(Entry(path.parent, path.stem))
    proven = _proven(image, apptainer) if image is not None else None
    if proven is not None and not proven["is_well"]:
        return _told(finding, proven["done"], is_well=False)
    closed = _tightened(finding)
    return closed | {"done": f"its SHA-256 is the recorded one; {closed['done']}"}


def _proven(image: Stored, apptainer: str) -> Secured:
    """Compare an image with what was written down when it was made."""
    path, found = Path(image.path), verify(image, apptainer)
    what = f"{path} lies where others could write"
    if found.health is ImageHealth.OK:
        return Secured(path=str(path), found=what, done="its SHA-256 is the recorded one", is_well=True)
    return Secured(path=str(path), found=what, done=f"{found.message}. {ANEW}", is_well=False)


def _tightened(finding: Finding) -> Secured:
    try:
        done = finding.tighten()
    except OSError as error:
        return _told(finding, f"Its mode can't be changed: {error.strerror}", is_well=False)
    if finding.path.stat().st_mode & 0o077 & ~finding.mode:
        return _told(finding, "Its mode stays as it is: this file system keeps none. Use another", is_well=False)
    unproven = finding.fault is Fault.WRITABLE and finding.path.is_file() and finding.path.suffix not in (".pyz", ".sh")
    return _told(finding, f"{done}; nothing tells whether it was changed" if unproven else done, is_well=True)


def _told(finding: Finding, done: str, *, is_well: bool) -> Secured:
    return Secured(path=str(finding.path), found=finding.what, done=done, is_well=is_well)

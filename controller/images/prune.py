"""Clears away images that nothing uses, and what makers and removers left behind when they were killed."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from controller.images.stock import Stored, stock
from controller.images.usage import Usage
from controller.wrapper import cache
from controller.wrapper.cache import Entry
from controller.wrapper.files import remove

_LEFT = re.compile(r"\.([0-9a-f]{16})\.(?:partial|[0-9]+\.old)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneVerdict:
    """What becomes of an image."""

    image: Stored
    removed: bool
    why: str
    """Why it stays, or why it may go."""


def decide(images: Iterable[Stored], usage: Usage, *, now: float, unused_for: float) -> tuple[PruneVerdict, ...]:
    """Judge every image: what is used stays, and so does what was used in the last `unused_for` seconds. Pure.

    While it is not known of some job what it uses, all stay.
    """
    return tuple(_judge(image, usage, now=now, unused_for=unused_for) for image in images)


def _judge(image: Stored, usage: Usage, *, now: float, unused_for: float) -> PruneVerdict:
    def stays(why: str) -> PruneVerdict:
        return PruneVerdict(image=image, removed=False, why=why)

    if services := usage.services.get(image.key):
        return stays(f"used by {', '.join(services)}")
    if jobs := usage.jobs.get(image.key):
        return stays(f"used by the job {', '.join(jobs)}")
    if usage.unknown:
        return stays(f"nothing says yet which image {', '.join(usage.unknown)} uses")
    if now - image.used_at < unused_for:
        return stays(f"unused for less than {unused_for / 86400:g} days")
    return PruneVerdict(image=image, removed=True, why="unused")


def sweep(folder: Path, usage: Usage, *, now: float, unused_for: float, dry: bool = False) -> tuple[PruneVerdict, ...]:
    """Remove what may go from the cache; `dry` only tells. Raises `OSError`."""
    verdicts = decide(stock(folder), usage, now=now, unused_for=unused_for)
    if dry:
        return verdicts
    for key in usage.keys:
        entry = Entry(folder, key)
        if entry.image.exists():
            cache.touch(entry)
    done = tuple(take_away(verdict) if verdict.removed else verdict for verdict in verdicts)
    _clear_leftovers(folder)
    return done


def take_away(verdict: PruneVerdict) -> PruneVerdict:
    """Remove the image of a verdict, unless a job holds it or somebody is making it anew; say what came of it."""

    def stays(why: str) -> PruneVerdict:
        return PruneVerdict(image=verdict.image, removed=False, why=why)

    path = Path(verdict.image.path)
    entry = Entry(path.parent, verdict.image.key)
    try:
        with cache.locked(entry.lock, _do_not_wait):
            return verdict if cache.discard(entry) else stays("a running job uses it")
    except BlockingIOError:
        return stays("it is being made anew")
    except OSError as error:
        return stays(f"it can't be removed: {error.strerror or error}")


def _do_not_wait() -> None:
    raise BlockingIOError(errno.EAGAIN, "somebody has it")


def _clear_leftovers(folder: Path) -> None:
    """Remove partial files whose makers are dead, and replaced or half removed images that no job holds any more."""
    left = {match[1] for path in folder.glob(".*") if (match := _LEFT.fullmatch(path.name))}
    for key in left:
        entry = Entry(folder, key)
        try:
            with cache.locked(entry.lock, _do_not_wait):
                remove(entry.partial)
                cache.clear_aside(entry)
        except OSError:
            continue

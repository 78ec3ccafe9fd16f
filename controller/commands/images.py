"""The container images in run_dir: listed, made, verified, cleared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypedDict

from api.contract.database import SchemaError
from api.contract.exits import Exit, ExitError
from api.contract.settings import Settings
from controller.commands.opening import OpeningError, opened
from controller.images.make import make
from controller.images.prune import PruneVerdict, sweep, take_away
from controller.images.stock import Stored, stock
from controller.images.usage import Usage, usage
from controller.images.verify import ImageFinding, ImageHealth, verify
from controller.images.wish import image_of
from controller.installation import Installation

Tell = Callable[[str], None]
"""Is given what people should know beside the result."""


class UnknownImageError(ExitError):
    """There is no such image in the cache."""

    code = Exit.NOT_FOUND


class CacheError(ExitError):
    """The cache can't be used; the message says why."""


class ImageFacts(TypedDict):
    """What is known of an image."""

    key: str
    path: str
    source: str | None
    definition: str | None
    sha256: str | None
    size: int
    made_at: str
    """ISO 8601, as `used_at`."""
    used_at: str


class ListedImage(ImageFacts):
    """An image, and who uses it; `None`: that is not known."""

    services: Sequence[str] | None
    jobs: Sequence[str] | None


class MadeImage(ImageFacts):
    """An image, and whether it was made now."""

    made: bool


class VerifiedImage(ImageFacts):
    """An image, and how it was found."""

    state: str
    message: str
    removed: bool


class JudgedImage(ImageFacts):
    """An image, and what became of it."""

    removed: bool
    why: str


async def list_images(settings: Settings, tell: Tell) -> list[ListedImage]:
    """Return the images; `tell` is told why it is not known who uses them. Raises `CacheError`."""
    with _cache_errors():
        images = stock(settings.run_dir / "images")
    used: Usage | None = None
    try:
        async with opened(settings) as installation:
            used = await _usage(installation)
    except OpeningError as error:
        tell(f"who uses them is not known, since {error}")
    except SchemaError as error:
        tell(f"who uses them is not known, since the database can't be read: {error}")
    return [_listed(image, used) for image in images]


async def make_image(settings: Settings, what: str, *, where: str | None, refresh: bool, tell: Tell) -> MadeImage:
    """Make the image of a recipe, a reference or a definition file, `where` instead of `images.build`.

    Cancelled, it ends the maker, and leaves nothing behind. Raises `WishError`, `MakeError`, `CacheError`.
    """
    with _cache_errors():
        image, in_job = image_of(settings, what), (where or settings.images.build) == "job"
        stored, made = await make(settings, image, in_job=in_job, refresh=refresh, tell=tell)
    return MadeImage(**_facts(stored), made=made)


def verify_images(settings: Settings, keys: Sequence[str], *, remove: bool) -> list[VerifiedImage]:
    """Verify the images whose keys begin so, or all; `remove` those that are damaged, unless they are in use.

    Raises `UnknownImageError`, `CacheError`.
    """
    with _cache_errors():
        images = stock(settings.run_dir / "images")
        chosen = [_named(images, key) for key in keys] or images
        return [_checked(verify(image, settings.apptainer.command), remove=remove) for image in chosen]


async def prune_images(settings: Settings, *, unused_for: float, dry: bool) -> list[JudgedImage]:
    """Remove the images that nothing uses, and nothing has used for so many seconds; `dry` only tells.

    Raises `SchemaError`, `OpeningError`, `CacheError`.
    """
    async with opened(settings) as installation:
        used = await _usage(installation)
    with _cache_errors():
        verdicts = sweep(settings.run_dir / "images", used, now=time.time(), unused_for=unused_for, dry=dry)
    return [JudgedImage(**_facts(each.image), removed=each.removed, why=each.why) for each in verdicts]


@contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(f"{error}. Try: ai-factory doctor") from error


async def _usage(installation: Installation) -> Usage:
    return await usage(installation.database, installation.wanted, installation.jobs)


def _named(images: Sequence[Stored], key: str) -> Stored:
    found = [image for image in images if image.key.startswith(key)]
    if len(found) != 1:
        what = "There is no image" if not found else "More than one image begins with"
        raise UnknownImageError(f"{what} {key}. See: ai-factory images list")
    return found[0]


def _checked(finding: ImageFinding, *, remove: bool) -> VerifiedImage:
    message, removed = finding.message, False
    if finding.health is ImageHealth.DAMAGED and remove:
        verdict = take_away(PruneVerdict(image=finding.image, removed=True, why=""))
        removed = verdict.removed
        message += f"; {verdict.why}" if verdict.why else ""
    return VerifiedImage(**_facts(finding.image), state=finding.health, message=message, removed=removed)


def _listed(image: Stored, used: Usage | None) -> ListedImage:
    if used is None:
        return ListedImage(**_facts(image), services=None, jobs=None)
    services, jobs = used.services.get(image.key, ()), used.jobs.get(image.key, ())
    return ListedImage(**_facts(image), services=services, jobs=jobs)


def _facts(image: Stored) -> ImageFacts:
    return ImageFacts(
        key=image.key,
        path=image.path,
        source=image.source,
        definition=image.definition,
        sha256=image.sha256,
        size=image.size,
        made_at=_time(image.made_at),
        used_at=_time(image.used_at),
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

"""`python -m controller images …`: answers the command line in JSON, on standard output."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import Database, SchemaError, cause, open_database
from api.contract.recipes.book import Library
from api.contract.settings import Settings
from controller.images.make import MakeError, make
from controller.images.prune import Verdict, sweep, take_away
from controller.images.stock import Stored, stock
from controller.images.usage import Usage, usage
from controller.images.verify import Finding, Health, verify
from controller.images.wish import UnknownRecipeError, WishError, image_of
from controller.store import installation_id
from controller.wanted import Wanted

FAILED = 1
SETUP_FAILED = 3
NOT_FOUND = 5
INTERRUPTED = 130


class UnknownImageError(Exception):
    """There is no such image in the cache."""


def add(commands: Any) -> None:
    """Add the command to a parser."""
    images = commands.add_parser("images", help="list, make, verify and clear container images")
    verbs = images.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list")
    making = verbs.add_parser("make")
    making.add_argument("what", help="a recipe, a reference or a .def file")
    making.add_argument("--where", choices=("host", "job"), help="instead of images.build")
    making.add_argument("--refresh", action="store_true")
    verifying = verbs.add_parser("verify")
    verifying.add_argument("keys", nargs="*")
    verifying.add_argument("--remove", action="store_true")
    pruning = verbs.add_parser("prune")
    pruning.add_argument("--unused-for", type=float, required=True, help="days")
    pruning.add_argument("--dry-run", action="store_true")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Carry it out; return the exit code."""
    verbs = {"list": _list, "make": _make, "verify": _verify, "prune": _prune}
    try:
        return verbs[options.verb](settings, options)
    except (UnknownRecipeError, UnknownImageError) as error:
        return _complain(str(error), NOT_FOUND)
    except (WishError, MakeError) as error:
        return _complain(str(error), FAILED)
    except (SQLAlchemyError, OSError) as error:
        return _complain(f"{cause(error)}. Try: ai-factory doctor", FAILED)


def _list(settings: Settings, _: argparse.Namespace) -> int:
    images = stock(settings.run_dir / "images")
    used: Usage | None = None
    try:
        used = asyncio.run(_usage(settings))
    except (SchemaError, SQLAlchemyError, OSError) as error:
        told = str(error) if isinstance(error, SchemaError) else cause(error)
        print(f"ai-factory: who uses them is not known, since the database can't be read: {told}", file=sys.stderr)
    _print([_listed(image, used) for image in images])
    return 0


def _make(settings: Settings, options: argparse.Namespace) -> int:
    image = image_of(settings, options.what)
    in_job = (options.where or settings.images.build) == "job"

    async def work() -> tuple[Stored, bool]:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _once(task.cancel))
        return await make(settings, image, in_job=in_job, refresh=options.refresh, tell=_tell)

    try:
        stored, made = asyncio.run(work())
    except asyncio.CancelledError:
        return _complain("interrupted; nothing was made.", INTERRUPTED)
    _print({**_told(stored), "made": made})
    return 0


def _once(cancel: Any) -> Any:
    """Heed the first signal only: a second one would cut the clean-up short."""
    left = [cancel]
    return lambda: left.pop()() if left else None


def _verify(settings: Settings, options: argparse.Namespace) -> int:
    images = stock(settings.run_dir / "images")
    chosen = [_named(images, key) for key in options.keys] or images
    found = [_checked(verify(image, settings.apptainer.command), remove=options.remove) for image in chosen]
    _print(found)
    return FAILED if any(each["state"] == Health.DAMAGED for each in found) else 0


def _named(images: Iterable[Stored], key: str) -> Stored:
    found = [image for image in images if image.key.startswith(key)]
    if len(found) != 1:
        what = "There is no image" if not found else "More than one image begins with"
        raise UnknownImageError(f"{what} {key}. See: ai-factory images list")
    return found[0]


def _checked(finding: Finding, *, remove: bool) -> dict[str, Any]:
    told = {**_told(finding.image), "state": finding.health, "message": finding.message, "removed": False}
    if finding.health is Health.DAMAGED and remove:
        verdict = take_away(Verdict(image=finding.image, removed=True, why=""))
        told["removed"] = verdict.removed
        told["message"] += f"; {verdict.why}" if verdict.why else ""
    return told


def _prune(settings: Settings, options: argparse.Namespace) -> int:
    used = asyncio.run(_usage(settings))
    seconds = options.unused_for * 86400
    cache = settings.run_dir / "images"
    verdicts = sweep(cache, used, now=time.time(), unused_for=seconds, dry=options.dry_run)
    _print([{**_told(each.image), "removed": each.removed, "why": each.why} for each in verdicts])
    return 0


async def _usage(settings: Settings) -> Usage:
    database: Database = await open_database(settings.database_url)
    try:
        installation = await installation_id(database)
        wanted = Wanted(installation, Library(settings.recipes, settings.recipe), settings.slurm)
        return await usage(database, wanted, settings.run_dir / installation)
    finally:
        await database.close()


def _listed(image: Stored, used: Usage | None) -> dict[str, Any]:
    if used is None:
        return {**_told(image), "services": None, "jobs": None}
    return {**_told(image), "services": used.services.get(image.key, ()), "jobs": used.jobs.get(image.key, ())}


def _told(image: Stored) -> dict[str, Any]:
    return {**asdict(image), "made_at": _time(image.made_at), "used_at": _time(image.used_at)}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _print(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


def _tell(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _complain(message: str, code: int) -> int:
    print(f"ai-factory: {message}", file=sys.stderr)
    return code

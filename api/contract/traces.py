"""Traces of installations in STATE_DIR and RUN_DIR: they outlive a database, and tell that it is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from api.contract.job.own_trouble import is_own_trouble
from api.contract.job.private import open_regular
from api.contract.job.token import parse_token
from api.contract.settings import Settings

PLANS = "plans.jsonl"
"""The controller's log of plans, in STATE_DIR; the older half of it has the suffix `.1`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What was found."""

    plans: Path
    """The log of plans."""
    planned: str | None
    """The installation of the newest plan in it."""
    jobs: tuple[Path, ...]
    """The folders in RUN_DIR that hold this user's jobs, one an installation; its name is the installation's id."""
    key_file: Path | None
    """`None`: there is none."""

    @property
    def installations(self) -> frozenset[str]:
        """All that have left something."""
        return frozenset(folder.name for folder in self.jobs) | ({self.planned} if self.planned else set())

    @property
    def run_from_here(self) -> tuple[str, ...]:
        """The installations whose database was that of these settings: their plans, or at least a key, lie with it.

        Job folders alone may be of another installation of this user, with a STATE_DIR of its own.
        """
        if self.planned:
            return (self.planned,)
        return tuple(folder.name for folder in self.jobs) if self.key_file else ()

    def paths_of(self, installation: str) -> tuple[Path, ...]:
        """Return where an installation has left something."""
        plans = (self.plans,) if installation == self.planned else ()
        return (*plans, *(folder for folder in self.jobs if folder.name == installation))


def find_traces(settings: Settings) -> Traces:
    """Look for traces. What can't be read is taken for none; raises `OSError` where this host can't look."""
    plans = settings.state_dir / PLANS
    return Traces(
        plans=plans,
        planned=_newest_planned(plans) or _newest_planned(plans.with_name(f"{PLANS}.1")),
        jobs=job_folders(settings.run_dir),
        key_file=settings.key_file if settings.key_file.exists() else None,
    )


def job_folders(run_dir: Path) -> tuple[Path, ...]:
    """Return the folders in RUN_DIR that hold this user's jobs, one an installation."""
    return tuple(sorted(folder for folder in _own_folders(run_dir) if _holds_jobs(folder)))


class _PlannedFor(msgspec.Struct, frozen=True):
    installation: str


class _PlanLine(msgspec.Struct, frozen=True):
    desired: _PlannedFor


def _newest_planned(path: Path) -> str | None:
    """Return the installation that the last line names which can be read."""
    decoder = msgspec.json.Decoder(_PlanLine)
    newest = None
    try:
        with open_regular(path) as lines:
            for line in lines:
                try:
                    newest = decoder.decode(line).desired.installation
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue  # cut short by a full disk
    except OSError as error:
        if is_own_trouble(error):
            raise
        return None
    return newest


def _holds_jobs(folder: Path) -> bool:
    """Whether it is RUN_DIR/<installation>, with <service>/<token> in it."""
    tokens = (parse_token(job.name) for service in _own_folders(folder) for job in _own_folders(service))
    return any(token is not None and token.installation == folder.name for token in tokens)


def _own_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder that belong to this user."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                    yield Path(entry.path)
    except OSError as error:
        if is_own_trouble(error):
            raise
        return

"""Where a job's folder lies on the shared file system, and what is in it.

RUN_DIR/INSTALLATION/SERVICE/TOKEN          the folder of an attempt's job
RUN_DIR/INSTALLATION/SERVICE/REPLICA.slot   the lock of a replica: whose engine may live; REPLICA.b.slot of lane b
RUN_DIR/lib                                 what all jobs run, under names that tell its content
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from api.contract.job.own_trouble import is_own_trouble
from api.contract.job.private import open_regular
from api.contract.job.token import Token
from api.contract.job.words import Lane

CLAIM = "claim"
"""Who runs the attempt, or that it was revoked; made by link(2), once."""
PARAMETERS = "params.json"
"""What the job is to run. It holds the attempt's secret, and the job removes it."""
DRAIN = "drain"
"""While it is there, the door lets nobody new in. An empty file, the controller's."""
CLOSED = "closed"
"""Its attempt is closed: who tells the job to end now is the controller. An empty file, the controller's."""
STATE = "state.json"
"""How far the job is, and by the time of its last change that its wrapper lives."""
EXIT = "exit.json"
"""How it ended."""
PROBE = "probe.json"
"""The controller's own note: how the engine is probed. What the service is later says nothing of that."""
PROLOGUE = "prologue.sh"
"""The site's own shell text."""
RECIPE_FILES = "files"
"""The folder of the files that travel with the recipe."""
STDOUT = "stdout.log"
STDERR = "stderr.log"
LOGS = (STDOUT, STDERR)
"""What the job writes. What was in one before it was rotated lies beside it, and so does its first part."""

DIGITS = 32
"""Hexadecimal ones of a SHA-256 in a name: so many that nobody finds another content for it."""
_NAMED = re.compile(r"[a-z]+-([0-9a-f]{12,64})\.[a-z]+")
"""Releases before 1.1 named by 12 digits."""

_SLOT = ".slot"


def jobs_folder(run_dir: Path, installation: str) -> Path:
    """Return where the jobs of an installation have their folders."""
    return run_dir / installation


def job_folder(jobs: Path, service_id: str, token: str) -> Path:
    """Return the folder of one job, below those of its installation."""
    return jobs / service_id / token


def slot_folder(job: Path, token: Token, lane: Lane = Lane.MAIN) -> Path:
    """Return where the jobs of a replica's lane settle whose engine may live; `job`: the folder of one of them."""
    of_lane = "" if lane is Lane.MAIN else f".{lane}"
    return job.with_name(f"{token.replica_name}{of_lane}{_SLOT}")


def is_slot(folder: Path) -> bool:
    """Whether what lies beside job folders is a slot."""
    return folder.suffix == _SLOT


def library(run_dir: Path) -> Path:
    """Return the folder of what all jobs run."""
    return run_dir / "lib"


def name_of(content: bytes, stem: str, suffix: str) -> str:
    """Return the name under which it lies in the library: another content never gets the same one."""
    return f"{stem}-{hashlib.sha256(content).hexdigest()[:DIGITS]}{suffix}"


def is_what_its_name_says(name: str, content: bytes) -> bool:
    """Whether a file of the library holds what its name tells. No job is given another name."""
    told = _NAMED.fullmatch(name)
    return told is None or hashlib.sha256(content).hexdigest().startswith(told[1])


def rotated(log: Path) -> Path:
    """Return where what was in a log before lies, if it was rotated."""
    return log.with_name(f"{log.name}.1")


def first_part(log: Path) -> Path:
    """Return where a log's beginning lies, if it was rotated."""
    return log.with_name(f"{log.name}.0")


def read_object(path: Path, most: int = -1) -> dict[str, Any]:
    """Read a file that holds a JSON object; what is absent, garbled or longer than `most` bytes is an empty one.

    Raises `OSError` where this host is short of what it takes to look: that says nothing of the file.
    """
    try:
        with open_regular(path) as file:
            value = json.loads(file.read(most))
    except (OSError, ValueError, RecursionError) as error:
        if is_own_trouble(error):
            raise
        return {}
    return value if isinstance(value, dict) else {}

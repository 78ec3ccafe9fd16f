"""The claim: whoever links it first runs the engine, everybody else goes away.

link(2) is atomic on NFS too, but its answer may be lost: a repeated request then says that the file exists although the
first one made it. So after every error the files themselves are asked who won.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from api.contract.job.folder import CLAIM
from controller.wrapper.files import is_linked, remove, write_new


@dataclass(frozen=True)
class Claimant:
    """A job as it writes itself into the claim."""

    job_id: int
    restarts: int
    host: str
    at: float
    """Unix seconds of the node's clock; for people only."""


class ClaimLostError(Exception):
    """Another job holds the claim, or the controller revoked it."""


class NoClaimError(Exception):
    """The claim could not be made, and nobody is known to hold it."""


def take(folder: Path, job_id: int) -> None:
    """Claim the attempt for this run of this job, once; raises `ClaimLostError` or `NoClaimError`.

    A job may come twice under one id: a slurmctld that has lost its latest state starts what runs anew, elsewhere.
    """
    holder = Claimant(job_id=job_id, restarts=0, host=socket.gethostname(), at=time.time())
    temporary = folder / f".{CLAIM}.{job_id}.{holder.host}.{os.getpid()}"
    content = json.dumps(asdict(holder))
    try:
        write_new(temporary, content)
        _link(temporary, folder / CLAIM, content)
    except OSError as error:
        raise NoClaimError(f"cannot claim {folder}: {error}") from error
    finally:
        remove(temporary)


def _link(temporary: Path, claim: Path, content: str) -> None:
    try:
        os.link(temporary, claim)
    except OSError as error:
        if is_linked(temporary) or _holds(claim, content):
            return
        owner = _owner(claim)
        if not isinstance(error, FileExistsError) and owner is None:
            raise
        raise ClaimLostError(f"the claim is {f'held by job {owner}' if owner else 'revoked or garbled'}") from error


def _holds(claim: Path, content: str) -> bool:
    try:
        return claim.read_text(encoding="utf-8") == content
    except (OSError, ValueError):
        return False


def _owner(claim: Path) -> int | None:
    """Return the job that holds the claim; `None` if it is absent, revoked, garbled, or of a job's earlier run."""
    try:
        held = json.loads(claim.read_text(encoding="utf-8"))
        return int(held["job_id"]) if held.get("restarts") == 0 else None
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None

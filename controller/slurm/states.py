"""The tables from Slurm's state words to what they mean to us.

The words are the long forms of squeue's `%T` and sacct's `State`, from "JOB STATE CODES" of squeue(1) and sacct(1)
of 22.05, 24.11 and 26.05; those that only show for a moment, or with features that few sites use, are there too.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controller.core.jobs import JobEnd, JobPhase

PHASES: Mapping[str, JobPhase] = MappingProxyType(
    {
        "PENDING": JobPhase.PENDING,
        # The nodes are allocated but booting or in their prolog: the batch script is launched only after this word
        # is gone. The time limit runs already, so `started_at` and `ends_at` are known all the same.
        "CONFIGURING": JobPhase.PENDING,
        # Back in the queue under the same id: held, or soon to wait again. Never over for Slurm.
        "REQUEUED": JobPhase.PENDING,
        "REQUEUE_FED": JobPhase.PENDING,
        "REQUEUE_HOLD": JobPhase.PENDING,
        "SPECIAL_EXIT": JobPhase.PENDING,
        "RESV_DEL_HOLD": JobPhase.PENDING,
        "LAUNCH_FAILED": JobPhase.PENDING,
        "RECONFIG_FAIL": JobPhase.PENDING,
        "EXPEDITING": JobPhase.PENDING,
        "RUNNING": JobPhase.RUNNING,
        "RESIZING": JobPhase.RUNNING,
        "SIGNALING": JobPhase.RUNNING,
        "SUSPENDED": JobPhase.SUSPENDED,
        "STOPPED": JobPhase.SUSPENDED,
        "COMPLETING": JobPhase.COMPLETING,
        "STAGE_OUT": JobPhase.COMPLETING,
    }
)
ENDS: Mapping[str, JobEnd] = MappingProxyType(
    {
        "BOOT_FAIL": JobEnd.BOOT_FAILED,
        "CANCELLED": JobEnd.CANCELLED,
        "COMPLETED": JobEnd.COMPLETED,
        "DEADLINE": JobEnd.DEADLINE,
        "FAILED": JobEnd.FAILED,
        "NODE_FAIL": JobEnd.NODE_FAILED,
        "OUT_OF_MEMORY": JobEnd.OUT_OF_MEMORY,
        "PREEMPTED": JobEnd.PREEMPTED,
        "TIMEOUT": JobEnd.TIME_LIMIT,
    }
)

LEAVING = frozenset({"draining", "drained", "failing", "fail", "down"})
"""States of nodes that are being taken out of service: what runs goes on for a while, nothing new is placed there.

The long forms of sinfo's `%T`. What stands behind them (`draining*`, `draining@`) tells of other things. A node in a
maintenance reservation shows no word of its own while a job runs on it (22.05, measured).
"""

UNKNOWN = JobPhase.RUNNING
"""What a word that is not in the table counts as. Of all phases it destroys and duplicates least: not ended (no
second job is sent), not pending (a claimed job seen pending counts as requeued), not completing (about to be gone).
REVOKED is meant to be among these: in a federation it says that the job runs on another cluster under the same id."""


def state_word(text: str) -> str:
    """Return the state without what may follow it: `CANCELLED by 0` is `CANCELLED`, sacct's `CANCELLED+` too."""
    return text.split(maxsplit=1)[0].rstrip("+").upper() if text.strip() else ""


def leaving(text: str) -> str:
    """Return the state of a node that is being taken out of service, without its marks; "" for any other."""
    word = text.strip().rstrip("*~#!%$@^+-").lower()
    return word if word in LEAVING else ""


def phase_of(word: str) -> JobPhase:
    """Return what a state word means; a word that nobody knows is `UNKNOWN`, never ended."""
    return JobPhase.ENDED if word in ENDS else PHASES.get(word, UNKNOWN)


def end_of(word: str) -> JobEnd | None:
    """Return how a job ended; `None` if its state is no end."""
    return ENDS.get(word)

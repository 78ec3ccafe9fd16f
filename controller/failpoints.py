"""The places at which a test may have the controller killed: just before and just after each effect and each commit.

Nothing is armed but by the setting `controller.failpoint`: "before sbatch", or "before sbatch 3" for the third time.
"""

from __future__ import annotations

import os
import signal

EFFECTS = (
    "take the lease",
    "renew the lease",
    "release the lease",
    "record an intent",
    "record a closing",
    "record",
    "prepare",
    "sbatch",
    "note",
    "scancel",
    "revoke",
    "scancel a stray",
)
POINTS = tuple(f"{when} {effect}" for effect in EFFECTS for when in ("before", "after"))

_left: dict[str, int] = {}
"""How often the armed point is still to be reached; empty when nothing is armed, which is always but in tests."""


def arm(setting: str) -> None:
    """Arm the point that a setting names; raises `ValueError` for one that there is not."""
    _left.clear()
    if not setting:
        return
    name, _, count = setting.rpartition(" ")
    point, times = (name, int(count)) if count.isdecimal() else (setting, 1)
    if point not in POINTS or times < 1:
        raise ValueError(f"There is no failpoint {setting!r}. There are: {', '.join(POINTS)}.")
    _left[point] = times


def reach(point: str) -> None:
    """Die here, as by SIGKILL from outside, if this point is armed and its time has come."""
    if point in _left:
        _left[point] -= 1
        if _left[point] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

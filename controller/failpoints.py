"""The places at which a test may have the controller killed, or stopped: just before and after each effect and commit.

Nothing is armed but by the setting `controller.failpoint`: "before sbatch", or "before sbatch 3" for the third time.
With "stop" in front of it the controller is not killed there but stopped, until somebody sends it SIGCONT.
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
    "shorten",
    "revoke",
    "tell a door",
    "scancel a stray",
)
POINTS = tuple(f"{when} {effect}" for effect in EFFECTS for when in ("before", "after"))

_left: dict[str, int] = {}
"""How often the armed point is still to be reached; empty when nothing is armed, which is always but in tests."""
_signals: dict[str, signal.Signals] = {}


def arm(setting: str) -> None:
    """Arm the point that a setting names; raises `ValueError` for one that there is not."""
    _left.clear()
    if not setting:
        return
    words = setting.split(" ")
    times = int(words.pop()) if words[-1].isdecimal() else 1
    number = signal.SIGSTOP if words[0] == "stop" else signal.SIGKILL
    point = " ".join(words).removeprefix("stop ")
    if point not in POINTS or times < 1:
        raise ValueError(f"There is no failpoint {setting!r}. There are: {', '.join(POINTS)}.")
    _signals[point] = number
    _left[point] = times


def reach(point: str) -> None:
    """Die here, as by SIGKILL from outside, or stop, if this point is armed and its time has come."""
    if point in _left:
        _left[point] -= 1
        if _left[point] == 0:
            os.kill(os.getpid(), _signals[point])

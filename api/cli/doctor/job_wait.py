"""Waits for what the job writes on its node, and says why it does not come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from api.cli.doctor.check import CheckFailedError
from api.cli.doctor.slurm import ListedJob, Slurm
from api.contract.settings import Settings

APPEAR_SECONDS = 15.0
"""How long a file of an ended job may take to be seen here (network file systems cache)."""
POLL_SECONDS = 0.5
SLOW_SECONDS = 15.0
"""After this time a prologue that is still at work is named, and waited for all the same."""
WORDS = 8
"""Lines of the prologue's that are told: the last ones."""

NO_FOLDER, NOT_WRITABLE, OTHER_FOLDER = 73, 74, 75
"""Exit codes of job.sh."""

_BUSY = frozenset({"", "Priority", "Resources", "Dependency", "BeginTime", "Prolog", "Cleaning"})
"""Reasons of a job that waits for its turn; of all others Slurm has said what is wrong."""


class JobWait:
    """One job that was submitted. A wait raises `CheckFailedError` when what is waited for can't come, or is late."""

    def __init__(self, slurm: Slurm, settings: Settings, base: Path, job_id: int | None, timeout: float) -> None:
        """`base`: the path of its files (`.begun`, `.words`, `.there`) without suffix; `timeout`: of all waits."""
        self._slurm = slurm
        self._settings = settings
        self._base = base
        self._job_id = job_id
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._listed: ListedJob | None = None
        self._gone_at: float | None = None

    def until_started(self) -> None:
        """Wait until the job has left the queue."""
        stuck = ""
        while not self._has(".begun"):
            listed = self._look()
            if listed is not None and not listed.is_pending:
                return
            if listed is not None and listed.reason not in _BUSY:
                if stuck == listed.reason:  # seen twice: not what it was about to leave
                    raise self._barred(listed)
                stuck = listed.reason
            if not self._pause():
                raise self._not_started()

    def until_begun(self) -> str:
        """Wait until it is seen here what the job has read of what was written here; return that."""
        was_silent = False
        while not self._has(".begun"):
            self._require_alive()
            is_silent = bool(self._listed and self._listed.node) and self._slurm.is_silent(self._node)
            if is_silent and was_silent:
                raise CheckFailedError(
                    f"Slurm has started job {self._job_id} on {self._node}, which does not answer it any more",
                    f"Ask the site about {self._node}: is slurmd running there, and munged, with the cluster's key "
                    "(sinfo -R)?",
                )
            was_silent = is_silent
            if not self._pause():
                raise CheckFailedError(
                    f"Slurm has started job {self._job_id} on {self._node}, but nothing of it is seen for "
                    f"{self._timeout:g} s",
                    "Ask the site: is its own Prolog still at work there (scontrol show config), or "
                    f"{self._settings.run_dir} out of reach? Wait longer: ai-factory doctor --timeout 600",
                )
        return self._read(".begun")

    def until_told(self, tell: Callable[[str], None]) -> list[str]:
        """Wait until the job has the prologue behind it; return what it says, line by line. A slow one is told of."""
        began, told = time.monotonic(), False
        while not self._has(".there"):
            self._require_alive()
            if not told and time.monotonic() > began + SLOW_SECONDS:
                tell(f"{self._cut_short(self._still_at_it(SLOW_SECONDS))}. It is given {self._timeout:g} s")
                told = True
            if not self._pause():
                raise self._cut_short(f"{self._still_at_it(self._timeout)}, and was cancelled")
        return self._read(".there").splitlines()

    @property
    def words(self) -> str:
        """The last words of the prologue."""
        lines = [line for line in self._read(".words").splitlines() if line.strip()]
        return " ".join(" ".join(lines[-WORDS:]).split())

    @property
    def _node(self) -> str:
        return (self._listed and self._listed.node) or "its node"

    def _read(self, suffix: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self._base.with_suffix(suffix).read_text(errors="replace")
        return ""

    def _has(self, suffix: str) -> bool:
        _refresh(self._base)
        return self._base.with_suffix(suffix).exists()

    def _pause(self) -> bool:
        """Wait for a moment; return whether there is time left."""
        time.sleep(POLL_SECONDS)
        return time.monotonic() < self._deadline

    def _look(self) -> ListedJob | None:
        """Return the job as Slurm lists it, or last did; `None` while it has not said."""
        with contextlib.suppress(CheckFailedError):
            self._listed = next(iter(self._slurm.listed(self._base.name)), self._listed)
        return self._listed

    def _require_alive(self) -> None:
        """Raise `CheckFailedError` where the job has ended in a way that its files will not come, or long ago."""
        if self._gone_at is not None:
            if time.monotonic() > self._gone_at + APPEAR_SECONDS:
                raise self._ended_unseen()
            return
        listed = self._look()
        if listed is not None and listed.is_over:
            self._gone_at = time.monotonic()
            self._judge(listed)

    def _judge(self, listed: ListedJob) -> None:
        run_dir, code = self._settings.run_dir, self._slurm.exit_code(listed)
        for known, what in (
            (NO_FOLDER, f"there is no {run_dir} on {self._node}"),
            (NOT_WRITABLE, f"{run_dir} can't be written on {self._node}"),
            (
                OTHER_FOLDER,
                f"{run_dir} on {self._node} is not the folder that it is here, or shows what is written here late",
            ),
        ):
            if code == known:
                raise CheckFailedError(what, "See that run_dir is one and the same shared folder, writable there too.")
        if listed.is_completed and code in (0, None):
            return
        how = f"{self._ending()} with {f'exit code {code}' if code is not None else 'no exit code'}"
        if self._has(".begun"):
            raise self._cut_short(how)
        reason = self._slurm.out_of_service(listed.node)
        raise CheckFailedError(
            f"{how} before it began" + (f"; Slurm has taken the node out of service: {reason}" if reason else ""),
            "Ask the site about it, whose own Prolog may find the node unfit (sinfo -R); scontrol show job "
            f"{listed.job_id} may say more.",
        )

    def _ending(self) -> str:
        state = self._listed.state if self._listed is not None else "nobody knows what"
        return f"job {self._job_id} ended as {state} on {self._node}"

    def _ended_unseen(self) -> CheckFailedError:
        if self._has(".begun"):
            return self._cut_short(self._ending())
        return CheckFailedError(
            f"{self._ending()}, but nothing it wrote is seen here",
            f"See that {self._settings.run_dir} is one and the same shared folder, writable there too.",
        )

    def _still_at_it(self, seconds: float) -> str:
        return f"job {self._job_id} was still at it on {self._node} after {seconds:g} s"

    def _cut_short(self, how: str) -> CheckFailedError:
        prologue, words = self._settings.slurm.prologue, self.words
        if not prologue:
            return CheckFailedError(
                f"{how}: what it runs there does not end",
                "Try it on that node: python3 --version; apptainer --version; df /tmp",
            )
        said = f". Its last words: {words}" if words else ""
        return CheckFailedError(
            f"slurm.prologue did not come to its end: {how}{said}",
            "Correct slurm.prologue: it may set variables and load modules, and must not wait, nor replace or end "
            f"the shell: {prologue}",
        )

    def _barred(self, listed: ListedJob) -> CheckFailedError:
        return CheckFailedError(
            f"job {self._job_id} can't start ({listed.reason}), and was cancelled",
            listed.advice or "squeue(1) explains this word (JOB REASON CODES); the site knows what is behind it.",
        )

    def _not_started(self) -> CheckFailedError:
        state = self._listed.state.lower() if self._listed is not None else "not listed"
        reason = (self._listed.reason if self._listed is not None else "") or "no reason given"
        return CheckFailedError(
            f"job {self._job_id} is {state} ({reason}) after {self._timeout:g} s and was cancelled",
            "Is the cluster busy? Wait longer: ai-factory doctor --timeout 600. Or without a job: --no-job",
        )


def _refresh(base: Path) -> None:
    """Change the folder: a network file system then asks its server again what the folder holds."""
    scratch = base.with_suffix(".scratch")
    with contextlib.suppress(OSError):
        scratch.touch(mode=0o600)
        scratch.unlink()

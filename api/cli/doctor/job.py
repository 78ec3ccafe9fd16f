"""A tiny job that looks around on a node (job.sh): it is submitted, waited for, and what it says is read."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from api.cli.doctor.check import CheckFailedError
from api.cli.doctor.slurm import ListedJob, Slurm, job, tiny_resources
from api.contract.identity import new_id
from api.contract.job import network
from api.contract.job.private import make_folder, require_private
from api.contract.job_shell import complete
from api.contract.settings import Settings
from controller.slurm.argv import submit_command
from controller.slurm.errors import diagnose
from controller.slurm.parse import parse_submission

SCRIPT = Path(__file__).with_suffix(".sh")

APPEAR_SECONDS = 15.0
"""How long a file of an ended job may take to be seen here (network file systems cache)."""
POLL_SECONDS = 0.5

REACH_SECONDS = 5.0
"""How long a node may take to accept a connection."""

NO_FOLDER, NOT_WRITABLE, OTHER_FOLDER = 73, 74, 75
"""Exit codes of job.sh."""

_BUSY = frozenset({"", "Priority", "Resources", "Dependency", "BeginTime", "Prolog", "Cleaning"})
"""Reasons of a job that waits for its turn; of all others Slurm has said what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What the job wrote, and when it was seen here. Unix seconds."""

    said: dict[str, str]
    missing: tuple[str, ...]
    """Files of recipes that its node does not see."""
    submitted_at: float
    seen_at: float
    unreachable: str | None
    """Why its port can't be reached from here; `None`: it can; "": it had none."""


class JobProbe:
    """Submits one job, and returns what it said."""

    def __init__(self, slurm: Slurm, settings: Settings, timeout: float) -> None:
        self._slurm = slurm
        self._settings = settings
        self._timeout = timeout

    def run(self, files: Sequence[str]) -> JobReport:
        """Have a job look around, and look for these files. Raises `CheckFailedError`; nothing of it is left."""
        folder, name = self._settings.run_dir / "doctor", f"af-doctor-{new_id()}"
        script = folder / f"{name}.sh"
        texts = {
            ".here": name,
            ".sh": complete(SCRIPT.read_text(encoding="utf-8")),
            ".py": Path(network.__file__).read_text(encoding="utf-8"),
        }
        try:
            make_folder(folder)
            require_private(folder)
            for suffix, text in texts.items():
                path = script.with_suffix(suffix)
                path.touch(mode=0o600)
                path.write_text(text)
            report = self._submit(folder, name, script, files)
        except OSError as error:
            raise CheckFailedError(
                f"{folder} can't be used: {error.strerror or error}",
                f"Make room there, and see that it is this user's alone: ls -ld {folder}",
            ) from error
        finally:
            for file in folder.glob(f"{name}.*"):
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
        if report.said.get("seen") != name:
            raise CheckFailedError(
                "the job could write there, but not read what was written here",
                "See that run_dir is one and the same shared folder on this host and on the nodes.",
            )
        return report

    def _submit(self, folder: Path, name: str, script: Path, files: Sequence[str]) -> JobReport:
        """Submit the job and wait for its file; the job is cancelled if it has not ended by itself."""
        site = self._settings
        ports = tuple(map(str, site.slurm.port_range or (0, 0)))
        arguments = (str(folder), name, site.slurm.python, site.apptainer.command, site.slurm.prologue, *ports, *files)
        command = submit_command(job(name, tiny_resources(site.slurm), str(script), arguments))
        submitted_at, job_id, ended = time.time(), None, False
        try:
            answer = self._slurm.change(*command)
            if answer.exit_code != 0:
                raise self._slurm.failure(diagnose(answer))
            job_id = parse_submission(answer.stdout)
            lines = [line.partition("=") for line in self._wait(folder / f"{name}.there", name, job_id)]
            seen_at = time.time()
            said = {key: value for key, equals, value in lines if equals}
            unreachable = self._reach(said)
            ended = unreachable is None
        finally:
            if not ended:  # also where sbatch did not answer: the job may exist all the same
                self._slurm.change("scancel", f"--name={name}", *([str(job_id)] if job_id is not None else []))
        return JobReport(
            said=said,
            missing=tuple(value for key, _, value in lines if key == "missing"),
            submitted_at=submitted_at,
            seen_at=seen_at,
            unreachable=unreachable,
        )

    def _reach(self, said: dict[str, str]) -> str | None:
        """Connect to the port on which the job listens; return why that can't be, "" where it does not listen."""
        if not said.get("port", "").isdecimal():
            return ""
        address = (self._address(said), int(said["port"]))
        try:
            socket.create_connection(address, timeout=REACH_SECONDS).close()
        except OSError as error:
            return f"{address[0]} port {address[1]}: {error.strerror or error}"
        return None

    def _address(self, said: dict[str, str]) -> str:
        """Return the node's address, as the controller learns it: NodeAddr, or else the node's name."""
        node, addresses = said.get("node") or said.get("host", ""), dict[str, str]()
        with contextlib.suppress(CheckFailedError):
            addresses = dict(self._slurm.addresses())
        return addresses.get(node, node)

    def _wait(self, file: Path, name: str, job_id: int | None) -> list[str]:
        """Wait for the lines of the job's file. Raises `CheckFailedError` when they can't come, or not in time."""
        deadline = time.monotonic() + self._timeout
        gone_at: float | None = None
        listed: ListedJob | None = None
        stuck = ""
        while time.monotonic() < deadline:
            _refresh(file.parent, name)
            if file.exists():
                return file.read_text(errors="replace").splitlines()
            if gone_at is None:
                listed = self._seen(name) or listed
                if listed is not None and listed.is_over:
                    gone_at = time.monotonic()
                    self._judge(listed, file)
                elif listed is not None and listed.is_pending and listed.reason not in _BUSY:
                    if stuck == listed.reason:  # seen twice: not what it was about to leave
                        break
                    stuck = listed.reason
            elif time.monotonic() > gone_at + APPEAR_SECONDS:
                break
            time.sleep(POLL_SECONDS)
        if listed is not None and listed.is_over:
            raise self._never_seen(listed, file)
        raise self._not_run(listed, job_id, file)

    def _seen(self, name: str) -> ListedJob | None:
        """Return the job as Slurm lists it; `None` while it does not say."""
        with contextlib.suppress(CheckFailedError):
            return next(iter(self._slurm.listed(name)), None)
        return None

    def _judge(self, listed: ListedJob, file: Path) -> None:
        """Raise `CheckFailedError` where how the job ended tells why its file will not come."""
        run_dir, where = self._settings.run_dir, listed.node or "its node"
        code = self._slurm.exit_code(listed)
        shared = "See that run_dir is one and the same shared folder, writable there too."
        for known, what in (
            (NO_FOLDER, f"there is no {run_dir} on {where}"),
            (NOT_WRITABLE, f"{run_dir} can't be written on {where}"),
            (OTHER_FOLDER, f"{run_dir} on {where} is not the folder that it is here"),
        ):
            if code == known:
                raise CheckFailedError(what, shared)
        if listed.is_completed and code in (0, None):
            return
        ending = f"exit code {code}" if code is not None else "no exit code"
        how = f"job {listed.job_id} ended as {listed.state} with {ending} on {where}"
        if file.with_suffix(".begun").exists():
            raise self._cut_short(how)
        raise CheckFailedError(
            f"{how} before it began", f"Ask the site about it; scontrol show job {listed.job_id} may say more."
        )

    def _cut_short(self, how: str) -> CheckFailedError:
        return CheckFailedError(
            f"slurm.prologue did not come to its end: {how}",
            "Correct slurm.prologue: it may set variables and load modules, and must not wait, nor replace or end "
            f"the shell: {self._settings.slurm.prologue}",
        )

    def _never_seen(self, listed: ListedJob, file: Path) -> CheckFailedError:
        how = f"job {listed.job_id} ended as {listed.state} on {listed.node or 'a node'}"
        if file.with_suffix(".begun").exists():
            return self._cut_short(how)
        return CheckFailedError(
            f"{how}, but nothing it wrote is seen here",
            f"See that {file.parent.parent} is one and the same shared folder, writable there too.",
        )

    def _not_run(self, listed: ListedJob | None, job_id: int | None, file: Path) -> CheckFailedError:
        if listed is not None and listed.is_pending and listed.reason not in _BUSY:
            return CheckFailedError(
                f"job {job_id} can't start ({listed.reason}), and was cancelled",
                listed.advice or "squeue(1) explains this word (JOB REASON CODES); the site knows what is behind it.",
            )
        if self._settings.slurm.prologue and file.with_suffix(".begun").exists():
            return self._cut_short(f"job {job_id} was still at it after {self._timeout:g} s, and was cancelled")
        state = listed.state.lower() if listed is not None else "not listed"
        reason = (listed.reason if listed is not None else "") or "no reason given"
        where = f"on {listed.node}" if listed is not None and not listed.is_pending else f"({reason})"
        return CheckFailedError(
            f"job {job_id} is {state} {where} after {self._timeout:g} s and was cancelled",
            "Is the cluster busy? Wait longer: ai-factory doctor --timeout 600. Or without a job: --no-job",
        )


def _refresh(folder: Path, name: str) -> None:
    """Change the folder: a network file system then asks its server again what the folder holds."""
    scratch = folder / f"{name}.scratch"
    with contextlib.suppress(OSError):
        scratch.touch(mode=0o600)
        scratch.unlink()

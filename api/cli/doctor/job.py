"""A tiny job that looks around on a node (job.sh): it is submitted, waited for, and what it says is read."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.cli.doctor.check import CheckFailedError
from api.cli.doctor.job_wait import JobWait
from api.cli.doctor.slurm import Slurm, job, tiny_resources
from api.contract.identity import new_id
from api.contract.job import namespaces
from api.contract.job.private import make_folder, require_private
from api.contract.job_shell import complete
from api.contract.settings import Settings
from controller.slurm.argv import submit_command
from controller.slurm.errors import diagnose
from controller.slurm.parse import COLOUR, parse_submission

SCRIPT = Path(__file__).with_suffix(".sh")

REACH_SECONDS = 5.0
"""How long a node may take to accept a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What the job wrote, and when it was seen here. Unix seconds."""

    said: dict[str, str]
    words: str
    """The last ones of the prologue."""
    missing: tuple[str, ...]
    """Files of recipes that its node does not see."""
    submitted_at: float
    seen_at: float
    unreachable: str | None
    """Why its port can't be reached from here; `None`: it can; "": it had none."""
    unresolved: str
    """The node's name, if it is for that that it can't be reached."""


class JobProbe:
    """Submits one job, and returns what it said."""

    def __init__(self, slurm: Slurm, settings: Settings, timeout: float, tell: Callable[[str], None]) -> None:
        """`timeout`: seconds for all of it; `tell`: what takes long is told while it is waited for."""
        self._slurm = slurm
        self._settings = settings
        self._timeout = timeout
        self._tell = tell

    def run(self, files: Sequence[str]) -> Iterator[JobReport | None]:
        """Have a job look around, and look for these files. Raises `CheckFailedError`; nothing of it is left.

        Yields once it has started, once it is seen that its folder is this one, and in the end what it said.
        """
        folder, name = self._settings.run_dir / "doctor", f"af-doctor-{new_id()}"
        base = folder / name
        texts = {
            ".here": name,
            ".sh": complete(SCRIPT.read_text(encoding="utf-8")),
            ".py": Path(namespaces.__file__).read_text(encoding="utf-8"),
        }
        try:
            make_folder(folder)
            require_private(folder)
            for suffix, text in texts.items():
                path = base.with_suffix(suffix)
                path.touch(mode=0o600)
                path.write_text(text)
            yield from self._submit(base, files)
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

    def _submit(self, base: Path, files: Sequence[str]) -> Iterator[JobReport | None]:
        """Submit the job and follow it; it is cancelled if it has not ended by itself."""
        site, name = self._settings, base.name
        ports = tuple(map(str, site.slurm.port_range or (0, 0)))
        programs = (site.slurm.python, site.apptainer.command, site.slurm.prologue)
        arguments = (str(base.parent), name, *programs, *ports, *files)
        command = submit_command(job(name, tiny_resources(site.slurm), str(base.with_suffix(".sh")), arguments))
        submitted_at, job_id, ended = time.time(), None, False
        try:
            answer = self._slurm.change(*command)
            if answer.exit_code != 0:
                raise self._slurm.failure(diagnose(answer))
            job_id = parse_submission(answer.stdout)
            wait = JobWait(self._slurm, site, base, job_id, self._timeout)
            wait.until_started()
            yield None
            if wait.until_begun() != name:
                raise CheckFailedError(
                    "the job could write there, but not read what was written here",
                    "See that run_dir is one and the same shared folder on this host and on the nodes.",
                )
            yield None
            lines = [COLOUR.sub("", line).partition("=") for line in wait.until_told(self._tell)]
            seen_at = time.time()
            said = {key: value for key, equals, value in lines if equals}
            unreachable, unresolved = self._reach(said)
            ended = unreachable is None
            yield JobReport(
                said=said,
                words=wait.words,
                missing=tuple(value for key, _, value in lines if key == "missing"),
                submitted_at=submitted_at,
                seen_at=seen_at,
                unreachable=unreachable,
                unresolved=unresolved,
            )
        finally:
            if not ended:  # also where sbatch did not answer: the job may exist all the same
                self._slurm.change("scancel", f"--name={name}", *([str(job_id)] if job_id is not None else []))

    def _reach(self, said: dict[str, str]) -> tuple[str | None, str]:
        """Connect to the port on which the job listens; return why that can't be, and the name that is not known.

        `None`: it can; "": the job does not listen.
        """
        if not said.get("port", "").isdecimal():
            return "", ""
        address = (self._address(said), int(said["port"]))
        try:
            socket.create_connection(address, timeout=REACH_SECONDS).close()
        except OSError as error:
            unresolved = address[0] if isinstance(error, socket.gaierror) else ""
            return f"{address[0]} port {address[1]}: {error.strerror or error}", unresolved
        return None, ""

    def _address(self, said: dict[str, str]) -> str:
        """Return the node's address, as the controller learns it: NodeAddr, or else the node's name."""
        node, addresses = said.get("node") or said.get("host", ""), dict[str, str]()
        with contextlib.suppress(CheckFailedError):
            addresses = dict(self._slurm.addresses())
        return addresses.get(node, node)

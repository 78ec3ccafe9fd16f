"""Proof from inside a job: what the node sees of RUN_DIR, the clock, Python, Apptainer, and whether it is reached."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from api.cli.doctor.check import Check, CheckFailedError, SkippedError, WarnedError
from api.cli.doctor.slurm import Slurm, tiny_job
from api.contract.find_python import OLDEST, shell
from api.contract.identity import new_id
from api.contract.job import network
from api.contract.job.private import make_folder, require_private
from api.contract.settings import Settings
from controller.slurm.argv import submit_command
from controller.slurm.errors import diagnose
from controller.slurm.parse import parse_submission

CLOCK_SECONDS = 5.0
"""By how much a node's clock may differ."""
APPEAR_SECONDS = 15.0
"""How long a file of an ended job may take to be seen here (network file systems cache)."""
POLL_SECONDS = 0.5

REACH_SECONDS = 5.0
"""How long a node may take to accept a connection."""
LEAST_FREE_MB = 1024
"""In the node's folder for temporary files."""

SCRIPT = """\
#!/bin/bash
# Says what a job sees of RUN_DIR, the clock, Python, Apptainer and its node, and listens on a port for a minute or
# until somebody came. Arguments: folder, name, python, apptainer, prologue, lowest and highest port (0: any)
export PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}"
eval "$5"
cd "$1" || exit 1
# include find_python
find_python "$3"
"${af_found:-$3}" -c '
import os, socket, sys
name, low, high = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for port in range(low, high + 1):
    listening = socket.socket()
    try:
        listening.bind(("", port))
        break
    except OSError:
        continue
else:
    sys.exit(1)
listening.listen()
listening.settimeout(60)
with open(name + ".draft", "w") as file:
    file.write(str(listening.getsockname()[1]))
os.rename(name + ".draft", name)
listening.accept()
' "$2.port" "$6" "$7" >/dev/null 2>&1 &
listener=$!
for _ in {1..50}; do [ -e "$2.port" ] && break; kill -0 $listener 2>/dev/null || break; sleep 0.1; done
{
  echo "seen=$(cat "$2.here")"
  echo "host=$(uname -n)"
  echo "node=${SLURMD_NODENAME:-}"
  echo "clock=$(date +%s)"
  echo "python=$af_found"
  echo "python_version=$([ -z "$af_found" ] || "$af_found" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')"
  echo "python_tried=$af_tried"
  echo "python_absent=$af_absent"
  apptainer=$("$4" --version 2>&1); echo "apptainer_exit=$?"
  echo "apptainer=$(tail -n 1 <<<"${apptainer##*slurm_script: line *: }")"
  unshare --user --map-root-user true 2>/dev/null; echo "namespaces_exit=$?"
  suid=$("$4" buildcfg LIBEXECDIR 2>/dev/null)/apptainer/bin/starter-suid; [ -u "$suid" ]; echo "setuid_exit=$?"
  network=$("$af_found" -I "$2.py" 2>&1); echo "network_exit=$?"
  echo "network=$(tail -n 1 <<<"$network")"
  echo "tmp=${TMPDIR:-/tmp}"
  echo "tmp_free=$(df -Pm "${TMPDIR:-/tmp}" 2>/dev/null | awk 'NR == 2 {print $4}')"
  echo "port=$(cat "$2.port" 2>/dev/null)"
} >"$2.draft" && mv "$2.draft" "$2.there"
wait $listener
"""
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "SUSPENDED")
_RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What the job wrote, and when it was seen here. Unix seconds."""

    said: dict[str, str]
    submitted_at: float
    seen_at: float
    unreachable: str | None
    """Why its port can't be reached from here; `None`: it can; "": it had none."""


class JobProbe:
    """Submits one tiny job, and asks it several things."""

    def __init__(self, slurm: Slurm, settings: Settings, timeout: float) -> None:
        self._slurm = slurm
        self._settings = settings
        self._timeout = timeout
        self._report: JobReport | None = None

    def checks(self) -> list[Check]:
        """Return the checks in their order; the first one submits the job."""
        needs = ("run_dir seen by jobs",)
        return [
            Check("run_dir seen by jobs", self._run, needs=("may submit", "run_dir")),
            Check("clock of the node", self._clock, needs=needs),
            Check("Python in jobs", self._python, needs=needs),
            Check("Apptainer in jobs", self._apptainer, needs=needs),
            Check("user namespaces in jobs", self._namespaces, needs=("Apptainer in jobs",)),
            Check("networks of jobs", self._networks, needs=("Python in jobs",)),
            Check("room for temporary files", self._room, needs=needs),
            Check("ports of the nodes", self._ports, needs=needs),
        ]

    def _run(self) -> str:
        folder, name = self._settings.run_dir / "doctor", f"af-doctor-{new_id()}"
        script, own = folder / f"{name}.sh", Path(network.__file__).read_text(encoding="utf-8")
        texts = {".here": name, ".sh": SCRIPT.replace("# include find_python\n", shell()), ".py": own}
        try:
            make_folder(folder)
            require_private(folder)
            for suffix, text in texts.items():
                path = script.with_suffix(suffix)
                path.touch(mode=0o600)
                path.write_text(text)
            self._report = self._submit(folder, name, script)
        finally:
            for file in folder.glob(f"{name}.*"):
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
        if self._report.said.get("seen") != name:
            raise CheckFailedError(
                "the job could write there, but not read what was written here",
                "See that run_dir is one and the same shared folder on this host and on the nodes.",
            )
        took = self._report.seen_at - self._report.submitted_at
        return f"written on {self._report.said.get('host')}, seen here {took:.1f} s after it was submitted"

    def _submit(self, folder: Path, name: str, script: Path) -> JobReport:
        """Submit the job and wait for its file; the job is cancelled if it has not ended by itself."""
        site = self._settings
        ports = tuple(map(str, site.slurm.port_range or (0, 0)))
        arguments = (str(folder), name, site.slurm.python, site.apptainer.command, site.slurm.prologue, *ports)
        job = tiny_job(site.slurm, name, str(script), arguments)
        submitted_at, job_id, ended = time.time(), None, False
        try:
            answer = self._slurm.change(*submit_command(job))
            if answer.exit_code != 0:
                raise self._slurm.failure(diagnose(answer))
            job_id = parse_submission(answer.stdout)
            said = self._wait(folder / f"{name}.there", name, job_id)
            seen_at = time.time()
            unreachable = self._reach(said)
            ended = unreachable is None
        finally:
            if not ended:  # also where sbatch did not answer: the job may exist all the same
                self._slurm.change("scancel", f"--name={name}", *([str(job_id)] if job_id is not None else []))
        return JobReport(said=said, submitted_at=submitted_at, seen_at=seen_at, unreachable=unreachable)

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
            addresses = self._slurm.addresses()
        return addresses.get(node, node)

    def _wait(self, file: Path, name: str, job_id: int | None) -> dict[str, str]:
        """Wait for the job's file. Raises `CheckFailedError` when the job ends without it, or does not run in time."""
        deadline = time.monotonic() + self._timeout
        gone_at: float | None = None
        state = reason = node = ""
        while time.monotonic() < deadline:
            _refresh(file.parent, name)
            if file.exists():
                lines = file.read_text(errors="replace").splitlines()
                return dict(line.split("=", 1) for line in lines if "=" in line)
            if gone_at is None:
                state, node, reason = self._state(name)
                gone_at = time.monotonic() if state not in (*_WAITING, *_RUNNING, "") else None
            elif time.monotonic() > gone_at + APPEAR_SECONDS:
                break
            time.sleep(POLL_SECONDS)
        if gone_at is not None:
            raise CheckFailedError(
                f"job {job_id} ended ({state}) on {node or 'a node'}, but nothing it wrote is seen here",
                f"See that {file.parent.parent} is one and the same shared folder, writable there too.",
            )
        where = f"on {node}" if state in _RUNNING else f"({reason or 'no reason given'})"
        raise CheckFailedError(
            f"job {job_id} is {state.lower() or 'not listed'} {where} after {self._timeout:g} s and was cancelled",
            "Is the cluster busy? Wait longer: ai-factory doctor --timeout 600. Or without a job: --no-job",
        )

    def _state(self, name: str) -> tuple[str, str, str]:
        """Return the job's state, node and reason; empty texts while Slurm does not say."""
        with contextlib.suppress(CheckFailedError):
            for listed in self._slurm.listed(name):
                return listed
        return "", "", ""

    def _clock(self) -> str:
        report = self._said()
        try:
            there = float(report.said["clock"])
        except (KeyError, ValueError) as error:
            raise CheckFailedError(
                "the job did not say what time it is", "See that `date` runs on the nodes."
            ) from error
        apart = max(0.0, report.submitted_at - 1 - there, there - report.seen_at)
        if apart > CLOCK_SECONDS:
            raise CheckFailedError(
                f"{report.said.get('host')} is {apart:.0f} s {'ahead' if there > report.seen_at else 'behind'}",
                "Keep the clocks of this host and of the nodes together (chrony, ntp).",
            )
        return f"agrees with this host's within {max(1.0, apart):.0f} s"

    def _python(self) -> str:
        """Say which one jobs take: the same that they choose themselves."""
        command, said = self._settings.slurm.python, self._said().said
        path, version = said.get("python", ""), said.get("python_version", "")
        seen = f"Found: {said.get('python_tried') or 'none'}. Not found: {said.get('python_absent') or 'none'}."
        if not path:
            oldest = ".".join(map(str, OLDEST))
            raise CheckFailedError(
                f"no Python {oldest} or later with ctypes, json and ssl on {said.get('host')}; "
                f"slurm.python is {command}. {seen}",
                "Set slurm.python to one that every node has, or load one by slurm.prologue.",
            )
        if said.get("python_tried") or said.get("python_absent"):
            return f"{path} is {version}, for slurm.python is {command} and will not do. {seen}"
        return f"{command} is {version}"

    def _apptainer(self) -> str:
        command, said = self._settings.apptainer.command, self._said().said
        if said.get("apptainer_exit") != "0":
            raise CheckFailedError(
                f"{command} on the node: {said.get('apptainer') or 'said nothing'}",
                "Install it on the nodes, set apptainer.command, or load it by slurm.prologue (module load apptainer).",
            )
        return said.get("apptainer", "")

    def _namespaces(self) -> str:
        said = self._said().said
        if said.get("namespaces_exit") == "0":
            return "a user may make them"
        if said.get("setuid_exit") == "0":
            return "none, but Apptainer is installed setuid"
        raise CheckFailedError(
            "neither may a user make them on the node, nor is Apptainer installed setuid: no container starts",
            "Ask an administrator for: sysctl user.max_user_namespaces=15000 (on Ubuntu also "
            "kernel.apparmor_restrict_unprivileged_userns=0), or for the package apptainer-suid.",
        )

    def _networks(self) -> str:
        said = self._said().said
        if said.get("network_exit") == "0":
            return "a job may have one of its own"
        raise WarnedError(
            f"a job gets none of its own on the node: {said.get('network')}. What a recipe with network: private runs, "
            "as Chroma or Qdrant, all users of the node reach on its loopback",
            "Ask an administrator for: sysctl user.max_user_namespaces=15000 user.max_net_namespaces=15000 (on Ubuntu "
            "also kernel.apparmor_restrict_unprivileged_userns=0). Or give such services nodes for themselves: "
            "--exclusive in their resources.extra_options.",
        )

    def _room(self) -> str:
        said = self._said().said
        folder, free = said.get("tmp", "/tmp"), said.get("tmp_free", "")  # noqa: S108
        if not free.isdecimal():
            raise CheckFailedError(
                f"{folder} on {said.get('host')} is no folder",
                "Set TMPDIR to one that every node has: slurm.prologue = 'export TMPDIR=/local/scratch'",
            )
        shown = f"{int(free) / 1024:.1f} GB in {folder} of {said.get('host')}"
        if int(free) < LEAST_FREE_MB:
            raise CheckFailedError(
                f"only {shown}",
                "Make room there, or set another folder: slurm.prologue = 'export TMPDIR=/local/scratch'. "
                "To pull vLLM's image takes 20 GB; an image in a .sif file takes none.",
            )
        return shown

    def _ports(self) -> str:
        found = self._said()
        if found.unreachable == "":
            raise SkippedError("the job could not listen; see: Python in jobs, slurm.port_range")
        if found.unreachable is not None:
            raise CheckFailedError(
                f"this host does not reach the engines' ports: {found.unreachable}",
                "Have the firewall let this host connect to the nodes, or set slurm.port_range to ports that it lets "
                "through. Or run API and controller on a host inside the cluster.",
            )
        return f"port {found.said.get('port')} of {found.said.get('host')} is reached from here"

    def _said(self) -> JobReport:
        assert self._report is not None  # the first check made it, or these are skipped
        return self._report


def _refresh(folder: Path, name: str) -> None:
    """Change the folder: a network file system then asks its server again what the folder holds."""
    scratch = folder / f"{name}.scratch"
    with contextlib.suppress(OSError):
        scratch.touch(mode=0o600)
        scratch.unlink()

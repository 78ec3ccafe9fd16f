"""Proof from inside a job: what the node sees of RUN_DIR, the clock, Python, Apptainer, and whether it is reached."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import cached_property

from api.cli.doctor.check import Check, CheckFailedError, SkippedError, WarnedError
from api.cli.doctor.job import JobProbe, JobReport
from api.cli.doctor.job_wait import SLOW_SECONDS
from api.cli.doctor.partition_checks import SUBMIT
from api.cli.doctor.recipe_files import RecipeFiles
from api.contract.job_shell import OLDEST
from api.contract.settings import Settings

CLOCK_SECONDS = 5.0
"""By how much a node's clock may differ."""
LEAST_PORTS = 16
"""A job takes one of its node's, and a successor beside it another one."""
LEAST_FREE_MB = 1024
"""In the node's folder for temporary files."""

SETUID = (
    "Apptainer is installed setuid: what mounts images for it (squashfuse) can outlive a job whose wrapper and guards "
    "are killed together, where Slurm does not end it by cgroup"
)


class JobChecks:
    """The checks, of which the first submits the job."""

    def __init__(self, probe: JobProbe, settings: Settings, files: RecipeFiles) -> None:
        self._probe = probe
        self._settings = settings
        self._files = files
        self._report: JobReport | None = None

    def checks(self) -> list[Check]:
        """Return the checks in their order."""
        needs = ("run_dir seen by jobs",)
        prologue = ("prologue in jobs",)
        return [
            Check("jobs start", self._start, needs=(SUBMIT, "run_dir")),
            Check("run_dir seen by jobs", self._see, needs=("jobs start",)),
            Check("prologue in jobs", self._prologue, needs=needs),
            Check("clock of the node", self._clock, needs=needs),
            Check("Python in jobs", self._python, needs=needs, repeats=prologue),
            Check("Apptainer in jobs", self._apptainer, needs=needs, repeats=prologue),
            Check("user namespaces in jobs", self._namespaces, needs=("Apptainer in jobs",)),
            Check("networks of jobs", self._networks, needs=("Python in jobs",)),
            Check("recipes' files in jobs", self._recipes_files, needs=needs),
            Check("room for temporary files", self._room, needs=needs),
            Check("ports of the nodes", self._ports, needs=needs),
        ]

    @cached_property
    def _steps(self) -> Iterator[JobReport | None]:
        return self._probe.run(self._files.paths)

    def _start(self) -> str:
        began = time.monotonic()
        next(self._steps)
        return f"{time.monotonic() - began:.1f} s after it was submitted"

    def _see(self) -> str:
        next(self._steps)
        return "what is written here is read there, and what is written there is seen here"

    def _prologue(self) -> str:
        *_, self._report = self._steps
        report, text = self._said(), self._settings.slurm.prologue.strip()
        if not text:
            raise SkippedError("none is set (slurm.prologue)")
        code, host = report.said.get("prologue_exit", ""), report.said.get("host")
        told = f"exit code {code} on {host}: {report.words or 'without a word'}"
        if code != "0":
            raise CheckFailedError(told, f"Correct slurm.prologue, which every job runs first and gives up on: {text}")
        took = report.said.get("prologue_seconds", "")
        if took.isdecimal() and int(took) > SLOW_SECONDS:
            raise WarnedError(f"{told}. It took {took} s", f"Every job waits so long before its engine: {text}")
        return told

    def _recipes_files(self) -> str:
        return self._files.judge(self._said().missing, f"on {self._said().said.get('host')}")

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
        if said.get("apptainer_exit") != "0" and said.get("user_exit", "0") != "0":
            raise CheckFailedError(
                f"{said.get('host')} does not know the user {os.getuid()}: {said.get('apptainer')}",
                f"Ask the site to make this user known to its nodes, under the same uid (getent passwd {os.getuid()}).",
            )
        if said.get("apptainer_exit") != "0":
            load = "load it by slurm.prologue (module load apptainer)"
            if self._settings.slurm.prologue:
                load = "correct slurm.prologue, which does not bring it"
            raise CheckFailedError(
                f"{command} on the node: {said.get('apptainer') or 'said nothing'}",
                f"Install it on the nodes, set apptainer.command, or {load}.",
            )
        return said.get("apptainer", "")

    def _namespaces(self) -> str:
        said = self._said().said
        is_setuid, may = said.get("setuid_exit") == "0", said.get("namespaces_exit") == "0"
        if is_setuid:
            return f"a user may make {'them' if may else 'none'}. {SETUID}"
        if may:
            return "a user may make them"
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
                "Set TMPDIR to one that every node has, at the end of slurm.prologue: export TMPDIR=/tmp",
            )
        shown = f"{int(free) / 1024:.1f} GB in {folder} of {said.get('host')}"
        if int(free) < LEAST_FREE_MB:
            raise CheckFailedError(
                f"only {shown}",
                "Make room there, or set a larger one at the end of slurm.prologue: export TMPDIR=/local/scratch. "
                "To pull vLLM's image takes 20 GB; an image in a .sif file takes none.",
            )
        return shown

    def _ports(self) -> str:
        found = self._said()
        taken, _, some = found.said.get("ports_taken", "").partition(" ")
        low, high = self._settings.slurm.port_range or (0, 0)
        if found.unreachable == "" and taken.isdecimal() and int(taken) > 0:
            raise CheckFailedError(
                f"all ports from {low} to {high} are taken on {found.said.get('host')}: no engine could listen there",
                "Set slurm.port_range to ports that nobody else's programs use on the nodes.",
            )
        if found.said.get("port") == "used":
            raise CheckFailedError(
                f"of the ports from {low} to {high} none is free on {found.said.get('host')} at the moment: "
                "connections that have just ended hold theirs for a minute",
                "Ask again in a minute. Where that changes nothing, set slurm.port_range to more ports, below those "
                "that the kernel gives to who connects (/proc/sys/net/ipv4/ip_local_port_range).",
            )
        if found.said.get("port") == "denied":
            raise CheckFailedError(
                f"{found.said.get('host')} lets this user listen on no port from {low} to {high}",
                "Set slurm.port_range to ports from 1024 on: those below are root's.",
            )
        if found.unreachable == "":
            raise SkippedError("the job could not listen; see: Python in jobs, slurm.port_range")
        if found.unreachable is not None and found.unresolved:
            raise CheckFailedError(
                f"this host does not know where the nodes are: {found.unreachable}",
                f"Have it resolve their names, by DNS or /etc/hosts (try: getent hosts {found.unresolved}), or run API "
                "and controller on a host that does.",
            )
        if found.unreachable is not None:
            raise CheckFailedError(
                f"this host does not reach the engines' ports: {found.unreachable}",
                "Have the firewall let this host connect to the nodes, or set slurm.port_range to ports that it lets "
                "through. Or run API and controller on a host inside the cluster.",
            )
        reached = f"port {found.said.get('port')} of {found.said.get('host')} is reached from here"
        if taken.isdecimal() and int(taken) > 0:
            reached += f"; of {low} to {high}, {taken} are taken there: {some.replace(' ', ', ')}"
        if low and high - low + 1 < LEAST_PORTS:
            raise WarnedError(
                f"{reached}. From {low} to {high} there is room for {high - low + 1} jobs on a node at a time, those "
                "of successors and of other users' programs included: who finds no port ends as NoFreePort",
                f"Set slurm.port_range to {LEAST_PORTS} ports or more.",
            )
        return reached

    def _said(self) -> JobReport:
        if self._report is None:
            raise SkippedError("needs: prologue in jobs")
        return self._report

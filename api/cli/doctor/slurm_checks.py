"""Checks of Slurm: its commands, whether it answers, and what it keeps of jobs."""

from __future__ import annotations

import re
from pathlib import Path

from api.cli.doctor.check import Check, CheckFailedError, SkippedError, WarnedError
from api.cli.doctor.slurm import COMMANDS, Slurm
from api.contract.settings import Settings

OLDEST = (22, 5)
"""Slurm 22.05: of it, 24.11 and 26.05 the commands' words are known."""

_SEEN_BY = {"proctrack/linuxproc": "its parents", "proctrack/pgid": "its process group"}
"""What Slurm goes by, where it has no cgroup."""


class SlurmChecks:
    """The checks, over one set of settings."""

    def __init__(self, slurm: Slurm, settings: Settings) -> None:
        self._slurm = slurm
        self._settings = settings.slurm

    def checks(self) -> list[Check]:
        """Return the checks in their order."""
        return [
            Check("Slurm's commands", self._commands),
            Check("Slurm's version", self._version, needs=("Slurm's commands",)),
            Check("Slurm answers", self._answers, needs=("Slurm's commands",)),
            Check("accounting", self._accounting, needs=("Slurm answers",)),
            Check("ends of jobs", self._tracking, needs=("Slurm answers",)),
        ]

    def _commands(self) -> str:
        folder = self._settings.bin_dir
        if folder and not any((Path(folder) / name).is_file() for name in COMMANDS):
            found = self._slurm.where("sbatch")
            raise CheckFailedError(
                f"slurm.bin_dir is {folder}, where none of Slurm's commands is",
                "Leave it out: they are on PATH." if found else "Set it to the folder of sbatch, squeue and so on.",
            )
        missing = self._slurm.missing()
        if missing:
            raise CheckFailedError(
                f"not on this host: {', '.join(missing)}",
                "Run this where Slurm's commands are, install them, or set slurm.bin_dir.",
            )
        conf = self._slurm.conf
        if conf and not Path(conf).is_file():
            raise CheckFailedError(f"slurm.conf is {conf}, where there is no file", "Set slurm.conf to the right path.")
        return ", ".join(COMMANDS)

    def _version(self) -> str:
        said = self._slurm.ask("sbatch", "--version").strip()
        found = re.search(r"(\d+)\.(\d+)", said)
        if found is None:
            raise SkippedError(f"sbatch calls itself {said!r}")
        if (int(found[1]), int(found[2])) < OLDEST:
            oldest = ".".join(f"{part:02d}" for part in OLDEST)
            raise CheckFailedError(
                f"{said} is older than {oldest}, the oldest this was tried with",
                "Use a host with later commands, or set slurm.bin_dir to where they are.",
            )
        return said

    def _answers(self) -> str:
        """Read jobs and nodes as the controller does."""
        nodes = self._slurm.addresses()
        self._slurm.listed("af-")
        return f"{len(nodes)} nodes"

    def _accounting(self) -> str:
        self._slurm.accounted("af-", 1)
        return "sacct answers"

    def _tracking(self) -> str:
        """Ask what Slurm sees, and so ends, of a job that is over (slurm.conf(5), ProctrackType)."""
        tracking = self._slurm.config.get("ProctrackType")
        if tracking is None:
            raise SkippedError("scontrol does not say what ProctrackType is")
        if tracking == "proctrack/cgroup":
            return "proctrack/cgroup: all that a job started ends with it"
        raise WarnedError(
            f"{tracking}: a process that leaves {_SEEN_BY.get(tracking, 'what Slurm looks at')} may outlive its job. "
            "An engine's guard and the kernel's signal to its process group end the engine all the same, but what "
            "leaves that group too, outside of a container, may keep its GPU when the guard is killed",
            "Ask the site for ProctrackType=proctrack/cgroup in slurm.conf.",
        )

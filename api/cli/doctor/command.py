"""The command: all checks in their order, one line each."""

from __future__ import annotations

from dataclasses import asdict

from api.cli.context import Context
from api.cli.doctor.check import Check, Result, State, results
from api.cli.doctor.doors import OpenEngines
from api.cli.doctor.job import JobProbe
from api.cli.doctor.job_checks import JobChecks
from api.cli.doctor.local import Local
from api.cli.doctor.others import OtherInstallations
from api.cli.doctor.partition_checks import JobTarget, PartitionChecks
from api.cli.doctor.recipe_checks import RecipeChecks
from api.cli.doctor.recipe_files import RecipeFiles
from api.cli.doctor.slurm import Slurm
from api.cli.doctor.slurm_checks import SlurmChecks
from api.cli.terminal.console import Console
from api.cli.terminal.text import one_line
from api.contract.exits import Exit

_MARKS = {
    State.OK: ("✓", "green"),
    State.WARNING: ("!", "yellow"),
    State.FAILED: ("✗", "red"),
    State.SKIPPED: ("–", "dim"),
}


def doctor(context: Context) -> Exit:
    """Check everything; exit 1 if anything failed."""
    checks = all_checks(context)
    width = max(len(check.name) for check in checks)
    found: list[Result] = []
    for result in results(checks):
        found.append(result)
        if context.output != "json":
            write(context.console, result, width)
    warned = any(result.state is State.WARNING for result in found)
    failed = sum(result.state is State.FAILED for result in found)
    if context.output == "json":
        context.console.json([asdict(result) for result in found])
    else:
        context.console.line()
        context.console.line(f"{failed} of {len(found)} checks failed." if failed else _well(warned))
    return Exit.FAILED if failed else Exit.OK


def _well(warned: bool) -> str:
    return "Services can run; see what is marked with !." if warned else "All well."


def all_checks(context: Context) -> list[Check]:
    """Return the checks in their order: this host, Slurm, a job, the programs."""
    arguments, settings = context.arguments, context.settings
    local = Local(settings, arguments.server)
    slurm = Slurm(settings.slurm)
    destination, files = JobTarget(slurm, settings), RecipeFiles(settings)
    checks = [
        *local.checks(),
        *SlurmChecks(slurm, settings).checks(),
        *PartitionChecks(destination).checks(),
        *RecipeChecks(destination, settings, files).checks(),
        *OtherInstallations(slurm, settings).checks(),
    ]
    if arguments.job:
        checks += JobChecks(
            JobProbe(slurm, settings, arguments.timeout, context.console.warning), settings, files
        ).checks()
    return [*checks, *OpenEngines(settings).checks(), *local.program_checks()]


def write(console: Console, result: Result, width: int) -> None:
    """Write one line, and below a failure or warning what to do about it."""
    mark, colour = _MARKS[result.state]
    seconds = console.paint(f"{result.seconds:6.2f} s", "dim")
    console.line(f"{console.paint(mark, colour)} {result.name:<{width}} {seconds}  {one_line(result.message)}")
    if result.remedy:
        console.line(f"  {'':<{width}} {'':8}  → {one_line(result.remedy)}")

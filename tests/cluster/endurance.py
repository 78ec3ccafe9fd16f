"""`make endurance`: a service of two replicas, whose jobs end every minute, under load through all that befalls it.

Its clients never stop to ask, and none asks twice. Phases come one after another, each ending once all is whole again:
no request may fail in them, but for what a phase says. Who reads squeue meanwhile sees no job beside another of its
replica but for a recorded reason, and how long two are held at once.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from tests.cluster.endured import TIME_LIMIT, Endurance, Outcome
from tests.cluster.phases import PHASES
from tests.cluster.system import System
from tests.slurm_cluster import APPTAINER, bring_up

CLUSTER = {"NODES": "5", "CPUS": "8", "MEM": "4000", "GPUS": "2", "MINJOBAGE": "10"}
MOST_TOLD = 20
"""Lines of a phase that tell what went wrong."""


def table(outcomes: Collection[Outcome]) -> str:
    """Return what came of it as text."""
    head = ("phase", "s", "asked", "failed", "waited", "jobs", "handed over", "start-up", "drain", "together", "ratio")
    lines = ["".join(f"{word:>12}" for word in head)]
    for each in outcomes:
        start_up, drain, together = (
            _mean([getattr(h, part) for h in each.hand_overs]) for part in ("start_up", "drain", "together")
        )
        cells = (
            *(each.name, f"{each.seconds:.0f}", len(each.requests), len(each.failed)),
            *(f"{max((r.waited for r in each.requests), default=0.0):.2f}", each.most_jobs, len(each.hand_overs)),
            *(f"{start_up:.1f}", f"{drain:.1f}", f"{together:.1f}"),
            f"{together / (start_up + drain):.2f}" if each.hand_overs else "-",
        )
        lines.append("".join(f"{cell:>12}" for cell in cells))
    lines.append(
        "waited: the longest wait for an answer or a stream's first byte, s; jobs: the most at once; start-up,"
    )
    lines.append("drain, and how long two jobs of a replica were held together: s, means of the hand-overs")
    kinds = Counter(request.kind for each in outcomes for request in each.requests)
    lines.append(", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items())))
    for each in outcomes:
        lines += [f"{each.name}: {note}" for note in each.notes]
        lines += [f"{each.name}: WRONG: {line}" for line in each.wrong[:MOST_TOLD]]
        lines += [f"{each.name}: and {len(each.wrong) - MOST_TOLD} more"] if len(each.wrong) > MOST_TOLD else []
    return "\n".join(lines)


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def run(system: System, phases: Collection[str], limits: int, time_limit: int = TIME_LIMIT) -> list[Outcome]:
    """Go through these phases with a new installation, up to the first that breaks a promise; print the table.

    `limits`: how many times `time-limits` has each replica handed over; `time_limit`: of the jobs, minutes.
    """
    try:
        endurance = Endurance(system, limits, time_limit)
        outcomes = endurance.run({name: PHASES[name] for name in phases})
        print(table(outcomes), flush=True)
        return outcomes
    finally:
        system.close()


def main() -> int:
    """Bring a cluster up, go through the phases, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=int, default=15, help="time limits in a row, of each replica")
    parser.add_argument("--phases", nargs="*", choices=list(PHASES), default=list(PHASES))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="af-endurance-"))
    with bring_up(folder / "slurm", **CLUSTER) as cluster:
        (folder / "system").mkdir()
        system = System(folder / "system", cluster, str(APPTAINER))
        outcomes = run(system, options.phases, options.limits)
    is_kept = len(outcomes) == len(options.phases) and not any(outcome.wrong for outcome in outcomes)
    if is_kept:
        shutil.rmtree(folder)
    else:
        print(f"logs and database: {folder}")
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())

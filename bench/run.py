"""`make bench`: measure, print the tables, write them to .local/bench/latest.md. Names choose some of the tables.

`watches` and `scale`, which `make bench-scale` measures, and `streams` of `make bench-streams` take long: they are left
out unless they are named.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from bench import (  # noqa: E402
    api_load,
    commit_to_sbatch,
    deciding,
    doors,
    gateways,
    leads,
    replacement,
    scale,
    steady,
    streams,
    watching,
)
from bench.figures import Table, load, median  # noqa: E402
from bench.installation import Site, slurm  # noqa: E402

ON_SLURM: dict[str, Callable[[Site], Table]] = {
    "commit": commit_to_sbatch.measure,
    "replace": replacement.measure,
    "queued": steady.measure_real,
}
ALONE: dict[str, Callable[[Path], Table]] = {
    "deciding": deciding.measure,
    "leads": leads.measure,
    "door": doors.measure,
    "gateway": gateways.measure,
    "running": steady.measure_simulated,
    "scale-1000": scale.measure_thousand,
    "api": api_load.measure,
}
ON_REQUEST: dict[str, Callable[[Path], Table]] = {
    "watches": watching.measure,
    "scale": scale.measure,
    "streams": streams.measure,
}
REPORT = ROOT / ".local" / "bench" / "latest.md"


def main(names: Sequence[str]) -> int:
    """Measure what is named, or everything."""
    alone = ALONE | ON_REQUEST
    known = [*ON_SLURM, *alone]
    if unknown := set(names) - set(known):
        print(f"There is no bench {', '.join(sorted(unknown))}. There are: {', '.join(known)}.", file=sys.stderr)
        return 2
    began = time.monotonic()
    told = [
        f"# Figures of {time.strftime('%Y-%m-%d %H:%M')}",
        f"{_python()}; {_waking()}. Load of the machine at the start: {load()}",
    ]
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        site = stack.enter_context(slurm(folder)) if _chosen(ON_SLURM, names) else None
        for name in _chosen(known, names or [*ON_SLURM, *ALONE]):
            before = time.monotonic()
            table = ON_SLURM[name](site) if name in ON_SLURM and site is not None else alone[name](folder)
            table.notes.append(f"It took {time.monotonic() - before:.0f} s; load of the machine at its end: {load()}.")
            told.append(table.markdown())
            print(told[-1], flush=True)
    told.append(f"All took {time.monotonic() - began:.0f} s.")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n\n".join(told) + "\n")
    print(f"{told[-1]} The tables are in {REPORT.relative_to(ROOT)}.")
    return 0


def _python() -> str:
    """Say which Python measures, and how fast it is: one not built for speed takes half as long again for a step."""
    step = min(timeit.repeat("str(1).startswith('9')", number=100_000, repeat=5)) / 100_000
    return f"Python {platform.python_version()}, {step * 1e9:.0f} ns a step"


def _waking() -> str:
    """Say how late a sleep ends here: for so long a lone chunk waits at each hop, whoever passes it on."""
    late = []
    for _ in range(50):
        ends = time.monotonic() + 0.02
        time.sleep(0.02)
        late.append(time.monotonic() - ends)
    return f"a sleep of 20 ms ends {median(late) * 1e6:.0f} µs late"


def _chosen(tables: Iterable[str], names: Sequence[str]) -> list[str]:
    return [name for name in tables if name in names or not names]


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder with a short path (Slurm's sockets), and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="af-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

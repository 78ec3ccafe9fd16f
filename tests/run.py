"""The targets `test`, `proof`, `attacks` and `sites`: set up what they need, run parts side by side, tell of each.

`tests/run.py NAME…` runs targets, or some of their parts; `tests/run.py setup` only sets up. A part is a run of pytest,
and a new one is a line of `PARTS`. What could not run on this machine is named at the end, and fails the run where CI
is set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from threading import Lock

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ROOT / "deploy" / "local"
TOOLS = ROOT / ".local" / "tools"
REPORTS = ROOT / ".local" / "test"
SLURM = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "slurmdbd", "mariadb-server")
SLOWEST = 10

PREPARATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Slurm, PostgreSQL and Lmod",
        ("install-packages", str(REPORTS / "apt.log"), *SLURM, "postgresql", "systemd", "openssl", "lmod"),
    ),
    ("Environment Modules", ("unpack-package", "environment-modules", str(TOOLS / "environment-modules"))),
    ("Apptainer", ("install-apptainer", str(TOOLS / "apptainer"))),
    ("vLLM for CPU", ("install-vllm", str(TOOLS / "vllm"))),
    ("a tiny model", ("make-model", "tiny", str(TOOLS / "models" / "tiny"), str(TOOLS / "vllm"))),
)

SPREAD = ("--dist", "loadgroup")
"""Each test goes to whichever worker is free; those of an `xdist_group` stay together."""
IN_ORDER = ("--dist", "loadfile", "--no-loadscope-reorder")
"""Each file goes to whichever worker is free: its tests share an installation."""
WITH_PROPERTIES = ("tests/unit", "tests/api", "tests/cli", "tests/simulation")
SHORT, LONG = ("-m", "not proof"), ("-m", "proof")
BEHIND = {"CPU": ("nice", "-n", "10")}
"""What computes takes what is left by what waits."""
MANY_EXAMPLES = ("-m", "hypothesis", "--hypothesis-profile", "proof")


@dataclass(frozen=True)
class Part:
    """A run of pytest."""

    name: str
    target: str
    lane: str
    """Parts of a lane run one after another, lanes side by side."""
    workers: int
    """Processes that share the tests: more than there are cores where tests mostly wait."""
    about: str
    arguments: tuple[str, ...]


PARTS = (
    Part("unit", "test", "CPU", 3, "pure functions, parsers, the job's wrapper", ("tests/unit", *SHORT)),
    Part("simulation", "test", "CPU", 2, "schedules of faults, in virtual time", ("tests/simulation", *SHORT)),
    Part("contract", "test", "CPU", 3, "databases and Slurm, the real ones", ("tests/contract",)),
    Part("api", "test", "CPU", 3, "the REST contract", ("tests/api",)),
    Part("cli", "test", "CPU", 3, "the command line", ("tests/cli",)),
    Part("local", "test", "machine", 2, "the scripts that set a machine up", ("tests/local",)),
    Part("cluster", "test", "Slurm", 2, "the whole system on a real Slurm", ("tests/cluster", *SHORT, *IN_ORDER)),
    Part("e2e", "test", "machine", 1, "real Slurm, real Apptainer, real vLLM", ("tests/e2e",)),
    Part(
        "search",
        "proof",
        "CPU",
        2,
        "ten thousand schedules, each rule taken out",
        ("tests/simulation", "tests/unit", *LONG),
    ),
    Part("properties", "proof", "CPU", 2, "twenty times the drawn examples", (*WITH_PROPERTIES, *MANY_EXAMPLES)),
    Part("attackers", "attacks", "Slurm", 2, "another user of the same hosts", ("tests/attacks", *IN_ORDER)),
    Part("sites", "sites", "Slurm", 2, "clusters as real sites set them up", ("tests/sites", *IN_ORDER)),
    Part("disasters", "proof", "Slurm", 2, "killed leaders, long silence, chaos", ("tests/cluster", *LONG, *IN_ORDER)),
)
"""What there is. A new part is a line, a new target is one with a name of its own (and a line in the Makefile)."""


@dataclass
class Result:
    """What came of one part."""

    name: str
    code: int
    seconds: float
    cpu: float
    """Seconds of CPU of the tests and of what they waited for; without daemons and jobs of Slurm."""
    passed: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)
    times: list[tuple[float, str]] = field(default_factory=list)


def main(names: Sequence[str]) -> int:
    """Run the targets and parts that are named, or `make test`."""
    if list(names) == ["setup"]:
        return 1 if set_up() else 0
    chosen = [part for part in PARTS if {part.target, part.name} & set(names or ["test"])]
    known = {name for part in PARTS for name in (part.target, part.name)}
    if unknown := set(names) - known:
        print(f"There is no part {', '.join(sorted(unknown))}. There are: {', '.join(sorted(known))}.", file=sys.stderr)
        return 2
    began = time.monotonic()
    missing = set_up()
    waited = time.monotonic() - began
    lanes = [list(parts) for _, parts in groupby(sorted(chosen, key=lambda p: p.lane), key=lambda p: p.lane)]
    with ThreadPoolExecutor(len(lanes)) as pool:
        results = {result.name: result for lane in pool.map(run_lane, lanes) for result in lane}
    ran = time.monotonic() - began - waited
    return close([results[part.name] for part in chosen], missing, waited, ran)


def set_up() -> list[str]:
    """Install what tests need, and return what failed."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    return [what for what, command in PREPARATIONS if not prepare(what, command)]


def prepare(what: str, command: tuple[str, ...]) -> bool:
    """Install one thing; say what failed."""
    began = time.monotonic()
    done = subprocess.run([LOCAL / command[0], *command[1:]], check=False, stdout=subprocess.DEVNULL)
    word = "ready" if done.returncode == 0 else "FAILED"
    print(f"{what}: {word} after {time.monotonic() - began:.1f} s", flush=True)
    return done.returncode == 0


def run_lane(parts: Sequence[Part]) -> list[Result]:
    """Run parts one after another."""
    return [run(part) for part in parts]


_telling = Lock()


def run(part: Part) -> Result:
    """Run one part, and count from its report. What it says is told when it has ended."""
    report, log = REPORTS / f"{part.name}.xml", REPORTS / f"{part.name}.log"
    report.unlink(missing_ok=True)
    workers = ("-n", str(part.workers), *SPREAD) if part.workers > 1 else ()
    command = [*BEHIND.get(part.lane, ()), sys.executable, "-m", "pytest", *workers, *part.arguments]
    command += ["-q", f"--junitxml={report}"]
    print(f"{part.name}: begins", flush=True)
    began = time.monotonic()
    with log.open("wb") as told:
        process = subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=told)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    result = Result(part.name, process.returncode, time.monotonic() - began, used.ru_utime + used.ru_stime)
    count(result, report)
    with _telling:
        print(f"\n--- {part.name}: {part.about}\n{log.read_text(errors='replace')}", flush=True)
    return result


def count(result: Result, report: Path) -> None:
    """Count what a part's report holds, if there is one."""
    if not report.exists():
        return
    for case in ET.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        result.times.append((float(case.get("time", 0)), name))
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            result.failed += 1
        elif skipped is not None:
            result.skipped.append(f"{name}: {skipped.get('message')}")
        else:
            result.passed += 1


def close(results: list[Result], missing: list[str], waited: float, ran: float) -> int:
    """Print the closing lines; return the exit code."""
    for result in results:
        print(f"\n=== the slowest of {result.name}")
        for seconds, name in sorted(result.times, reverse=True)[:SLOWEST]:
            print(f"{seconds:7.1f} s  {name}")
    print("\n=== all parts")
    for result in results:
        state = "ok" if result.code == 0 and result.passed else "FAILED"
        counts = f"{result.passed} passed, {result.failed} failed, {len(result.skipped)} skipped"
        print(f"{result.name:<12}{state:<8}{counts:<42}{result.seconds:7.1f} s, {result.cpu:7.1f} s of CPU")
    print(f"set up in {waited:.1f} s, then ran for {ran:.1f} s, {sum(r.cpu for r in results):.1f} s of CPU")
    skipped = [f"{result.name}: {line}" for result in results for line in result.skipped]
    for line in [*(f"could not be set up: {what}" for what in missing), *(f"did not run: {line}" for line in skipped)]:
        print(line)
    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results)
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped", flush=True)
    broken = any(r.code != 0 or not r.passed for r in results)
    not_run = bool(os.environ.get("CI")) and bool(skipped or missing)
    return 1 if broken or not_run else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

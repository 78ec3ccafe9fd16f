"""`make test`: install what the suite needs, run it layer by layer, close with a line for each.

What could not run on this machine is named at the end, and fails the run where CI is set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ROOT / "deploy" / "local"
TOOLS = ROOT / ".local" / "tools"
REPORTS = ROOT / ".local" / "test"
SLURM = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "slurmdbd", "mariadb-server")

PREPARATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Slurm and PostgreSQL", ("install-packages", str(REPORTS / "apt.log"), *SLURM, "postgresql", "systemd")),
    ("Apptainer", ("install-apptainer", str(TOOLS / "apptainer"))),
    ("vLLM for CPU", ("install-vllm", str(TOOLS / "vllm"))),
    ("a tiny model", ("make-model", "tiny", str(TOOLS / "models" / "tiny"), str(TOOLS / "vllm"))),
)

LAYERS: tuple[tuple[str, str], ...] = (
    ("unit", "pure functions, parsers, the job's wrapper"),
    ("simulation", "ten thousand schedules of faults, in virtual time"),
    ("contract", "databases and Slurm, the real ones"),
    ("api", "the REST contract"),
    ("cli", "the command line"),
    ("local", "the scripts that set a machine up"),
    ("cluster", "the whole system on a real Slurm"),
    ("e2e", "real Slurm, real Apptainer, real vLLM"),
)

BESIDE = ("simulation", "api", "cli")
"""Layers that run one after another beside the others, with what these leave of the machine: they use no cluster."""


@dataclass
class Result:
    """What came of one layer."""

    name: str
    seconds: float
    code: int
    passed: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)


def main() -> int:
    """Run the layers named on the command line, or all."""
    chosen = sys.argv[1:] or [name for name, _ in LAYERS]
    REPORTS.mkdir(parents=True, exist_ok=True)
    missing = [what for what, command in PREPARATIONS if not prepare(what, command)]
    layers = [(name, about) for name, about in LAYERS if name in chosen]
    with ThreadPoolExecutor(1) as lane:
        aside = {name: lane.submit(run_aside, name) for name, _ in layers if name in BESIDE}
        results = {name: run(name, about) for name, about in layers if name not in aside}
        results |= {name: join(name, about, aside[name]) for name, about in layers if name in aside}
    return close([results[name] for name, _ in layers], missing)


def prepare(what: str, command: tuple[str, ...]) -> bool:
    """Install one thing; say what failed."""
    began = time.monotonic()
    done = subprocess.run([LOCAL / command[0], *command[1:]], check=False, stdout=subprocess.DEVNULL)
    word = "ready" if done.returncode == 0 else "FAILED"
    print(f"{what}: {word} after {time.monotonic() - began:.1f} s", flush=True)
    return done.returncode == 0


def run(name: str, about: str) -> Result:
    """Run one layer with pytest, and count from its report."""
    print(f"\n--- {name}: {about}", flush=True)
    began = time.monotonic()
    code = subprocess.run(_pytest(name), check=False, cwd=ROOT).returncode
    return count(Result(name=name, seconds=time.monotonic() - began, code=code))


def run_aside(name: str) -> Result:
    """Run one layer; what it says is kept until `join`."""
    began = time.monotonic()
    with _log(name).open("wb") as log:
        command = ["nice", "-n", "10", *_pytest(name)]
        code = subprocess.run(command, check=False, cwd=ROOT, stdout=log, stderr=log).returncode
    return count(Result(name=name, seconds=time.monotonic() - began, code=code))


def join(name: str, about: str, running: Future[Result]) -> Result:
    """Wait for the end of a layer, and say what it said."""
    result = running.result()
    print(f"\n--- {name}: {about}\n{_log(name).read_text(errors='replace')}", flush=True)
    return result


def _pytest(name: str) -> list[str]:
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    return [sys.executable, "-m", "pytest", str(ROOT / "tests" / name), "-q", f"--junitxml={report}"]


def _log(name: str) -> Path:
    return REPORTS / f"{name}.log"


def count(result: Result) -> Result:
    """Count what the layer's report holds, if there is one."""
    report = REPORTS / f"{result.name}.xml"
    if not report.exists():
        return result
    for case in ET.parse(report).getroot().iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            result.failed += 1
        elif skipped is not None:
            result.skipped.append(f"{case.get('classname')}.{case.get('name')}: {skipped.get('message')}")
        else:
            result.passed += 1
    return result


def close(results: list[Result], missing: list[str]) -> int:
    """Print the closing lines; return the exit code."""
    print("\n=== all layers")
    for result in results:
        state = "ok" if result.code == 0 and result.passed else "FAILED"
        counts = f"{result.passed} passed, {result.failed} failed, {len(result.skipped)} skipped"
        print(f"{result.name:<12}{state:<8}{counts:<42}{result.seconds:7.1f} s")
    skipped = [f"{result.name}: {line}" for result in results for line in result.skipped]
    for line in [*(f"could not be set up: {what}" for what in missing), *(f"did not run: {line}" for line in skipped)]:
        print(line)
    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results)
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped", flush=True)
    broken = any(r.code != 0 or not r.passed for r in results)
    not_run = bool(os.environ.get("CI")) and bool(skipped or missing)
    return 1 if broken or not_run else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a request costs the API, beside a bare route of its framework in the same run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen

import uvloop

from bench.client import CONNECTIONS, put_load, request
from bench.figures import Table, cpu_seconds, median, ms, percentile
from bench.installation import Installation
from bench.simulated import SERVICE, installation_at_rest, stub_engine
from tests.cluster.system import ROOT
from tests.slurm_cluster import SlurmCluster

SERVICES = 100
ROUNDS = 5
SECONDS = 0.8
NEW = json.dumps({"recipe_name": "simple/hello", "config": {}}).encode()


@dataclass(slots=True)
class Case:
    """One request to one server, and its figures, one of each round."""

    name: str
    pid: int
    port: int
    message: bytes
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Put it under load for a while."""
        before = cpu_seconds(self.pid)
        load = uvloop.run(put_load(self.port, self.message, seconds))
        assert not load.failed, f"{load.failed} of {self.name} failed"
        self.rates.append(load.rate)
        self.cpu.append((cpu_seconds(self.pid) - before) / len(load.latencies))
        self.latencies += load.latencies

    def forget(self) -> None:
        """Throw away what was measured."""
        self.rates, self.cpu, self.latencies = [], [], []


def measure(folder: Path) -> Table:
    """Return the table."""
    with ExitStack() as stack:
        bare, bare_port = stack.enter_context(_bare())
        with stub_engine() as engine:
            full = installation_at_rest(folder / "api-full", SERVICES, engine)
        empty = Installation(folder / "api-empty", SlurmCluster(folder))
        for installation in (full, empty):
            stack.callback(installation.end)
            installation.start("api")
        pid, port = full.pid("api"), full.port
        cases = [
            Case("bare Litestar, GET", bare.pid, bare_port, request("GET", "/")),
            Case("GET /health", pid, port, request("GET", "/health")),
            Case("GET /api/v1/services/{id}", pid, port, request("GET", f"/api/v1/services/{SERVICE}")),
            Case(f"GET /api/v1/services, {SERVICES} of them", pid, port, request("GET", "/api/v1/services")),
            Case("bare Litestar, POST", bare.pid, bare_port, request("POST", "/", NEW)),
            Case("POST /api/v1/services", empty.pid("api"), empty.port, request("POST", "/api/v1/services", NEW)),
        ]
        for case in cases:
            case.run(0.3)
            case.forget()
        for _ in range(ROUNDS):
            for case in cases:
                case.run(SECONDS)
    return _table(cases)


def _table(cases: list[Case]) -> Table:
    columns = ("request", "a second", "CPU µs", "times the bare route's CPU", "median ms", "p99 ms")
    table = Table("Requests to the API", columns)
    bare = cases[0]
    for case in cases:
        bare = case if case.name.startswith("bare") else bare
        table.add(
            case.name,
            f"{median(case.rates):,.0f}",
            f"{median(case.cpu) * 1e6:,.0f}",
            f"{median(case.cpu) / median(bare.cpu):.1f}",
            ms(median(case.latencies)),
            ms(percentile(case.latencies, 0.99)),
        )
    table.notes.append(
        f"One client, {CONNECTIONS} connections that are kept; {ROUNDS} rounds of {SECONDS:g} s each, medians; "
        "the API as a process of its own on SQLite, its CPU with all its threads."
    )
    return table


@contextmanager
def _bare() -> Iterator[tuple[Popen[str], int]]:
    process = Popen([sys.executable, "-m", "bench.bare"], stdout=PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()

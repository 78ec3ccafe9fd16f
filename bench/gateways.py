"""The gateway beside nginx, vllm-router and LiteLLM, each on one core in front of the same imitation of vLLM.

Two workers of ours have all cores.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Table, cpu_seconds, median, percentile
from bench.gateway_engine import BEAT, CHUNKS
from bench.gateway_proxies import (
    MissingError,
    Proxy,
    cores,
    door_of,
    gateway,
    gateway_workers,
    installation,
    litellm,
    nginx,
    vllm_router,
)
from bench.processes import Way, process

STREAMS = (64, 256, 1024)
AT_ONCE = 32
"""Requests, where none is streamed."""
SECONDS, SETTLE = 2.0, 1.5
ROUNDS = 3
NONE, NGINX, ROUTER, LITELLM, OURS = "none", "nginx", "vllm-router", "LiteLLM", "this gateway"
ONE, TWO = "this gateway, one worker", "this gateway, two workers"
NGINX_TLS, OURS_TLS = "nginx, TLS to the engine", "this gateway, TLS to the engine"
REQUEST_GOAL, CHUNK_GOAL, LITELLM_GOAL, FIRST_GOAL, WORKERS_GOAL = 10, 2, 40, 1.0, 1.8


@dataclass(slots=True)
class Figures:
    """What was measured of one way at one load, a figure of each round."""

    requests: list[float] = field(default_factory=list)
    """A second."""
    chunks: list[float] = field(default_factory=list)
    """A second."""
    cpu_request: list[float] = field(default_factory=list)
    cpu_chunk: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    """Seconds to the first token, of each request of all rounds."""
    megabytes: list[float] = field(default_factory=list)
    failed: int = 0
    problems: list[str] = field(default_factory=list)


Found = dict[tuple[str, int], Figures]
"""By way and streams; 0: requests that are not streamed."""


def measure(folder: Path) -> Table:
    """Ask all ways in turn, round after round."""
    columns = (
        "way", "streams", "requests/s", "chunks/s", "CPU µs a request", "CPU µs a chunk", "first token p50 ms",
        "p99 ms", "MB", "failed",
    )  # fmt: skip
    table = Table(
        f"The gateway ({CHUNKS} chunks a stream, one a {BEAT * 1000:.0f} ms; one core a proxy, two workers on all)",
        columns,
    )
    found: Found = defaultdict(Figures)
    with ExitStack() as stack:
        ways = list(_ways(stack, folder, table))
        for streams in (0, *STREAMS):
            for number in range(ROUNDS):
                for proxy in ways:
                    if proxy.way.name == LITELLM and number > 0:
                        continue
                    with ExitStack() as others:
                        for other in ways:
                            if other is not proxy and other.way.name != NONE:  # all need the engine
                                others.enter_context(other.way.stopped())
                        _ask(proxy, streams, found[proxy.way.name, streams])
    for streams in (0, *STREAMS):
        for proxy in ways:
            _add(table, proxy.way.name, streams, found[proxy.way.name, streams])
    _goals(table, found)
    return table


def _ways(stack: ExitStack, folder: Path, table: Table) -> Iterator[Proxy]:
    plain = stack.enter_context(_engine("-"))
    yield Proxy(Way(NONE, plain.port, plain.pids))
    own, with_door = (stack.enter_context(installation(folder / name)) for name in ("plain", "door"))
    authority, token = door_of(with_door)
    credentials = folder / "engine.json"
    credentials.touch(mode=0o600)
    credentials.write_text(json.dumps(asdict(authority.door(token)) | {"authority": authority.certificate}))
    behind_door = stack.enter_context(_engine(str(credentials)))
    assert plain.port is not None and behind_door.port is not None
    yield stack.enter_context(gateway(own, plain.port, OURS))
    for workers, name in ((1, ONE), (2, TWO)):
        yield stack.enter_context(gateway_workers(own, workers, name))
    yield stack.enter_context(gateway(with_door, behind_door.port, OURS_TLS, has_door=True))
    for made in (
        nginx(folder / "nginx", plain.port, NGINX),
        nginx(folder / "nginx-tls", behind_door.port, NGINX_TLS, (authority, token)),
        vllm_router(folder, plain.port),
        litellm(folder, plain.port),
    ):
        try:
            yield stack.enter_context(made)
        except MissingError as error:
            table.notes.append(f"Left out: {error}.")


@contextmanager
def _engine(credentials: str) -> Iterator[Way]:
    with process([*cores()[1], sys.executable, "-m", "bench.gateway_engine", credentials]) as engine:
        assert engine.stdout is not None
        yield Way("engine", int(engine.stdout.readline()), (engine.pid,))


def _ask(proxy: Proxy, streams: int, figures: Figures) -> None:
    """Put one way under load for a while."""
    way = proxy.way
    plan = {
        "port": way.port,
        "key": proxy.key,
        "connections": streams or AT_ONCE,
        "stream": streams > 0,
        "settle": SETTLE if streams == 0 else CHUNKS * BEAT,
        "seconds": SECONDS,
    }
    with process([*cores()[1], sys.executable, "-m", "bench.gateway_clients", json.dumps(plan)]) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "begin\n"
        before = way.cpu()
        assert client.stdout.readline() == "end\n"
        cpu = way.cpu() - before
        came: dict[str, Any] = json.loads(client.stdout.readline())
    _wait_until_quiet(way)  # stopped now, it might keep a lock that the next one needs
    figures.requests.append(came["requests"] / SECONDS)
    figures.chunks.append(came["chunks"] / SECONDS)
    if streams and came["chunks"]:
        figures.cpu_chunk.append(cpu / came["chunks"])
    elif came["requests"]:
        figures.cpu_request.append(cpu / came["requests"])
    figures.first += came["first"]
    figures.megabytes.append(way.memory() / 1000)
    figures.failed += came["failed"]
    figures.problems += came["problems"]


def _wait_until_quiet(way: Way) -> None:
    """Wait until it has done what was left of a load."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        before = sum(map(cpu_seconds, way.pids))
        time.sleep(0.2)
        if sum(map(cpu_seconds, way.pids)) - before < 0.02:
            return


def _add(table: Table, name: str, streams: int, figures: Figures) -> None:
    table.add(
        name,
        f"{streams:,}" if streams else "–",
        f"{median(figures.requests):,.0f}",
        f"{median(figures.chunks):,.0f}" if streams else "",
        "" if streams else _us(figures.cpu_request),
        _us(figures.cpu_chunk) if streams else "",
        f"{percentile(figures.first, 0.5) * 1000:.2f}",
        f"{percentile(figures.first, 0.99) * 1000:.2f}",
        f"{median(figures.megabytes):.0f}",
        str(figures.failed),
    )
    if figures.problems:
        table.notes.append(f"{name}, {streams} streams: {figures.problems[0]!r}")


def _us(seconds: list[float]) -> str:
    return f"{median(seconds) * 1e6:,.0f}"


def _goals(table: Table, found: Found) -> None:
    for ours, theirs in ((OURS, NGINX), (OURS_TLS, NGINX_TLS)):
        if (theirs, 0) not in found:
            continue
        times = median(found[ours, 0].cpu_request) / median(found[theirs, 0].cpu_request)
        table.goal(f"CPU a request of {ours}, beside nginx", times, REQUEST_GOAL, "times")
        for streams in STREAMS:
            times = median(found[ours, streams].cpu_chunk) / median(found[theirs, streams].cpu_chunk)
            table.goal(f"CPU a chunk of {ours}, {streams} streams, beside nginx", times, CHUNK_GOAL, "times")
    if (ROUTER, 0) in found:
        most = STREAMS[-1]
        times = median(found[OURS, most].cpu_chunk) / median(found[ROUTER, most].cpu_chunk)
        table.goal(f"CPU a chunk of {OURS}, {most} streams, beside vllm-router", times, 1.01, "times")
    if (LITELLM, 0) in found:
        times = median(found[OURS, 0].cpu_request) / median(found[LITELLM, 0].cpu_request)
        table.goal(f"CPU a request of {OURS}, beside LiteLLM", times, 1 / LITELLM_GOAL, "times")
    costs = median(found[TWO, 0].cpu_request) / median(found[ONE, 0].cpu_request)
    table.goal("CPU a request of two workers, beside one", costs, 2 / WORKERS_GOAL, "times")
    added = percentile(found[OURS, STREAMS[0]].first, 0.5) - percentile(found[NONE, STREAMS[0]].first, 0.5)
    table.goal(f"added to the first token, p50, {STREAMS[0]} streams", added * 1000, FIRST_GOAL, "ms")
    table.goal(f"failed of {STREAMS[-1]} streams", found[OURS, STREAMS[-1]].failed, 1, "")
    table.notes += [
        f"none: the imitation of vLLM itself, and its CPU. It and the clients have the other core. {ROUNDS} rounds in "
        f"turn, {SECONDS:g} s each, one of LiteLLM; medians. Who has not its turn is stopped.",
        "What one core passes in a second is what fits into its CPU: so the goals compare CPU, which others on this "
        "machine take nothing of. Chunks include their share of the stream's request.",
        "Times, and rates below what was offered, are those of this machine with all else that runs on it.",
        f"Without streams: {AT_ONCE} requests at a time. TLS: the door's, both sides with certificates.",
        "Two workers have all cores, those of the clients and the imitation too: compare what they cost, and no times. "
        "With a core each they pass as many times the requests of one as 2 divided by what a request of theirs costs "
        f"beside one's ({WORKERS_GOAL:g} times: {2 / WORKERS_GOAL:.3g}).",
        "Our keys have all three limits, which the load stays below.",
    ]

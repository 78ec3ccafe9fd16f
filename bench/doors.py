"""The door beside no door, and beside nginx that ends the same mutual TLS before the same socket."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from api.contract.certificates import Authority
from api.contract.job.tls import server_name
from bench.door_worker import BEAT, CHUNK, GAP
from bench.figures import Table, ms, percentile
from bench.processes import ROOT, Way, children, process, wait_until_listens
from controller.wrapper.door.opening import Instructions
from tests.ports import free_port

TOKEN = "af-z42chr-7f96e9xf-0-1"
AT_ONCE, PACED = "at once", f"{GAP * 1e6:.0f} µs apart"
KINDS = ((1, AT_ONCE), (64, AT_ONCE), (64, PACED), (256, AT_ONCE), (256, PACED))
"""How many streams, and how the chunks of one step leave the engine."""
SECONDS, SETTLE = 6.0, 1.5
IDLE = 1000
NGINX = "/usr/sbin/nginx"
MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
CPU_GOAL, DELAY_GOAL = 2.5, 0.3


def measure(folder: Path) -> Table:
    """Ask all three ways in turn, with as many streams at a time."""
    table = Table(
        f"The door (streams of {CHUNK} bytes a {BEAT * 1000:.0f} ms, before one engine on a Unix socket)",
        (
            "way",
            "streams",
            "chunks of a step",
            "chunks/s",
            "CPU µs a chunk",
            "p50 ms",
            "p99 ms",
            "connections/s",
            "kB a held one",
        ),
    )
    authority = Authority(os.urandom(32))
    with ExitStack() as stack:
        socket_path = folder / "engine.sock"
        stack.enter_context(_engine(socket_path))
        ways = [Way("none", None), stack.enter_context(_door(authority, socket_path, folder))]
        if Path(NGINX).exists() and Path(MODULE).exists():
            ways.append(stack.enter_context(_nginx(authority, socket_path, folder)))
        else:
            table.notes.append("nginx with its stream module is not installed: it is left out.")
        ask = _asker(authority, socket_path, folder)
        found: dict[tuple[str, int, str], tuple[float, float]] = {}
        for streams, how in KINDS:
            for way in ways:
                found[way.name, streams, how] = _streams(table, ask, way, streams, how)
        for way in ways:
            _connections(table, ask, way)
    for streams, how in KINDS:
        cpu, delay = found["door", streams, how]
        if ("nginx", streams, how) in found:
            times = cpu / found["nginx", streams, how][0]
            table.goal(f"CPU a chunk, {streams} streams {how}, beside nginx", times, CPU_GOAL, "times")
        if streams == 1:
            added = (delay - found["none", streams, how][1]) * 1000
            table.goal("delay that it adds, p50, of one stream", added, DELAY_GOAL, "ms")
    table.notes += [
        "The delay of many streams is the queue before the core that passes all of them on: there each way's CPU a "
        "chunk tells, and the goal of the delay is for one stream.",
        f"{AT_ONCE}: an engine's step sends a chunk of each stream in one go, the worst there is: the pipe has one "
        "thread and passes on one after another, so the middle one waits for half of all.",
        f"{PACED}: as the chunks of a step leave vLLM's API server. A chunk of its own classes takes it 10 µs to make, "
        "and its tasks, woken together, are written by uvloop together: 64 within 1.3 ms.",
    ]
    return table


Asker = Callable[..., dict[str, Any]]


def _asker(authority: Authority, socket_path: Path, folder: Path) -> Asker:
    credentials = authority.client("api")

    def ask(way: Way, at: Callable[[str], None], **plan: Any) -> dict[str, Any]:
        """Run the client; `at` is called with each word that it says on its way."""
        told = {"socket": str(socket_path), "port": way.port, "name": "" if way.port is None else server_name(TOKEN)}
        file = folder / "plan.json"
        file.write_text(json.dumps(told | asdict(credentials) | {"authority": authority.certificate} | plan))
        command = [sys.executable, str(ROOT / "bench" / "door_worker.py"), "client", str(file)]
        with process(command) as client:
            assert client.stdout is not None and client.stdin is not None
            for line in client.stdout:
                at(line.strip())
                if line.strip() == "held":
                    client.stdin.write("\n")
                    client.stdin.flush()
            if client.wait():
                raise RuntimeError(f"the client of {way.name} failed")
        return dict(json.loads((folder / "plan.json.answer").read_text()))

    return ask


def _streams(table: Table, ask: Asker, way: Way, streams: int, how: str) -> tuple[float, float]:
    used: list[float] = []
    plan = {"what": "streams", "streams": streams, "paced": how == PACED, "seconds": SECONDS, "settle": SETTLE}
    answer = ask(way, lambda _: used.append(way.cpu()), **plan)
    delays = answer["delays"]
    cpu = (used[1] - used[0]) / len(delays)
    middle = percentile(delays, 0.5)
    cells = (f"{len(delays) / SECONDS:,.0f}", f"{cpu * 1e6:.0f}", f"{middle * 1000:.2f}", ms(percentile(delays, 0.99)))
    table.add(way.name, str(streams), how, *cells, "", "")
    return cpu, middle


def _connections(table: Table, ask: Asker, way: Way) -> None:
    before = way.memory()
    memory: dict[str, int] = {}
    plan = {"what": "connections", "seconds": 4.0, "hold": IDLE}
    answer = ask(way, lambda word: memory.update({word: way.memory()}), **plan)
    held = (memory["held"] - before) / IDLE
    table.add(way.name, "", "", "", "", "", "", f"{answer['made'] / answer['seconds']:,.0f}", f"{held:.0f}")


@contextmanager
def _engine(path: Path) -> Iterator[None]:
    with process([sys.executable, str(ROOT / "bench" / "door_worker.py"), "engine", str(path)]) as engine:
        assert engine.stdout is not None and engine.stdout.readline() == "ready\n"
        yield


@contextmanager
def _door(authority: Authority, path: Path, folder: Path) -> Iterator[Way]:
    own = authority.door(TOKEN)
    told = Instructions(own.certificate, own.key, authority.certificate, None, str(path), str(folder))
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        command = [sys.executable, "-m", "controller.wrapper", "door", str(descriptor)]
        with process(command, pass_fds=[descriptor], cwd=folder) as door:
            assert door.stdin is not None
            door.stdin.write(json.dumps(asdict(told)) + "\n1")
            door.stdin.flush()
            yield Way("door", port, (door.pid,))


@contextmanager
def _nginx(authority: Authority, path: Path, folder: Path) -> Iterator[Way]:
    own = authority.door(TOKEN)
    port = free_port()
    for name, text in {"key": own.key, "certificate": own.certificate, "authority": authority.certificate}.items():
        (folder / f"{name}.pem").touch(mode=0o600)
        (folder / f"{name}.pem").write_text(text)
    (folder / "nginx.conf").write_text(
        f"""load_module {MODULE}; daemon off; worker_processes 1; pid {folder}/nginx.pid; user root;
        error_log {folder}/nginx.log; events {{ worker_connections 8192; }}
        stream {{ server {{ listen 127.0.0.1:{port} ssl backlog=4096; proxy_pass unix:{path}; tcp_nodelay on;
          ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;
          ssl_client_certificate {folder}/authority.pem; ssl_verify_client on; }} }}"""
    )
    with process([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)]) as nginx:
        wait_until_listens(port, nginx, folder / "nginx.log")
        try:
            yield Way("nginx", port, tuple(children(nginx.pid)))
        finally:
            nginx.terminate()
            nginx.wait()

"""The project's own programs, run by the demo: `ai-factory up` as a child in a session of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.demo.places import PROGRAM, Choices, Demo, program_environment
from deploy.demo.progress import tail
from deploy.demo.trouble import Trouble


@dataclass
class Server:
    """A running `ai-factory up`; `ours` if this very process has started it."""

    pid: int
    port: int
    ours: bool
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the API's address."""
        return f"http://127.0.0.1:{self.port}"

    def alive(self) -> bool:
        """Tell whether it still runs."""
        if self.process:
            return self.process.poll() is None
        return _is_demo(self.pid)


def _is_demo(pid: int) -> bool:
    """Tell whether the process with this id is the demo's: the number may long be somebody else's."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(Demo.config) in command and b"up" in command


def find() -> Server | None:
    """Return the one that runs already, from this or another terminal."""
    try:
        known = json.loads(Demo.server.read_text())
        server = Server(int(known["pid"]), int(known["port"]), ours=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return server if server.alive() else None


def free_port(first: int) -> int:
    """Return the first port from `first` on that nobody listens on."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Trouble(f"no free port from {first} to {first + 99}", advice="set AI_FACTORY_DEMO_PORT")


def log_file() -> Path:
    """Return where API and controller write."""
    return Demo.log / "ai-factory.log"


def start(wanted: Choices) -> Server:
    """Start it and wait until it is well."""
    port = free_port(wanted.port)
    Demo.log.mkdir(parents=True, exist_ok=True)
    with log_file().open("ab") as log:
        process = subprocess.Popen(
            [PROGRAM, "up", "--config", Demo.config, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=program_environment(),
            start_new_session=True,  # Ctrl-C is for the demo, which then ends it in order
        )
    server = Server(process.pid, port, ours=True, process=process)
    Demo.server.write_text(json.dumps({"pid": server.pid, "port": port}))
    try:
        _wait_until_well(server)
    except BaseException:
        stop(server)
        raise
    return server


def _wait_until_well(server: Server) -> None:
    end = time.monotonic() + 60
    why = ""
    while time.monotonic() < end:
        if not server.alive():
            raise Trouble("ai-factory ended as it started", tail(log_file(), 5), log_file(), "read the log")
        try:
            health = httpx.get(f"{server.url}/health", timeout=5)
            if health.status_code == httpx.codes.OK and health.json().get("status") == "healthy":
                return
            why = health.text
        except (httpx.HTTPError, ValueError) as error:
            why = str(error)
        time.sleep(0.2)
    raise Trouble("ai-factory does not become healthy within 60 s", why, log_file(), "read the log")


def stop(server: Server) -> None:
    """End API and controller; jobs on Slurm go on."""
    if server.alive():
        os.kill(server.pid, signal.SIGTERM)
        if not _gone(server, 20):
            # its children too: it leads a session of its own
            os.killpg(server.pid, signal.SIGKILL)
            _gone(server, 5)
    Demo.server.unlink(missing_ok=True)


def _gone(server: Server, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not server.alive():
            return True
        time.sleep(0.05)
    return False

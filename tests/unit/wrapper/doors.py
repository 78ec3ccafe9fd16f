"""A job's door from outside: who knocks, and an engine behind it that says what it is asked for."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from api.contract.certificates import Authority
from api.contract.job.parameters import Door
from api.contract.job.tls import WATCH, Credentials, client_context, server_name

from .jobs import Job, until

AUTHORITY = Authority(b"k" * 32)
CLIENT = AUTHORITY.client("api")
OTHER = Authority(b"o" * 32)
SOCKET, PORT = {"runtime": "socket"}, {"runtime": "port"}

Start = Callable[..., Job]
"""Starts a job with a door, see the fixture."""

ENGINE = r"""
import hashlib, os, socket, socketserver, sys, time

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        print("called", flush=True)
        words = self.rfile.readline().split()
        if not words:
            return
        elif words[0] == b"echo":
            for line in self.rfile:
                self.wfile.write(line)
        elif words[0] == b"digest":
            digest = hashlib.sha256()
            for block in iter(lambda: self.rfile.read1(65536), b""):
                digest.update(block)
            self.wfile.write(digest.hexdigest().encode())
        elif words[0] == b"send":
            for _ in range(int(words[1])):
                self.wfile.write(b"x" * 1_000_000)
        elif words[0] == b"die":
            print("dies", flush=True)
            time.sleep(2.5)
            self.wfile.write(b"x" * 100_000)
            os._exit(3)

place = sys.argv[1]
kind = socketserver.ThreadingTCPServer if place.isdigit() else socketserver.ThreadingUnixStreamServer
kind.allow_reuse_address = kind.daemon_threads = True
kind.request_queue_size = 64
print(os.getpid(), place, flush=True)
time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)
with kind(("127.0.0.1", int(place)) if place.isdigit() else place, Handler) as server:
    print("listens", flush=True)
    server.serve_forever()
"""


def door(token: str, authority: Authority = AUTHORITY) -> dict[str, Any]:
    """What the controller puts into the parameters."""
    own = authority.door(token)
    return asdict(Door(own.certificate, own.key, authority.certificate, authority.id))


def context(own: Credentials = CLIENT, **more: Any) -> ssl.SSLContext:
    return client_context(own, AUTHORITY.certificate, **more)


class Line:
    """One connection through the door."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.socket = connection

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, size: int) -> bytes:
        """Return so many bytes, or what came before the end."""
        got = b""
        while len(got) < size:
            more = self.socket.recv(min(65536, size - len(got)))
            if not more:
                break
            got += more
        return got

    def rest(self) -> bytes:
        return b"".join(iter(lambda: self.socket.recv(65536), b""))

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def knock(job: Job, by: ssl.SSLContext | None = None, name: str | None = None) -> Line:
    """Connect to the door of a job; raises what TLS raises."""
    token = job.parameters["token"]
    raw = socket.create_connection(("127.0.0.1", until(lambda: job.state.get("port"))), timeout=30)
    try:
        line = Line((by or context()).wrap_socket(raw, server_hostname=name or server_name(token)))
    except BaseException:
        raw.close()
        raise
    return line


def watch(job: Job, own: Credentials = CLIENT) -> Line:
    """Connect as who waits for the engine's end."""
    return knock(job, context(own, protocol=WATCH))


def ends_within(line: Line, seconds: float) -> bool:
    """Whether a caller who waits is told of the end in time."""
    line.socket.settimeout(seconds)
    try:
        return line.receive(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def refused(knocks: Callable[[], Line]) -> bool:
    """Whether a caller who sends something gets nothing for it."""
    try:
        with knocks() as line:
            line.send(b"echo\nhello\n")
            return line.receive(1) == b""
    except OSError:
        return True


def own_processes(job: Job) -> list[int]:
    """Return the wrapper, its guards and its door: all of the job that runs the wrapper's bundle."""
    paths = Path("/proc").glob("[0-9]*/cmdline")
    return sorted(int(path.parent.name) for path in paths if f"{job.wrapper}\0".encode() in _bytes(path))


def door_of(job: Job) -> int:
    """Return the process of its door."""
    return next(pid for pid in own_processes(job) if b"\0door\0" in _bytes(Path(f"/proc/{pid}/cmdline")))


def kill_at_one_blow(job: Job) -> list[int]:
    """Kill all of them, each stopped before the first is killed, so that none sees another's death; return them."""
    doomed = own_processes(job)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in doomed:
            os.kill(pid, number)
    return doomed


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""

"""Engines that mean ill: `python -m tests.evil_engine` prints the port of each, as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
KIB = b" " * 1024


def zipped(mebibytes: int) -> bytes:
    """Return blanks, compressed a thousandfold."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(KIB * 1024) for _ in range(mebibytes)) + packer.flush()


def sized(body: bytes, head: bytes = OK) -> Iterator[bytes]:
    yield b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def after(head: bytes, piece: bytes) -> Iterator[bytes]:
    """Yield one piece again and again."""
    yield head
    yield from repeat(piece)


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


MODES = {
    "endless": lambda: after(CHUNKED + b"\r\n", chunk(KIB * 64)),
    "until_closed": lambda: after(OK + b"\r\n", KIB * 64),
    "zipped": lambda: sized(zipped(64), OK + b"Content-Encoding: gzip\r\n"),
    "headers": lambda: after(OK, b"X-A: %b\r\n" % (b"a" * 60_000)),
    "many_headers": lambda: after(OK, b"A: b\r\n" * 1000),
    "line": lambda: after(OK + b"X-A: ", b"a" * 65536),
    "hints": lambda: after(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 500),
    "continues": lambda: after(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "trailers": lambda: after(CHUNKED + b"\r\n" + chunk(b"x") + b"0\r\n", b"X-A: %b\r\n" % (b"a" * 60_000)),
    "extensions": lambda: after(CHUNKED + b"\r\n1;a=", b"a" * 65536),
    "crumbs": lambda: after(CHUNKED + b"\r\n", chunk(b"x") * 10_000),
    "events": lambda: after(CHUNKED + b"\r\n", chunk(b'data: {"choices":[{"text":"a"}]}\n\n') * 1000),
    "long_event": lambda: after(CHUNKED + b"\r\n", chunk(b"data: " + b"x" * 65530)),
    "figures": lambda: after(CHUNKED + b"\r\n", chunk(b"a 1\n" * 10_000)),
    "labels": lambda: sized(b"a{" + b'b="",' * 300_000 + b"} 1\n"),
    "lists": lambda: sized(b"[" + b"[]," * 1_300_000 + b"[]]"),
    "deep": lambda: sized(b"[" * 300_000 + b"]" * 300_000),
    "lie": lambda: iter([OK + b"Content-Length: 1000000000\r\n\r\nx"]),
    "garbage": lambda: iter([os.urandom(100_000)]),
    "upgrade": lambda: after(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", KIB * 64),
}


def serve(client: socket.socket, mode: str) -> None:
    with client, contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            received = client.recv(65536)
            if not received:
                return
            head += received
        for piece in MODES[mode]():
            client.sendall(piece)


def listen(listening: socket.socket, mode: str) -> None:
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0], mode), daemon=True).start()


def main() -> None:
    listening = {mode: socket.create_server(("127.0.0.1", 0)) for mode in MODES}
    for mode, one in listening.items():
        threading.Thread(target=listen, args=(one, mode), daemon=True).start()
    print(json.dumps({mode: one.getsockname()[1] for mode, one in listening.items()}), flush=True)
    signal.pause()


@contextmanager
def evil_engines() -> Iterator[dict[str, int]]:
    """Run them; yields their ports by what they do."""
    argv = [sys.executable, "-m", "tests.evil_engine"]
    with subprocess.Popen(argv, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


if __name__ == "__main__":
    main()

"""Engines that mean ill: `python -m tests.evil_engine` prints the port of each, as JSON.

`python3 evil_engine.py SOCKET [PATH=MODE…]` is one engine, as a recipe runs it: well-behaved but for these paths, and
for those of which a prompt has said `TURN PATH=MODE`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
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


GOOD = {"/health": b"{}", "/v1/models": b'{"data":[{"id":"evil"}]}', "/metrics": b"a 1\n"}
"""What one answers who is up to nothing yet; to prompts, that it heard."""
HEARD = b'{"choices":[{"message":{"content":"heard"}}]}'


def received(client: socket.socket) -> bytes:
    """Return a request, head and body; nothing if the caller went away."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += (more := client.recv(65536))
        if not more:
            return b""
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", said)
    whole = said.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
    while len(said) < whole:
        said += (more := client.recv(65536))
        if not more:
            return b""
    return said


def serve(client: socket.socket, mode: str) -> None:
    with client, contextlib.suppress(OSError):
        if received(client):
            for piece in MODES[mode]():
                client.sendall(piece)


def obey(client: socket.socket, turned: dict[str, str]) -> None:
    with client, contextlib.suppress(OSError):
        said = received(client)
        for path, mode in re.findall(rb"TURN ([^ =]+)=(\w+)", said):
            turned[path.decode()] = mode.decode()
        path = said.split()[1].decode() if said else ""
        if path in turned:
            print(f"{path}={turned[path]}", flush=True)
            for piece in MODES[turned[path]]():
                client.sendall(piece)
        elif path:
            client.sendall(next(sized(GOOD.get(path, HEARD), OK + b"Connection: close\r\n")))


def listen(listening: socket.socket, mode: str) -> None:
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0], mode), daemon=True).start()


def main(arguments: list[str]) -> None:
    if arguments:
        path, *others = arguments
        turned = dict(word.split("=") for word in others)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen(64)
            while True:
                threading.Thread(target=obey, args=(listening.accept()[0], turned), daemon=True).start()
    servers = {mode: socket.create_server(("127.0.0.1", 0)) for mode in MODES}
    for mode, one in servers.items():
        threading.Thread(target=listen, args=(one, mode), daemon=True).start()
    print(json.dumps({mode: one.getsockname()[1] for mode, one in servers.items()}), flush=True)
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
    main(sys.argv[1:])

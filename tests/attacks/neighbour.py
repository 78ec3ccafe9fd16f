"""Another user of the same hosts, and what he runs: programs under an unused numeric uid.

They are given to a plain Python on its standard input, so that no file of ours need be readable to him.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading

UID = 54321
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin")

SQUATTER = """
import os, socket, ssl, sys, threading, time
ports, families = [int(p) for p in sys.argv[1].split(",")], sys.argv[2].split(",")
print("ready", flush=True)
def serve(listener, port):
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=meet, args=(peer, port), daemon=True).start()
def meet(peer, port):
    peer.settimeout(5)
    try:
        said = peer.recv(65536)
        # What a client says before it knows whom it talks to; a TLS hello begins with 0x16.
        print("MET", port, "tls" if said[:1] == b"\\x16" else repr(said), flush=True)
        body = b'{"object": "list", "data": [{"id": "dummy"}]}'
        head = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(body)
        peer.sendall(head + body)
    except OSError:
        pass
    peer.close()
taken = set()
while True:
    for port in ports:
        for family in families:
            if (port, family) in taken:
                continue
            listener = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == "6":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind(("::" if family == "6" else "0.0.0.0", port))
                listener.listen(64)
            except OSError:
                listener.close()
                continue
            taken.add((port, family))
            print(f"TOOK {port} {family}", flush=True)
            threading.Thread(target=serve, args=(listener, port), daemon=True).start()
    time.sleep(0.002)
"""
"""`PORT,… FAMILY,…`: take each port the moment that it is free, answer as an engine would, tell what was said."""

IDLER = """
import resource, socket, sys, time
count, port = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
head = b"GET /health HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nX-Slow: " if sys.argv[3] == "slow" else b""
held = []
for _ in range(count):
    peer = socket.socket()
    peer.settimeout(2)
    try:
        peer.connect(("127.0.0.1", port))
        peer.sendall(head)
        held.append(peer)
    except OSError:
        pass
print(f"HELD {len(held)}", flush=True)
while True:
    time.sleep(1)
    for peer in held:
        try:
            peer.sendall(b"a" if head else b"")
        except OSError:
            pass
"""
"""`COUNT PORT idle|slow`: hold so many connections to a port, and say nothing, or a byte of a head a second."""

STRANGER = """
import os, socket, ssl, sys
port, how, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
peer = socket.create_connection(("127.0.0.1", port), timeout=10)
try:
    if how != "plain":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if how == "other":
            with open(os.path.join(sys.argv[4], "client.pem")) as _:
                context.load_cert_chain(os.path.join(sys.argv[4], "client.pem"))
        peer = context.wrap_socket(peer, server_hostname=name)
    peer.sendall(b"GET /v1/models HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    said = peer.recv(65536)
except (OSError, ssl.SSLError) as error:
    said = b""
print(f"ANSWER {said!r}", flush=True)
"""
"""`PORT plain|nobody|other NAME [FOLDER]`: ask a door, without TLS, without a certificate, or with one of another."""

READER = """
import os, sys
for path in sys.argv[1:]:
    try:
        with open(path, "rb") as file:
            print(f"READ {path} {len(file.read())}", flush=True)
    except OSError as error:
        print(f"REFUSED {path}", flush=True)
print("DONE", flush=True)
"""


class Neighbour:
    """A program of his that runs, and the lines that it has said."""

    def __init__(self, program: str, *arguments: str) -> None:
        assert os.getuid() == 0, "the attacks are run as root, who can become another user"
        assert PYTHON is not None, "there is no python3 for the neighbour"
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [PYTHON, "-", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=UID,
            group=UID,
            extra_groups=[],
            cwd="/",
            env={},
        )
        assert self._process.stdin is not None
        self._process.stdin.write(program)
        self._process.stdin.close()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                self.lines.append(line.rstrip("\n"))

    def said(self, beginning: str) -> list[str]:
        """Return the lines that begin so."""
        return [line for line in self.lines if line.startswith(beginning)]

    def wait(self, seconds: float = 60) -> list[str]:
        """Wait for its end; return all that it said."""
        self._process.wait(seconds)
        self._listener.join(seconds)
        return self.lines

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self.wait()

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

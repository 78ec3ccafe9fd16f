"""Stands in for MinIO, Qdrant and Chroma, as their recipes start them: the same arguments, variables and health path.

It goes by the name that it is started under. It keeps what is PUT under a path as a file in its data folder, gives it
back to GET, and asks for the key where the program it stands for would.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PROGRAM, WORDS = Path(sys.argv[0]).name, sys.argv[1:]


def option(name: str) -> str:
    return WORDS[WORDS.index(name) + 1]


if PROGRAM == "minio":
    data, health, address = Path(WORDS[1]), "/minio/health/live", option("--address").rpartition(":")
    host, port = address[0] or "0.0.0.0", int(address[2])
    key = f"{os.environ['MINIO_ROOT_USER']}:{os.environ['MINIO_ROOT_PASSWORD']}"
    assert WORDS[0] == "server"
elif PROGRAM == "qdrant":
    config = Path(option("--config-path")).read_text()
    assert "storage_path: /qdrant/storage\n" in config
    data, health = Path("/qdrant/storage"), "/readyz"
    host, port = os.environ["QDRANT__SERVICE__HOST"], int(os.environ["QDRANT__SERVICE__HTTP_PORT"])
    key = os.environ.get("QDRANT__SERVICE__API_KEY", "")
else:
    assert WORDS[0] == "run"
    data, health = Path(option("--path")), "/api/v2/heartbeat"
    host, port, key = option("--host"), int(option("--port")), ""


class Handler(BaseHTTPRequestHandler):
    def place(self) -> Path | None:
        """Where the asked thing lies; `None` for whoever lacks the key."""
        if key and self.headers.get("api-key") != key:
            self.answer(401)
            return None
        return data / hashlib.sha256(self.path.encode()).hexdigest()

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == health:
            self.answer(200, json.dumps({"program": PROGRAM}).encode())
            return
        place = self.place()
        if place is not None:
            self.answer(200 if place.exists() else 404, place.read_bytes() if place.exists() else b"")

    def do_PUT(self) -> None:
        place = self.place()
        if place is not None:
            with place.open("wb") as file:
                file.write(self.rfile.read(int(self.headers["Content-Length"])))
                file.flush()
                os.fsync(file.fileno())
            self.answer(200)


ThreadingHTTPServer((host, port), Handler).serve_forever()

"""A hub that has one model, as far as the Hugging Face library's `snapshot_download` asks; it counts what it sends."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = "org/tiny"
COMMIT = "a" * 40
SLOWLY = 1.0
"""Seconds that a file takes, so that others ask for it meanwhile."""


class ModelHub:
    """Serves the files of a folder; `url` is what HF_ENDPOINT is to be."""

    def __init__(self, folder: Path) -> None:
        self.sent: Counter[str] = Counter()
        """How often each file was sent."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(has_body=True)

            def do_HEAD(self) -> None:
                self._answer(has_body=False)

            def _answer(self, *, has_body: bool) -> None:
                headers = {}
                if self.path.startswith("/api/models/"):
                    files = [file.name for file in folder.iterdir()]
                    about = {"id": MODEL, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
                    tree = [{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "b" * 40}
                            for file in folder.iterdir()]  # fmt: skip
                    data = json.dumps(tree if "/tree/" in self.path else about).encode()
                else:
                    file = folder / self.path.rpartition("/")[2].partition("?")[0]
                    data = file.read_bytes()
                    headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
                    if has_body:
                        hub.sent[file.name] += 1
                        time.sleep(SLOWLY)
                self.send_response(200)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if has_body:
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[ModelHub]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

"""What the tests of the command line share."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Answer = tuple[int, Any]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def service(**changes: Any) -> dict[str, Any]:
    return {
        "id": "k3x9q2ab",
        "name": "chat",
        "recipe_name": "inference/vllm",
        "status": "running",
        "config": {"nodes": 1},
        "created_at": "2026-01-02T03:04:05+00:00",
        "message": "",
        "conditions": [],
        "replicas": 2,
        "ready_replicas": 1,
    } | changes


class FakeApi:
    """A server that answers what it is told to: for answers that the real API gives rarely, or never."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], deque[Answer]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                fake.asked.append((self.command, self.path, body))
                fake.headers.append(dict(self.headers))
                status, content = fake._next(self.command, self.path)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, *answers: Answer) -> None:
        """Give these answers one after another; the last one again and again."""
        self._answers[method, path] = deque(answers)

    def _next(self, method: str, path: str) -> Answer:
        answers = self._answers.get((method, path))
        if not answers:
            return 404, {"detail": f"no answer for {method} {path}"}
        return answers.popleft() if len(answers) > 1 else answers[0]

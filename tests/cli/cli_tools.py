"""What the tests of the command line share."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

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
                if data.startswith(b"event: "):
                    self.send_header("Content-Type", "text/event-stream")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = do_PATCH = _answer

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


ROOT = Path(__file__).resolve().parents[2]


class LiveApi:
    """The API itself, in a process of its own, over a real database; the controller's part is played by hand."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        (folder / "state").mkdir(parents=True)
        (folder / "run").mkdir()
        self.database = folder / "state" / "ai-factory.db"
        shutil.copy(template, self.database)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; on the port that it had before, if it had one."""
        log = self.folder / f"api-{time.monotonic_ns()}.log"
        given = {"state_dir": self.folder / "state", "run_dir": self.folder / "run", "api.port": self.port}
        words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "api.http", *words],
                cwd=ROOT,
                stderr=output,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            )
        found = until(lambda: re.search(r"listening on \S+ port (\d+)", log.read_text()), self._process)
        self.port = int(found[1])

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            assert self._process.wait(60) == 0
            self._process = None

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.database, timeout=10, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def observe(
        self, service: str, reason: str, *, ready: int = 0, message: str = "", generation: int | None = None
    ) -> None:
        """Say what the controller would say of a service, in this generation or (`None`) the one that it has now."""
        ((newest, replicas),) = self.sql("SELECT generation, replicas FROM services WHERE id = ?", service)
        generation = newest if generation is None else generation
        wanted = 1 if replicas is None else replicas
        facts = {
            "Progressing": ("True", reason, message),
            "Available": ("True" if ready else "False", "Answering", ""),
        }
        conditions = [
            {"type": kind, "status": truth, "reason": why, "message": said, "since": 1.0, "generation": generation}
            for kind, (truth, why, said) in facts.items()
        ]
        self.sql("DELETE FROM service_status WHERE service_id = ?", service)
        self.sql(
            "INSERT INTO service_status (service_id, observed_generation, wanted_replicas, ready_replicas, conditions,"
            " digest, updated_at) VALUES (?, ?, ?, ?, ?, '', 1)",
            *(service, generation, wanted, ready, json.dumps(conditions)),
        )

    def attempt(self, service: str, replica: int = 0, incarnation: int = 1, **columns: Any) -> Path:
        """Add an attempt; return its job folder."""
        ((installation,),) = self.sql("SELECT id FROM installation")
        token = f"af-{installation}-{service}-{replica}-{incarnation}"
        values = {
            "token": token, "service_id": service, "replica": replica, "incarnation": incarnation, "lane": "main",
            "generation": 1, "digest": "", "failures": 0, "intent_at": 1767323045.0, "message": "", **columns,
        }  # fmt: skip
        marks = ", ".join("?" * len(values))
        self.sql(f"INSERT INTO attempts ({', '.join(values)}) VALUES ({marks})", *values.values())
        folder = self.folder / "run" / installation / service / token
        folder.mkdir(parents=True)
        return folder

    def event(self, service: str, reason: str, message: str, **columns: Any) -> None:
        values = {
            "service_id": service, "type": "Normal", "reason": reason, "message": message, "count": 1,
            "first_at": time.time(), "last_at": time.time(), **columns,
        }  # fmt: skip
        marks = ", ".join("?" * len(values))
        self.sql(f"INSERT INTO events ({', '.join(values)}) VALUES ({marks})", *values.values())


Found = TypeVar("Found")


def until(look: Callable[[], Found], process: subprocess.Popen[Any] | None = None, seconds: float = 60.0) -> Found:
    """Look until there is something; return it."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert process is None or process.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.01)
    return found


class Following:
    """A command line in a process of its own, whose output is read while it runs."""

    def __init__(self, *argv: str) -> None:
        self._said: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "api.cli", *argv],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._said.append(line)

    @property
    def text(self) -> str:
        return "".join(self._said)

    def until(self, part: str) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + 30
        while part not in self.text:
            assert self._process.poll() is None or part in self.text, self.text
            assert time.monotonic() < deadline, (part, self.text)
            time.sleep(0.01)

    def end(self, *, asked: bool = True) -> int:
        """Send Ctrl-C, unless it ends by itself; return the exit code."""
        if asked:
            self._process.send_signal(signal.SIGINT)
        code = self._process.wait(60)
        self._reader.join()
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

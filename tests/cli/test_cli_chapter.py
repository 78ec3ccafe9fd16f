"""docs/cli.md: every command in it is run, one after the other, against the API itself, and does what it says."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import ROOT, Following, LiveApi, Ran, Run, until

from api.contract.exits import Exit

CHAPTER = (ROOT / "docs/cli.md").read_text()
ENDLESS = re.compile(r"^ai-factory (watch|services events .* -f|logs .* -f)")
NOT_HERE = re.compile(r"^ai-factory (chat|explain|up|api|controller|backup|restore|adopt|key|gateway|recipes render)")
"""They need the controller or its host, and have tests of their own."""
CODES = {"ai-factory diff -f services.yaml": {1}, "ai-factory doctor --no-job": {0, 1}}


def steps() -> Iterator[tuple[str, str]]:
    """Yield the files and the commands of the chapter in their order: what it is, and its text."""
    pattern = re.compile(r"^```yaml (\S+)\n(.*?)^```|^\$ (ai-factory [^\n]*)$", re.MULTILINE | re.DOTALL)
    for match in re.finditer(pattern, CHAPTER):
        yield (match[1], match[2]) if match[1] else ("", match[3])


class Controller:
    """Plays the controller: whatever is wanted is soon so, and one engine answers for every service."""

    def __init__(self, live: LiveApi, engine: int) -> None:
        self._live = live
        self._engine = engine
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        query = """SELECT s.id, s.generation, s.deletion_requested_at IS NULL AND s.desired_state = 'running'
                   FROM services s LEFT JOIN service_status t ON t.service_id = s.id
                   WHERE s.generation > coalesce(t.observed_generation, 0)"""
        while not self._end.wait(0.05):
            for service, generation, is_wanted in self._live.sql(query):
                ((replicas,),) = self._live.sql("SELECT coalesce(replicas, 1) FROM services WHERE id = ?", service)
                known = {row[0] for row in self._live.sql("SELECT replica FROM attempts WHERE service_id = ?", service)}
                for replica in set(range(replicas)) - known if is_wanted else ():
                    self._launch(service, replica)
                if is_wanted:
                    self._live.observe(service, "AsWanted", ready=replicas, generation=generation)
                else:
                    self._live.observe(service, "Stopped", generation=generation)

    def _launch(self, service: str, replica: int) -> None:
        steps = {"started_at": 1767323045.0, "ready_at": 1767323055.0}
        folder = self._live.attempt(service, replica, job_id=4711 + replica, node="n1", **steps)
        (folder / "stdout.log").write_text("it listens\n")
        self._live.sql(
            "INSERT INTO endpoints (token, service_id, replica, models, host, port, state)"
            " VALUES (?, ?, ?, '[]', '127.0.0.1', ?, 'ready')",
            *(folder.name, service, replica, self._engine),
        )


@contextlib.contextmanager
def engine(live: LiveApi) -> Iterator[int]:
    """Run the recipe's dummy engine, which without a key of its own answers under any; its port."""
    command = [sys.executable, str(ROOT / "recipes/inference/vllm_dummy_engine.py"), "--port", "0"]
    log = live.folder / "engine.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
    try:
        found = until(lambda: re.search(r"Starting vLLM server on http://\S+:(\d+)", log.read_text()), process)
        yield int(found[1])
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def at_home(live: LiveApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the API's own host, an editor, and a folder to work in."""
    (tmp_path / "question.txt").write_text("Hello?\n")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/bash\nsed -i "s/^replicas: .*/replicas: 1/" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name, value in {
        "API_PORT": live.port, "STATE_DIR": live.folder / "state", "RUN_DIR": live.folder / "run",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"AI_FACTORY_{name}", str(value))
    monkeypatch.chdir(tmp_path)


def carried_out(text: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Run a command line of the chapter in this process; < and > as a shell understands them."""
    line, _, written = text.partition(" >")
    line, _, read = line.partition(" <")
    monkeypatch.setattr("sys.stdin", io.StringIO(Path(read).read_text() if read else ""))
    ran = run(*shlex.split(line)[1:])
    if written:
        Path(written).write_text(ran.out)
    return ran


def interrupted(text: str) -> Ran:
    """Run a command line that ends with Ctrl-C alone, which comes once it has said something."""
    follower = Following(*shlex.split(text)[1:])
    until(lambda: follower.text)
    code = follower.end()
    return Ran(code, follower.text, "")


def test_every_command_of_the_chapter(live: LiveApi, run: Run, at_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(list(steps())) > 45
    with engine(live) as port, Controller(live, port):
        for file, text in steps():
            if file:
                Path(file).write_text(text)
            elif not NOT_HERE.match(text):
                is_endless = ENDLESS.match(text) is not None
                ran = interrupted(text) if is_endless else carried_out(text, run, monkeypatch)
                assert ran.code in ({Exit.INTERRUPTED} if is_endless else CODES.get(text, {0})), (text, ran)
                assert ran.out or ran.err, text
                assert "Traceback" not in ran.out + ran.err, text
    assert live.sql("SELECT name FROM services WHERE deletion_requested_at IS NULL ORDER BY name") == [
        ("chat",), ("search",),
    ]  # fmt: skip

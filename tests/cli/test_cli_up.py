"""`ai-factory up` with the real API, a stand-in for the controller, and the command line through them."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cli_tools import Run

from api.contract.exits import Exit
from tests.another_user import UID, server_of_another_user
from tests.ports import free_port

UP = """
import sys
import api.cli.programs.up as programs
from api.cli.main import main
programs.CONTROLLER = ("-c", "import time; time.sleep(600)")
sys.exit(main(sys.argv[1:]))
"""
RECIPE = """\
name: hello
category: simple
description: d
version: 1.0.0
program: [echo]
parameters:
  word: {type: string, default: world}
"""

Up = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    (tmp_path / "recipes" / "simple").mkdir(parents=True)
    (tmp_path / "recipes" / "simple" / "hello.yaml").write_text(RECIPE)
    port = free_port()
    monkeypatch.setenv("AI_FACTORY_API_PORT", str(port))
    monkeypatch.setenv("AI_FACTORY_SLURM_COMMAND_TIMEOUT", "0.5")
    monkeypatch.setenv("AI_FACTORY_RECIPES", str(tmp_path / "recipes"))
    return port


@pytest.fixture
def up(port: int) -> Iterator[Up]:
    started: list[subprocess.Popen[str]] = []

    def up(*argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", UP, "up", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield up
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def banner(process: subprocess.Popen[str]) -> str:
    """Read standard output up to the end of the banner."""
    assert process.stdout is not None
    text, deadline = "", time.monotonic() + 60
    while "Ctrl-C" not in text:
        assert select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))[0], text
        chunk = os.read(process.stdout.fileno(), 65536)
        assert chunk, (text, process.stderr.read() if process.stderr else "")
        text += chunk.decode()
    return text


def test_a_first_day(up: Up, run: Run, port: int, home: Path) -> None:
    process = up()
    text = banner(process)
    for part in (f"http://127.0.0.1:{port}/docs", "state_dir", "run_dir", "ai-factory services create"):
        assert part in text

    assert run("services", "list").code == 0
    created = run("services", "create", "hello", "--name", "hi", "--set", "word=you", "-o", "json")
    assert created.code == 0, created.err
    service = json.loads(created.out)
    assert (service["name"], service["status"], service["config"]["word"]) == ("hi", "pending", "you")
    assert run("services", "list", "-o", "name").out == "hi\n"
    assert run("services", "get", service["id"], "-o", "name").out == "hi\n"
    assert "word: you" in run("services", "describe", "hi").out
    assert run("logs", "hi").code == 0

    taken = run("services", "create", "hello", "--name", "hi")
    assert (taken.code, taken.err.count("\n")) == (1, 1)
    refused = run("services", "create", "hello", "--name", "Not A Name")
    assert (refused.code, "name: " in refused.err) == (1, True)
    assert run("services", "create", "nonsense").code == 5
    assert run("prompt", "hi", "Hello").code == 1
    assert run("logs", "nonsense").code == 5
    assert run("services", "create", "hello", "--wait", "--timeout", "0.5").code == 6

    assert run("services", "delete", "hi").out == "hi is being stopped\n"
    assert run("services", "get", service["id"]).out.splitlines()[1].split()[3] == "deleted"
    assert run("services", "delete", service["id"]).code == 0  # repeatable
    assert run("services", "delete", "nonsense").code == 5
    doctor = json.loads(run("doctor", "--no-job", "-o", "json").out)
    assert {result["name"]: result["state"] for result in doctor}["API"] == "ok"

    began = time.monotonic()
    process.terminate()
    assert process.wait(60) == 0
    assert time.monotonic() - began < 20
    assert run("services", "list").code == 4


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder in which a socket's path is no longer than it may be: pytest's are deep."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_the_command_line_comes_by_the_socket(
    up: Up, run: Run, port: int, home: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_FACTORY_STATE_DIR", str(short))
    key = home / "admin.key"
    key.touch(0o600)
    key.write_text("some-key")
    monkeypatch.setenv("AI_FACTORY_API_REQUIRE_KEY", "true")
    monkeypatch.setenv("AI_FACTORY_API_ADMIN_KEY_FILE", str(key))
    path = short / "api.sock"
    said = banner(up())
    assert f"socket      unix:{path}" in said
    assert f"http://127.0.0.1:{port}/docs" in said
    assert run("services", "list").code == 0
    found = {result["name"]: result for result in json.loads(run("doctor", "--no-job", "-o", "json").out)}
    assert found["API"]["message"] == f"unix:{path} is healthy"
    assert "over TCP all need it" in found["administrator's key"]["message"]
    assert run("services", "list", "--server", f"http://127.0.0.1:{port}").code == 0, "with the key"
    asked = httpx.get(f"http://127.0.0.1:{port}/api/v1/services", trust_env=False)
    assert asked.status_code == 401, "as whatever comes through a relay of this user's"
    monkeypatch.setenv("AI_FACTORY_API_PORT", "1")
    assert run("services", "list").code == 0, "by no port"


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")  # httpcore leaves closing it to the collector
def test_a_socket_that_nobody_listens_on_is_told(run: Run, home: Path) -> None:
    ran = run("services", "list", "--server", f"unix:{home}/none")
    assert (ran.code, f"unix:{home}/none can't be reached" in ran.err) == (4, True)


def test_sigkill_of_up_frees_the_port(up: Up, port: int) -> None:
    process = up()
    banner(process)
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.05)
    pytest.fail("the API outlived the death of its parent")


def test_a_port_that_is_taken_exits_4(run: Run, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        ran = run("up")
    assert (ran.code, ran.err.count("\n")) == (4, 1)
    assert f"{port}" in ran.err
    assert "--port" in ran.err


def test_a_port_of_another_users_server_is_named_as_that(
    run: Run, port: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server_of_another_user() as taken:
        monkeypatch.setenv("AI_FACTORY_API_PORT", str(taken))
        whose = f"ort {taken} is taken by another user's server (uid {UID})"
        ran = run("up")
        assert (ran.code, ran.err.count("\n"), whose in ran.err, "api.port" in ran.err) == (4, 1, True, True)
        asked = run("services", "list")
        assert (asked.code, whose in asked.err, "api.port" in asked.err) == (4, True, True)
        assert "key" not in asked.err
        meant = run("services", "list", "--server", f"http://127.0.0.1:{taken}")
        assert (meant.code, "Who goes. Set api.admin_key_file, or AI_FACTORY_KEY_FILE" in meant.err) == (1, True)


@pytest.mark.parametrize("setting", ["state_dir", "run_dir"])
def test_a_folder_that_cant_be_written_exits_3_and_starts_nothing(
    run: Run, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "folder"
    monkeypatch.setenv(f"AI_FACTORY_{setting.upper()}", str(folder))
    for command in ("up", "controller"):
        ran = run(command)
        assert (ran.code, ran.err.count("\n")) == (3, 1), ran.err
        assert ran.err.startswith(f"ai-factory: {setting} ({folder}) can't be written: Not a directory")


def test_a_folder_that_is_read_only_is_told(run: Run, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FACTORY_RUN_DIR", "/proc/self")
    assert "run_dir (/proc/self) can't be written: " in run("up").err


def test_what_the_banner_says_reaches_the_server(up: Up, run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed in another terminal, where nothing is known of the flags."""
    config = home / "my config.toml"
    config.write_text(f'log_level = "error"\nstate_dir = "{home}/state"\n')
    free = str(free_port())
    monkeypatch.delenv("AI_FACTORY_API_PORT")
    monkeypatch.delenv("AI_FACTORY_RECIPES")
    text = banner(up("--config", str(config), "--port", free))
    exports = dict(shlex.split(line)[1].split("=", 1) for line in text.splitlines() if "export " in line)
    assert exports == {"AI_FACTORY_CONFIG": str(config), "AI_FACTORY_SERVER": f"http://127.0.0.1:{free}"}
    assert run("services", "list").code == Exit.UNREACHABLE
    for name, value in exports.items():
        monkeypatch.setenv(name, value)
    assert run("services", "list").code == 0
    assert f"{home}/state" in run("config").out
    assert "inference/vllm_dummy" in run("complete", "--", "services", "create", "inference/vllm_d").out


def test_the_banner_exports_nothing_where_that_is_not_needed(
    up: Up, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = home / ".config/ai-factory/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"[api]\nport = {os.environ['AI_FACTORY_API_PORT']}\n")
    monkeypatch.delenv("AI_FACTORY_API_PORT")
    assert "    export " not in banner(up())


def test_an_unsafe_set_up_ends_at_once_with_the_apis_own_words(up: Up, run: Run, home: Path) -> None:
    process = up("--host", "0.0.0.0")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert said.splitlines()[-1].startswith("ai-factory: ")
    assert "admin_key_file" in said.splitlines()[-1]


def test_a_schema_of_a_newer_version_exits_3(run: Run, port: int, home: Path) -> None:
    assert run("migrate").code == 0
    database = home / ".local/state/ai-factory/ai-factory.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    ran = run("up")
    assert (ran.code, "newer" in ran.err) == (3, True)


def children(process: subprocess.Popen[str]) -> set[str]:
    return set(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


def test_usr2_replaces_all_once_the_schema_is_that_of_the_program(up: Up, run: Run) -> None:
    process = up()
    banner(process)
    before = children(process)
    assert len(before) == 2
    process.send_signal(signal.SIGUSR2)
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + 120
    while "All programs were replaced" not in said:
        assert select.select([process.stderr], [], [], max(0, deadline - time.monotonic()))[0], said
        said += os.read(process.stderr.fileno(), 65536).decode()
    assert said.count("chema") == 2, said  # at the start, and before the replacing
    assert run("services", "list").code == 0
    while children(process) & before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(children(process)) == 2

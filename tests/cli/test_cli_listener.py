"""Who listens where the API should: another user of the host is told nothing, no key and no prompt."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer

import pytest
from cli_tools import FakeApi, Run

from api.cli.rest import listener
from api.contract.exits import Exit
from tests.attacks.neighbour import UID, Neighbour

LISTENS = r"""
import os, socket, sys
if len(sys.argv) > 1:
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    os.chmod(sys.argv[1], 0o666)
    server.listen()
else:
    server = socket.create_server(("127.0.0.1", 0))
print("AT", sys.argv[1] if len(sys.argv) > 1 else server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    with connection:
        connection.settimeout(10)
        print("HEARD", connection.recv(1000), flush=True)
"""
NOTHING = "HEARD b''"
PATIENCE = 30.0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def place(his: Neighbour) -> str:
    until(lambda: bool(his.said("AT ")))
    return his.said("AT ")[0].partition(" ")[2]


def heard(his: Neighbour, times: int) -> list[str]:
    until(lambda: len(his.said("HEARD ")) >= times)
    return his.said("HEARD ")


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "admin.key"
    path.touch(mode=0o600)
    path.write_text("s3cret\n")
    monkeypatch.setenv("AI_FACTORY_API_ADMIN_KEY_FILE", str(path))
    return "s3cret"


def test_another_user_in_the_apis_place_is_told_nothing(run: Run, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Neighbour(LISTENS) as his:
        port = place(his)
        monkeypatch.setenv("AI_FACTORY_API_PORT", port)
        for words in (["services", "list"], ["prompt", "chat", "a prompt"], ["logs", "chat", "--follow"]):
            ran = run(*words)
            assert (ran.code, f"server (uid {UID})" in ran.err) == (Exit.UNREACHABLE, True), ran
        assert f"server (uid {UID})" in run("doctor", "--no-job").out
        assert heard(his, 4) == [NOTHING] * 4
        assert run("services", "list", "--server", f"http://127.0.0.1:{port}").code == Exit.UNREACHABLE
        assert key in heard(his, 5)[4], "who names an address trusts it"


def test_nor_is_one_at_the_apis_socket(run: Run, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FACTORY_API_REQUIRE_KEY", "true")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.setenv("AI_FACTORY_STATE_DIR", folder)
        with Neighbour(LISTENS, f"{folder}/api.sock") as his:
            assert place(his) == f"{folder}/api.sock"
            ran = run("services", "list")
            assert (ran.code, f"server (uid {UID})" in ran.err) == (Exit.UNREACHABLE, True), ran
            assert heard(his, 1) == [NOTHING]


def test_our_own_api_is_asked(run: Run, api: FakeApi, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FACTORY_API_PORT", api.url.rpartition(":")[2])
    api.answer("GET", "/api/v1/services", (200, []))
    assert run("services", "list").code == 0
    assert api.headers[-1]["Authorization"] == f"Bearer {key}"


def test_who_does_not_accept_is_not_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "ACCEPT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AI_FACTORY_API_PORT", str(silent.getsockname()[1]))
        ran = run("services", "list")
    assert (ran.code, "accepts no connection" in ran.err) == (Exit.UNREACHABLE, True)


def test_an_api_that_is_starting_is_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is taken before it answers."""
    with socket.create_server(("127.0.0.1", 0)) as starting:
        monkeypatch.setenv("AI_FACTORY_API_PORT", str(starting.getsockname()[1]))
        Timer(1.0, serve_once, (starting,)).start()
        ran = run("services", "list", "-o", "json")
    assert (ran.code, ran.out.strip()) == (0, "[]"), ran.err


def serve_once(server: socket.socket) -> None:
    """Answer one request with an empty list."""
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]")

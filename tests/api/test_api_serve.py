"""The program: how it starts, refuses to start, and ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import threading
import time
from pathlib import Path

import httpx
import pytest
import uvicorn
from api_servers import LiveServer, spawn_server, start_server

from api.web.serve import Server


def refused(folder: Path, **flags: str) -> tuple[int, str]:
    process, errors = spawn_server(folder, **flags)
    return process.wait(60), errors.read_text()


def test_without_a_schema(tmp_path: Path) -> None:
    code, text = refused(tmp_path)
    assert code == 3
    assert "Run: ai-factory migrate" in text
    assert "Traceback" not in text


def test_with_the_schema_of_a_newer_version(folder: Path) -> None:
    connection = sqlite3.connect(folder / "state/ai-factory.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    code, text = refused(folder)
    assert code == 3
    assert "newer" in text


def test_port_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, text = refused(folder, api__port=str(other.getsockname()[1]))
    assert code == 4
    assert "Address already in use" in text
    assert "api.port" in text
    assert "Traceback" not in text


def test_address_of_another_host(folder: Path) -> None:
    key = folder / "key"
    key.write_text("some-key")
    key.chmod(0o600)
    code, text = refused(folder, api__host="192.0.2.1", api__admin_key_file=str(key), api__plain_http="true")
    assert (code, "can't listen on 192.0.2.1" in text) == (4, True)


def test_unsafe_address(folder: Path) -> None:
    code, text = refused(folder, api__host="0.0.0.0")
    assert code == 3
    assert "api.admin_key_file" in text


def test_unsafe_key_file(folder: Path) -> None:
    (folder / "key").write_text("some-key")
    (folder / "key").chmod(0o644)
    code, text = refused(folder, api__admin_key_file=str(folder / "key"))
    assert code == 3
    assert "chmod 600" in text


def test_installations_key_open_to_others(folder: Path) -> None:
    (folder / "state/installation.key").write_bytes(b"x" * 32)
    (folder / "state/installation.key").chmod(0o644)
    code, text = refused(folder)
    assert code == 3
    assert "chmod 600" in text


def test_bad_setting(folder: Path) -> None:
    code, text = refused(folder, api__prot="1")
    assert code == 3
    assert "api.prot" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_in_order(folder: Path, number: signal.Signals) -> None:
    server = start_server(folder)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/health").json()["status"] == "healthy"
        began = time.monotonic()
        server.process.send_signal(number)
        assert server.process.wait(60) == 0
        assert time.monotonic() - began < 20
    assert not list((folder / "state").glob("*.db-wal"))


def test_ends_in_time_while_a_prompt_is_in_flight(folder: Path) -> None:
    server = start_server(folder)
    with socket.create_server(("127.0.0.1", 0)) as engine, httpx.Client(base_url=server.url, trust_env=False) as client:
        service = client.post("/api/v1/services", json={"recipe_name": "engine"}).json()["id"]
        connection = sqlite3.connect(folder / "state/ai-factory.db")
        connection.execute(
            "INSERT INTO endpoints (token, service_id, replica, models, host, port, state) VALUES "
            "('af-x-y-0-1', ?, 0, '[]', '127.0.0.1', ?, 'ready')",
            (service, engine.getsockname()[1]),
        )
        connection.commit()
        connection.close()

        def ask() -> None:
            with pytest.raises(httpx.HTTPError):
                client.post(f"/api/v1/vllm/{service}/prompt", json={"prompt": "hi"}, timeout=30).raise_for_status()

        asking = threading.Thread(target=ask)
        asking.start()
        accepted, _ = engine.accept()
        with accepted:
            began = time.monotonic()
            server.process.terminate()
            assert server.process.wait(60) == 0
            assert time.monotonic() - began < 20
        asking.join()


def test_ends_in_time_while_streams_are_listened_to(folder: Path) -> None:
    server = start_server(folder)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        with client.stream("GET", "/api/v1/watch", timeout=30) as watching:
            lines = watching.iter_lines()
            assert next(lines) == ": watching"
            began = time.monotonic()
            server.process.terminate()
            assert "event: created" not in list(lines)
        assert server.process.wait(60) == 0
        assert time.monotonic() - began < 20
    assert "Cancel" not in server.errors.read_text()


def test_every_line_of_the_log_is_json_where_that_is_set(folder: Path) -> None:
    live = start_server(folder, log_format="json")
    answer = httpx.post(f"{live.url}/api/v1/services", json={"recipe_name": "engine"}, trust_env=False)
    lines = [json.loads(line) for line in live.errors.read_text().splitlines()]
    created = next(line for line in lines if answer.json()["id"] in line["message"])
    assert created["request_id"] == answer.headers["x-request-id"]
    assert created["level"] == "info"
    live.process.terminate()
    assert live.process.wait(60) == 0


def test_the_log_is_text_for_people_by_itself_as_the_controllers_is(live: LiveServer) -> None:
    answer = httpx.post(f"{live.url}/api/v1/services", json={"recipe_name": "engine"}, trust_env=False)
    line = next(line for line in live.errors.read_text().splitlines() if answer.json()["id"] in line)
    assert line.endswith(f"created request_id={answer.headers['x-request-id']}")
    assert " INFO    api.http.routes.services service " in line


def test_answers_while_another_program_writes(live: LiveServer) -> None:
    """The controller writes all the time; nobody waits for long."""
    stop = threading.Event()

    def write() -> None:
        connection = sqlite3.connect(live.folder / "state/ai-factory.db", isolation_level=None, timeout=10)
        while not stop.is_set():
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE feed SET seq = seq + 1")
            connection.execute("COMMIT")
            time.sleep(0.001)
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with httpx.Client(base_url=live.url, trust_env=False, timeout=30) as client:
            for _ in range(50):
                assert client.post("/api/v1/services", json={"recipe_name": "engine"}).status_code == 200
    finally:
        stop.set()
        writer.join()


def test_garbage_instead_of_http(live: LiveServer) -> None:
    for garbage in (b"\0\1\2\3\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", live.port), timeout=5) as client:
            client.sendall(garbage)
            answer = client.recv(4096)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505"))
    assert httpx.get(f"{live.url}/health", trust_env=False).status_code == 200


async def test_it_stops_listening_before_it_ends_streams() -> None:
    """Who is cut off comes back at once: five hundred who did so had kept the program from ending for minutes."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    refused = []

    async def end_streams() -> None:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        refused.append(port)

    async def app(scope: object, receive: object, send: object) -> None: ...

    server = Server(uvicorn.Config(app, lifespan="off", log_config=None), end_streams)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.01)
        server.should_exit = True
        await serving
    assert refused == [port]

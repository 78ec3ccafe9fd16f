"""Who may ask: the operator's own connections, and whoever has the administrator's key."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from api_servers import LiveServer, spawn_server, start_server
from api_world import OWN_UID, World, new_app

from api.contract.served_tls import ServedTlsError
from api.contract.settings import ApiSettings
from api.web.auth import UnsafeError, guard_of, is_loopback, read_admin_key
from api.web.keys import Keys

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
NOBODY = 65534


@pytest.fixture
async def keyed(world: World) -> Any:
    """The same API, with an administrator's key."""
    other = World(world.settings, world.database, new_app(world.settings, world.database, key="the-key"))
    async with other.running():
        yield other


async def test_the_operators_own_connection_is_served(world: World) -> None:
    assert (await world.get("/api/v1/services")).status_code == 200


@pytest.mark.parametrize("uid", [OWN_UID + 1, 0, None])
async def test_others_are_not(world: World, uid: int | None) -> None:
    world.uid = uid
    for method, path in (
        ("GET", "/"),
        ("GET", "/api/v1/recipes"),
        ("GET", "/api/v1/recipes/engine"),
        ("POST", "/api/v1/services"),
        ("GET", "/api/v1/services"),
        ("GET", "/api/v1/services/x"),
        ("DELETE", "/api/v1/services/x"),
        ("GET", "/api/v1/services/x/logs"),
        ("GET", "/api/v1/services/x/status"),
        ("GET", "/api/v1/vllm/services"),
        ("GET", "/api/v1/vllm/x/models"),
        ("POST", "/api/v1/vllm/x/prompt"),
        ("OPTIONS", "/api/v1/services"),
    ):
        answer = await world.client.request(method, path, content=b"{")
        assert answer.status_code == 401, path
        assert "api.admin_key_file" in answer.json()["detail"]
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_what_is_open_to_all_says_nothing_of_services(world: World) -> None:
    world.uid = None
    for path in ("/health", "/openapi.json", "/openapi.extended.json", "/docs", "/docs/extended"):
        assert (await world.get(path)).status_code == 200


async def test_the_key_opens_to_anybody(keyed: World) -> None:
    keyed.uid = None
    right = {"Authorization": "Bearer the-key"}
    assert (await keyed.get("/api/v1/services", headers=right)).status_code == 200
    assert (await keyed.get("/health", headers=right)).json()["database"] == "ok"
    for wrong in ("Bearer the-kex", "Bearer ", "Bearer", "the-key", "bearer the-key ", "Basic the-key", "Bearer ключ"):
        answer = await keyed.get("/api/v1/services", headers={"Authorization": wrong.encode()})
        assert answer.status_code == 401
        assert "Authorization: Bearer KEY" in answer.json()["detail"]
        assert "the-key" not in answer.text


async def test_the_operator_needs_no_key(keyed: World) -> None:
    assert (await keyed.get("/api/v1/services")).status_code == 200
    wrong = await keyed.get("/api/v1/services", headers={"Authorization": "Bearer other"})
    assert wrong.status_code == 200


HOSTS = [
    ("127.0.0.1:8001", 200),
    ("127.0.0.1", 200),
    ("127.8.9.1:8001", 200),
    ("[::ffff:127.0.0.1]:8001", 200),
    ("10.1.2.3:80", 403),
    ("0.0.0.0:8001", 403),
    ("[fe80::1]:8001", 403),
    ("[::1]:8001", 200),
    ("localhost:8001", 200),
    ("LOCALHOST", 200),
    ("login1", 200),
    ("evil.example:8001", 403),
    ("localhost.evil.example", 403),
    ("127.0.0.1.evil.example", 403),
    ("", 403),
    ("[", 403),
    ("a@127.0.0.1@evil", 403),
]


@pytest.mark.parametrize(("host", "status"), HOSTS)
async def test_a_page_that_rebinds_its_name_is_refused(world: World, host: str, status: int) -> None:
    assert (await world.get("/api/v1/services", headers={"Host": host})).status_code == status


async def test_the_address_that_is_connected_to_is_a_name_of_this_host(world: World) -> None:
    assert (await world.client.get("http://10.1.2.3:8001/api/v1/services")).status_code == 200
    there = await world.client.get("http://10.1.2.3:8001/api/v1/services", headers={"Host": "10.1.2.4:8001"})
    assert there.status_code == 403


async def test_one_host_is_named_and_no_more(world: World) -> None:
    for second in (b"localhost", b"evil.example"):
        answer = await world.get("/api/v1/services", headers=[(b"Host", b"localhost"), (b"Host", second)])
        assert answer.status_code == 400
        assert "more than one Host" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403), ("", 403)]
)
async def test_what_a_page_of_another_site_has_a_browser_ask_is_refused(
    world: World, keyed: World, site: str, status: int
) -> None:
    """Of a GET that a page makes without reading the answer, browsers send no Origin."""
    assert (await world.get("/api/v1/services", headers={"Sec-Fetch-Site": site})).status_code == status
    told = {"Sec-Fetch-Site": site, "Authorization": "Bearer the-key"}
    assert (await keyed.get("/api/v1/services", headers=told)).status_code == 200


async def test_no_page_of_another_origin_is_given_an_answer(world: World) -> None:
    for path in ("/health", "/docs", "/api/v1/services", "/api/v1/services/none", "/nowhere"):
        headers = (await world.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8001", 200),
        ("https://127.0.0.1:8001", 200),
        ("http://127.0.0.1:9999", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_a_page_of_another_origin_is_refused(world: World, origin: str, status: int) -> None:
    answer = await world.get("/api/v1/services", headers={"Host": "127.0.0.1:8001", "Origin": origin})
    assert answer.status_code == status


async def test_with_the_key_neither_matters(keyed: World) -> None:
    headers = {"Host": "api.site.example", "Origin": "https://ui.site.example", "Authorization": "Bearer the-key"}
    assert (await keyed.get("/api/v1/services", headers=headers)).status_code == 200


@pytest.fixture
async def demanding(world: World) -> Any:
    """The same API, which demands the key over TCP."""
    app = new_app(world.settings, world.database, key="the-key", requires_key=True)
    other = World(world.settings, world.database, app)
    async with other.running():
        yield other


async def test_over_tcp_the_operator_needs_the_key_where_it_is_required(demanding: World) -> None:
    answer = await demanding.get("/api/v1/services")
    assert answer.status_code == 401
    assert "api.require_key" in answer.json()["detail"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert (await demanding.get("/health")).json() == {"status": "healthy"}
    right = {"Authorization": "Bearer the-key"}
    assert (await demanding.get("/api/v1/services", headers=right)).status_code == 200


async def test_on_the_socket_the_operator_needs_no_key(demanding: World) -> None:
    demanding.is_unix = True
    assert (await demanding.get("/api/v1/services", headers={"Host": "localhost"})).status_code == 200
    lured = await demanding.get("/api/v1/services", headers={"Host": "evil.example"})
    assert lured.status_code == 403, "a relay may lead there, and a page to the relay"


@pytest.mark.parametrize("uid", [OWN_UID + 1, 0])
async def test_anothers_connection_to_the_socket(demanding: World, uid: int) -> None:
    demanding.is_unix, demanding.uid = True, uid
    assert (await demanding.get("/api/v1/services")).status_code == 401


# Opening the guard


def key_file(folder: Path, text: str = "some-key\n", mode: int = 0o600) -> Path:
    path = folder / "admin.key"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_loopback_needs_no_key(host: str) -> None:
    guard_of(ApiSettings(host=host), 1, Keys(1))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "no-such-host.invalid"])
def test_any_other_address_needs_one(host: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeError, match=r"set api\.admin_key_file"):
        guard_of(ApiSettings(host=host), 1, Keys(1))
    key = key_file(tmp_path)
    with pytest.raises(ServedTlsError, match=r"set api\.plain_http = true"):
        guard_of(ApiSettings(host=host, admin_key_file=key), 1, Keys(1))
    guard_of(ApiSettings(host=host, admin_key_file=key, plain_http=True), 1, Keys(1))
    guard_of(ApiSettings(host=host, admin_key_file=key, tls_certificate=key, tls_key=key), 1, Keys(1))


def test_is_loopback() -> None:
    assert is_loopback("localhost")
    assert not is_loopback("")


def test_the_key_is_the_files_word(tmp_path: Path) -> None:
    assert read_admin_key(key_file(tmp_path)) == "some-key"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o400])
def test_a_key_file_of_another_mode_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UnsafeError, match="chmod 600"):
        read_admin_key(key_file(tmp_path, mode=mode))


@pytest.mark.parametrize("text", ["", "\n", "  ", "two words", "a\nb", "ключ", "nul\0"])
def test_a_key_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UnsafeError, match="admin_key_file"):
        read_admin_key(key_file(tmp_path, text))


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeError, match="No such file"):
        read_admin_key(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UnsafeError, match="no regular file"):
            read_admin_key(path)


# The program itself


def request(client: socket.socket, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(65_536)
    return int(head.split(b" ")[1]), json.loads(body)


def test_own_connection_to_the_program(live: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", live.port)) as client:
        for _ in range(3):
            assert request(client, "/api/v1/services")[0] == 200


@AS_ROOT
def test_anothers_connection_to_the_program(live: LiveServer) -> None:
    os.seteuid(NOBODY)
    try:
        client = socket.socket()
    finally:
        os.seteuid(0)
    with client:
        client.connect(("127.0.0.1", live.port))
        status, answer = request(client, "/api/v1/services")
        assert status == 401
        assert "own user" in answer["detail"]
        assert request(client, "/health") == (200, {"status": "healthy"})
        forged = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
        assert request(client, "/api/v1/services", **forged)[0] == 401


@AS_ROOT
def test_an_address_that_others_reach_serves_those_with_the_key(template: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    shutil.copy(template, tmp_path / "state/ai-factory.db")
    server = start_server(
        tmp_path, api__host="0.0.0.0", api__admin_key_file=str(key_file(tmp_path)), api__plain_http="true"
    )
    try:
        os.seteuid(NOBODY)
        try:
            client = socket.socket()
        finally:
            os.seteuid(0)
        with client:
            client.connect(("127.0.0.1", server.port))
            assert request(client, "/api/v1/services")[0] == 401
            assert request(client, "/api/v1/services", Authorization="Bearer some-key")[0] == 200
            assert request(client, "/api/v1/services", Authorization="Bearer other-key")[0] == 401
    finally:
        server.process.terminate()
        server.process.wait()


def test_the_program_that_demands_the_key_also_listens_on_a_socket_for_its_user(folder: Path) -> None:
    server = start_server(folder, api__require_key="true", api__admin_key_file=str(key_file(folder)))
    path = folder / "state/api.sock"
    try:
        modes = [stat.S_IMODE(where.stat().st_mode) for where in (path, path.parent)]
        assert modes == [0o600, 0o700]
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            assert request(client, "/api/v1/services")[0] == 401
            assert request(client, "/api/v1/services", Authorization="Bearer some-key")[0] == 200
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            for _ in range(3):
                assert request(client, "/api/v1/services")[0] == 200
        process, errors = spawn_server(
            folder, api__port="0", api__require_key="true", api__admin_key_file=str(folder / "admin.key")
        )
        assert process.wait(60) == 4
        assert f"can't listen on {path}: another program listens there" in errors.read_text()
    finally:
        server.process.terminate()
        assert server.process.wait() == 0
    assert "Traceback" not in server.errors.read_text()

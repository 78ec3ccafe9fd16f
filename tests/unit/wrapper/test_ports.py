from __future__ import annotations

import socket
from pathlib import Path

import pytest

from controller.wrapper import ports
from controller.wrapper.report import FailedError


def test_finds_any_port() -> None:
    port = ports.pick("127.0.0.1", None, ())
    assert 0 < port < 65536
    assert not ports.accepts("127.0.0.1", port)


@pytest.mark.parametrize("listener", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_listener_is_a_conflict_on_whatever_address(listener: str, host: str) -> None:
    with socket.create_server((listener, 0)) as server:
        port = server.getsockname()[1]
        assert ports.accepts(host, port)
        with pytest.raises(FailedError) as failed:
            ports.pick(host, (port, port), ())
    assert failed.value.ending.reason == "NoFreePort"


def test_a_port_that_is_bound_but_not_listening_yet_is_left_alone() -> None:
    with socket.socket() as loading:
        loading.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        loading.bind(("127.0.0.1", 0))
        port = loading.getsockname()[1]
        free = {ports.pick("127.0.0.1", (port, port + 3), ()) for _ in range(20)}
    assert port not in free


def test_a_closed_connection_is_no_conflict() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # this side waits in TIME_WAIT
        client.close()
    assert ports.pick("127.0.0.1", (port, port), ()) == port


def test_stays_in_its_range_and_avoids_what_failed() -> None:
    first = ports.pick("127.0.0.1", None, ())
    low, high = max(first - 5, 1024), min(first + 5, 65535)
    got = {ports.pick("127.0.0.1", (low, high), {first}) for _ in range(20)}
    assert got
    assert first not in got
    assert all(low <= port <= high for port in got)


@pytest.mark.parametrize(
    ("kernels", "ours"),
    [("32768\t60999\n", (10_000, 32_767)), ("10000\t65000\n", None), ("1024\t65535\n", None), ("", None)],
)
def test_engines_keep_off_the_ports_that_the_kernel_gives_to_who_connects(
    kernels: str, ours: tuple[int, int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "EPHEMERAL", tmp_path / "range")
    (tmp_path / "range").write_text(kernels)
    assert ports.lasting() == ours
    if ours is not None:
        with ports.listen(None) as listener:
            assert ours[0] <= listener.getsockname()[1] <= ours[1]


def test_an_address_of_another_host_is_an_error() -> None:
    with pytest.raises(FailedError) as failed:
        ports.pick("192.0.2.1", None, ())
    assert failed.value.ending.reason == "NoFreePort"

"""Listening on a Unix socket."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from api.contract.exits import Exit
from api.contract.job.sockets import LONGEST_PATH
from api.contract.listen import PortError, listen_locally


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api.sock"


def refusal(path: Path) -> str:
    with pytest.raises(PortError) as caught:
        listen_locally(path, who="The API")
    assert caught.value.code is Exit.UNREACHABLE
    return str(caught.value)


def test_it_is_its_owners_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        listening = listen_locally(path, who="The API")
    finally:
        os.umask(before)
    with listening, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client.connect(str(path))


def test_a_dead_servers_socket_is_replaced(path: Path) -> None:
    listen_locally(path, who="The API").close()
    assert path.is_socket()
    with listen_locally(path, who="The API"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_living_servers_socket_and_what_is_none_are_left_alone(path: Path) -> None:
    with listen_locally(path, who="The API") as living:
        assert refusal(path).startswith(f"The API can't listen on {path}: another program listens there")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            living.accept()[0].close()
    path.unlink()
    path.write_text("mine")
    assert "there is something else" in refusal(path)
    assert path.read_text() == "mine"


def test_one_that_is_too_busy_to_accept_is_alive(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as waiting:
        living.bind(str(path))
        living.listen(0)
        waiting.connect(str(path))
        with socket.socket(socket.AF_UNIX) as another:
            another.setblocking(False)
            assert another.connect_ex(str(path)) == errno.EAGAIN
        assert "another program listens there" in refusal(path)


def test_where_it_can_not_be(path: Path) -> None:
    assert "No such file or directory" in refusal(path.parent / "none/api.sock")


def test_the_longest_path_there_may_be(tmp_path: Path) -> None:
    listen_locally(tmp_path / "x".ljust(LONGEST_PATH - len(os.fsencode(tmp_path)) - 1, "x"), who="x").close()
    with pytest.raises(PortError):
        listen_locally(tmp_path / "x".ljust(LONGEST_PATH - len(os.fsencode(tmp_path)), "x"), who="x")

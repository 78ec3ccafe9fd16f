"""Whose socket it is, as the kernel tells it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api.contract.peers import Peer, Peers
from tests.descriptors import STRANGER, none_left

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def peers() -> Iterator[Peers]:
    peers = Peers()
    yield peers
    peers.close()


@contextmanager
def connected(family: socket.AddressFamily, listen: str, connect: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection: the server's and the client's."""
    listening = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.create_server((listen, 0), family=listening) as server, socket.socket(family) as client:
        client.connect((connect, server.getsockname()[1]))
        accepted, _ = server.accept()
        with accepted:
            yield accepted, client


@pytest.mark.parametrize(
    ("family", "listen", "connect"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "127.0.0.1", "::ffff:127.0.0.1"),
    ],
)
def test_own_socket(peers: Peers, family: socket.AddressFamily, listen: str, connect: str) -> None:
    try:
        with connected(family, listen, connect) as (server, client):
            assert peers.of(server).uid == os.geteuid()
            assert peers.of(server).address == client.getsockname()[0].removeprefix("::ffff:")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


def test_a_unix_socket(peers: Peers) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peers.of(ours) == Peer(uid=os.geteuid(), address="", is_unix=True)


@AS_ROOT
def test_anothers_unix_socket(peers: Peers) -> None:
    os.seteuid(STRANGER)
    try:
        ours, theirs = socket.socketpair()
    finally:
        os.seteuid(0)
    with ours, theirs:
        assert peers.of(ours).uid == STRANGER


def test_an_ipv4_client_of_a_socket_for_both(peers: Peers) -> None:
    try:
        server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError) as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server, socket.create_connection(("127.0.0.1", server.getsockname()[1])):
        accepted, _ = server.accept()
        with accepted:
            assert accepted.getpeername()[0] == "::ffff:127.0.0.1"
            assert peers.of(accepted).uid == os.geteuid()


@AS_ROOT
def test_anothers_socket(peers: Peers) -> None:
    os.seteuid(STRANGER)
    try:
        client = socket.socket()
    finally:
        os.seteuid(0)
    with socket.create_server(("127.0.0.1", 0)) as server, client:
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            assert peers.of(accepted).uid == STRANGER


def test_a_socket_that_nobody_holds_any_more_is_nobodys(peers: Peers) -> None:
    """The kernel shows uid 0 for it, whoever's it was."""
    with connected(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (server, client):
        client.close()
        assert peers.of(server).uid is None


def test_an_address_of_another_host_is_nobodys(peers: Peers) -> None:
    assert peers.uid(("192.0.2.1", 5), ("127.0.0.1", 80)) is None
    assert peers.uid(("127.0.0.1", 1), ("127.0.0.1", 2)) is None


def test_what_merely_listens_there_is_not_connected(peers: Peers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert peers.uid(server.getsockname(), ("127.0.0.1", 2)) is None


def test_it_takes_no_descriptor_to_ask(peers: Peers) -> None:
    with connected(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (server, _), none_left():
        assert peers.of(server).uid == os.geteuid()


def test_what_the_kernel_can_not_say_is_no_verdict(peers: Peers) -> None:
    """Not `None`, which would make the operator a stranger."""
    peers.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        peers.uid(("127.0.0.1", 1), ("127.0.0.1", 2))


def test_a_kernel_that_can_not_be_asked_knows_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def refuse(family: int = -1, *rest: int, **options: object) -> socket.socket:
        if family == socket.AF_NETLINK:
            raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")
        return real(family, *rest, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", refuse)
        peers = Peers()
    with connected(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (server, _):
        assert peers.of(server).uid is None
    assert not peers.work()
    peers.close()
    with none_left(), pytest.raises(OSError, match="Too many open files"):
        Peers()


def test_whether_the_kernel_tells_is_tried(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.work()
    monkeypatch.setattr(Peers, "uid", lambda *_: None)
    assert not peers.work()

"""Another user of the host, as whom files are left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

UID = 54321
"""Nobody's."""


LISTENS = """
import socket, sys
listening = socket.create_server((sys.argv[1], 0))
print(listening.getsockname()[1], flush=True)
while True:
    taken = listening.accept()[0]
    taken.recv(65536)
    taken.sendall(b'HTTP/1.1 401 Unauthorized\\r\\nContent-Length: 22\\r\\n\\r\\n{"detail": "Who goes"}')
    taken.close()
"""


@contextmanager
def server_of_another_user(host: str = "127.0.0.1") -> Iterator[int]:
    """Have another user's server listen; its port. It turns everybody away."""
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", LISTENS, host], stdout=subprocess.PIPE, text=True, user=UID, group=UID, cwd="/"
    )
    try:
        assert process.stdout is not None
        with process.stdout:
            yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def give_away(path: Path, *, follow_symlinks: bool = True) -> None:
    """Have a file or folder belong to another user."""
    if os.geteuid() != 0:
        pytest.fail("only root can give a file to another user: run the tests as root")
    os.chown(path, UID, -1, follow_symlinks=follow_symlinks)

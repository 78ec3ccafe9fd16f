"""A private PostgreSQL server from the distribution's packages, for the tests of one run."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.memory import in_memory

INSTALLED = Path("/usr/lib/postgresql")
START_SECONDS = 30.0


class NoServerError(Exception):
    """PostgreSQL is not installed; the message says how to install it."""


def binaries() -> Path:
    """Return the folder of the newest server's programs; raises `NoServerError`."""
    found = [path.parent for path in INSTALLED.glob("*/bin/initdb")]
    if not found:
        raise NoServerError(f"no PostgreSQL server in {INSTALLED}/*/bin: install the package postgresql")
    return max(found, key=lambda path: tuple(int(part) for part in path.parent.name.split(".") if part.isdigit()))


class PostgresServer:
    """One server in a private folder, reached by its Unix socket there and nothing else."""

    def __init__(self) -> None:
        self._bin = binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="ai-factory-postgres-", dir=in_memory()))
        self._data = self.folder / "data"
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root.
        self._user = _unprivileged() if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        options = ("--pgdata", self._data, "--username=owner", "--auth=trust", "--encoding=UTF8", "--locale=C", "-N")
        subprocess.run([*self._as_user(), self._bin / "initdb", *options], check=True, timeout=60, capture_output=True)

    def url(self, database: str) -> str:
        """Return the URL of a database of this server, as a user would write it."""
        return f"postgresql://owner@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start the server and wait until it answers. For the main thread: it ends with the thread that started it."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "autovacuum": "off",
            "max_connections": 100,
            "shared_buffers": "16MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user(), self._bin / "postgres", "-D", self._data, *options], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([self._bin / "pg_isready", "-q", "-h", self.folder], check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the PostgreSQL server did not start:\n{self._log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End all sessions and stop the server."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
        self._process = None

    def remove(self) -> None:
        """Stop the server and remove all that it left."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def psql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement in a psql of its own and return what it prints; raises `CalledProcessError`."""
        options = ("--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
        where = (f"--host={self.folder}", "--username=owner", f"--dbname={database}")
        return self._output("psql", *options, *where, f"--command={statement}")

    def schema(self, database: str) -> str:
        """Return the whole schema as SQL."""
        where = (f"--host={self.folder}", "--username=owner", f"--dbname={database}")
        return self._output("pg_dump", "--schema-only", *where)

    def _output(self, program: str, *arguments: str) -> str:
        command = [str(self._bin / program), *arguments]
        return subprocess.run(command, check=True, timeout=30, capture_output=True, text=True).stdout

    def _as_user(self) -> list[str]:
        """Return what to put before a command: another user for root, and an end when the tests are killed."""
        who = [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"] if self._user else []
        return ["setpriv", *who, "--pdeathsig=INT"]


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")

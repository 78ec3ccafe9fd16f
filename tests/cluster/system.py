"""The whole system on a real Slurm, as users run it: API and controller as processes, REST, SQL, Slurm's commands."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

from api.contract.doorless import secret_of
from api.contract.doors import Doors
from api.contract.identity import load_keys
from api.contract.keyring import Keyring
from tests.ports import free_port
from tests.slurm_cluster import SlurmCluster

Value = TypeVar("Value")
ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
"""Seconds that anything may take on a busy machine."""

PROGRAMS = {
    "api": ("api.http",),
    "controller": ("controller", "run"),
    "up": ("api.cli", "up"),
    "gateway": ("api.cli", "gateway"),
}
"""Module and words of each."""

SETTINGS = """
state_dir = "{folder}/state"
run_dir = "{folder}/run"
recipes = ["{folder}/recipes", "{root}/recipes"]
log_level = "debug"
[api]
port = {port}
[slurm]
conf = "{conf}"
command_timeout = 12
log_megabytes = 1
[apptainer]
command = "{apptainer}"
[controller]
lease = 4
fastest_reading = 1
slowest_reading = 4
absence_grace = 4
accounting_grace = 20
backoff_first = 0.3
backoff_most = 5
quick_end = 5
"""


class System:
    """One installation in a folder of its own."""

    def __init__(self, folder: Path, cluster: SlurmCluster, apptainer: str, more: str = "") -> None:
        self.folder = folder
        self.root = ROOT
        self.release: Path | None = None
        """Where the programs of another release lie, which are to be run; `None`: this one's."""
        self.cluster = cluster
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "config.toml"
        text = SETTINGS.format(folder=folder, root=ROOT, port=self.port, conf=cluster.conf, apptainer=apptainer)
        (folder / "recipes").mkdir()
        self.config.write_text(text + more)
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    # --- programs

    def configure(self, old: str, new: str) -> None:
        """Change the configuration file; programs heed it from their next start on."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new, 1))

    def start(self, *programs: str, under: Sequence[str] = (), **settings: str) -> None:
        """Start programs, by their names in `PROGRAMS`, or API and controller; `controller-2` is a second one.

        `under` is put before the command; `settings` are of the controller, and go by the environment.
        """
        environment = self._environment() | {
            f"AI_FACTORY_CONTROLLER_{key.upper()}": value for key, value in settings.items()
        }
        for name in programs or ("api", "controller"):
            module, *words = PROGRAMS[name.split("-")[0]]
            command = [*under, sys.executable, "-m", module, "--config", str(self.config), *words]
            with (self.folder / f"{name}.log").open("ab") as log:
                self._programs[name] = subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=self.folder, env=environment
                )
        for name in {"api", "up"} & set(programs or ("api",)):
            wait_for(lambda name=name: self._answers(name), "the API answers", story=lambda name=name: self._log(name))

    def migrate(self, revision: str = "head") -> None:
        """Make the database, or bring it to a schema."""
        command = [sys.executable, "-m", "api.cli", "--config", str(self.config), "migrate", "--revision", revision]
        subprocess.run(command, check=True, timeout=60, capture_output=True, cwd=self.folder, env=self._environment())

    def _environment(self) -> dict[str, str]:
        return os.environ | ({"PYTHONPATH": str(self.release)} if self.release is not None else {})

    def kill(self, name: str, number: int = signal.SIGKILL) -> float:
        """Send a signal to a program and wait for its end; return how long that took, seconds."""
        began = time.monotonic()
        program = self._programs.pop(name)
        program.send_signal(number)
        program.send_signal(signal.SIGCONT)  # a stopped one would never see it
        program.wait(timeout=PATIENCE)
        return time.monotonic() - began

    def pid(self, name: str) -> int:
        """Return the process id of a program."""
        return self._programs[name].pid

    def has(self, name: str, pid: int) -> bool:
        """Whether a program runs as that process."""
        return name in self._programs and self._programs[name].pid == pid

    def wait_killed(self, name: str, patience: float = PATIENCE) -> None:
        """Wait until a program has died by SIGKILL."""
        code = self._programs[name].wait(timeout=patience)
        assert code == -signal.SIGKILL, f"{name} ended with {code}"
        del self._programs[name]

    def exit_code(self, name: str) -> int | None:
        """Return how a program ended; `None` while it runs."""
        return self._programs[name].poll()

    def forget(self, name: str) -> None:
        """Think no more of a program that has ended."""
        del self._programs[name]

    def send(self, name: str, number: int) -> None:
        """Send a signal to a program."""
        self._programs[name].send_signal(number)

    def close(self) -> None:
        """End the programs, and cancel what tests left on the cluster."""
        for name in list(self._programs):
            self.kill(name, signal.SIGTERM)
        self.client.close()
        ids = [str(job["id"]) for job in self.jobs()]
        if ids:
            self.slurm("scancel", *ids)
            wait_for(lambda: not self.jobs(), "the cluster is clear")

    # --- REST

    def create(self, recipe: str = "inference/vllm_dummy", name: str | None = None, **config: Any) -> str:
        """Create a service; return its id."""
        body = {"recipe_name": recipe, "config": config} | ({"name": name} if name else {})
        answer = self.client.post("/api/v1/services", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def known_replicas(self, name: str) -> int:
        """Return how many replicas the gateway sends requests for a model to."""
        return int(self.client.get(f"/v1/models/{name}").json().get("ready_replicas", 0))

    def service(self, key: str) -> dict[str, Any]:
        """Return a service as REST shows it."""
        answer = self.client.get(f"/api/v1/services/{key}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def status(self, key: str) -> str:
        """Return a service's status word."""
        return str(self.service(key)["status"])

    def wait_status(self, key: str, word: str, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait until a service has a status; return it as it is then."""
        wait_for(lambda: self.status(key) == word, f"{key} is {word}", patience, lambda: self.story(key))
        return self.service(key)

    def prompt(self, key: str, text: str) -> dict[str, Any]:
        """Send a prompt."""
        answer = self.client.post(f"/api/v1/vllm/{key}/prompt", json={"prompt": text}, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def delete(self, key: str) -> None:
        """Delete a service, and wait until nothing of it is left."""
        answer = self.client.delete(f"/api/v1/services/{key}")
        assert answer.status_code == 200, answer.text
        self.wait_gone(key)

    def wait_gone(self, key: str) -> None:
        """Wait until no attempt of a service is left on the cluster."""
        query = "SELECT count(*) FROM attempts WHERE service_id = ? AND gone_at IS NULL"
        wait_for(lambda: self.sql(query, key)[0][0] == 0, f"{key} is gone", PATIENCE, lambda: self.story(key))

    # --- SQL

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run one SQL statement, as a script would."""
        with closing(sqlite3.connect(self.folder / "state" / "ai-factory.db", timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute(statement, values).fetchall()
            connection.commit()
        return rows

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """Return all attempts of a service, oldest first."""
        rows = self.sql("SELECT * FROM attempts WHERE service_id = ? ORDER BY replica, incarnation", key)
        return [dict(row) for row in rows]

    def open_attempt(self, key: str, replica: int = 0) -> dict[str, Any]:
        """Return the open attempt of a replica."""
        (attempt,) = [a for a in self.attempts(key) if a["replica"] == replica and a["closed_at"] is None]
        return attempt

    def job_folder(self, token: str) -> Path:
        """Return the folder of an attempt."""
        _, installation, service, *_ = token.split("-")
        return self.folder / "run" / installation / service / token

    def ask(self, key: str, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask the engine of a service itself: through its door, as a gateway would, or where it listens."""
        attempt = self.open_attempt(key)
        keyring = Keyring(self.folder / "state" / "installation.key")
        keyring.load()
        way = Doors(keyring, "gateway").way(attempt["host"], attempt["port"], attempt["token"], attempt["door"])
        extensions = {"sni_hostname": way.name} if way.name is not None else {}
        with httpx.Client(verify=way.http or True, trust_env=False, timeout=30) as client:
            return client.request(method, way.base_url + path, extensions=extensions, **more)

    def secret_of(self, token: str) -> str:
        """Return the secret of an attempt."""
        return secret_of(load_keys(self.folder / "state" / "installation.key"), token)

    # --- Slurm

    def slurm(self, *command: str) -> str:
        """Run a Slurm command against the tests' cluster."""
        return self.cluster.run(*command)

    def jobs(self, *states: str) -> list[dict[str, Any]]:
        """Return this installation's jobs that are not over."""
        installation = self.sql("SELECT id FROM installation")[0][0]
        chosen = ",".join(states or ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING"))
        lines = self.slurm("squeue", "-h", "-t", chosen, "-o", "%i|%j|%T|%B").splitlines()
        rows = [dict(zip(("id", "name", "state", "node"), line.split("|"), strict=True)) for line in lines]
        return [r | {"id": int(r["id"])} for r in rows if r["name"].startswith(f"af-{installation}-")]

    def running_of(self, key: str) -> list[int]:
        """Return the ids of a service's running jobs."""
        return [job["id"] for job in self.jobs("RUNNING") if f"-{key}-" in job["name"]]

    def story(self, key: str) -> str:
        """Tell all there is to know of a service, for a failing test."""
        events = self.sql("SELECT reason, message, count FROM events WHERE service_id = ? ORDER BY id", key)
        log = self._log("up" if "up" in self._programs else "controller")
        told = [json.dumps(self.service(key)), *(str(dict(e)) for e in events), *map(str, self.attempts(key)), log]
        return "\n".join(told)

    def _answers(self, name: str) -> bool:
        code = self._programs[name].poll()
        assert code is None, f"{name} ended with {code}\n{self._log(name)}"
        return self.client.get("/health").status_code == 200

    def _log(self, name: str) -> str:
        """Return the end of what a program has written."""
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-40:])


def wait_for(
    condition: Callable[[], Value], what: str, patience: float = PATIENCE, story: Callable[[], str] = lambda: ""
) -> Value:
    """Poll until a condition holds; fail with the story when patience ends."""
    deadline = time.monotonic() + patience
    while True:
        try:
            value = condition()
        except (httpx.TransportError, sqlite3.OperationalError, subprocess.CalledProcessError):
            value = None  # type: ignore[assignment]
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}\n{story()}"
        time.sleep(0.1)


def command_lines() -> list[str]:
    """Return the command lines of all processes of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # ended meanwhile
            found.append(path.read_bytes().decode(errors="replace"))
    return found


@contextmanager
def running(system: System) -> Iterator[System]:
    """Migrate, start everything, and close it all at the end."""
    system.migrate()
    system.start()
    try:
        yield system
    finally:
        system.close()

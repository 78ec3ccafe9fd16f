"""500 clients that follow logs and watch services, while the API is restarted and killed: nothing lost, memory flat."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from api.contract.identity import new_id
from api.contract.job.token import Token
from bench.figures import Table, cpu_seconds, load, median, ms, percentile
from bench.installation import Installation
from tests.cluster.system import ROOT
from tests.slurm_cluster import SlurmCluster

MINUTE = 60.0
BEAT = 0.5
"""Seconds from one line of each stdout to the next."""
ERRORS_EVERY = 4
"""So many beats lie between two lines of each stderr."""
PADDING = "x" * 80
STREAMS = ("stdout", "stderr")
MOST_GROWTH = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How much, for how long, and what happens when (shares of the time)."""

    services: int = 50
    followers: int = 250
    watchers: int = 250
    seconds: float = 600.0
    events: Sequence[tuple[float, str]] = (
        (0.05, "SIGTERM"),
        (0.1, "SIGKILL, rotated"),
        (0.5, "rotated"),
        (0.92, "SIGTERM, rotated"),
    )
    """Signals are sent to the API, which is started again then; files are rotated while it is away. Memory is looked at
    in the long calm between.
    """


@dataclass(slots=True)
class Minute:
    """What was measured at the end of one."""

    megabytes: float
    cpu: float
    written: int
    happened: list[str]


@dataclass(slots=True)
class Found:
    """What came of it."""

    written: int = 0
    to_be_received: int = 0
    changes: int = 0
    minutes: list[Minute] = field(default_factory=list)
    clients: dict[str, Any] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)


def measure(folder: Path) -> Table:
    """Return the table; it takes MINUTES (10)."""
    trial = Trial(seconds=float(os.environ.get("MINUTES") or 10) * MINUTE)
    return _table(trial, run(folder / "streams", trial))


def run(folder: Path, trial: Trial) -> Found:
    """Write, follow, restart and rotate for the time of the trial."""
    installation = Installation(folder, SlurmCluster(folder))
    writer = Writer(installation, trial.services)
    try:
        installation.start("api")
        with _clients() as clients:
            ids = list(writer.folders)
            follow = [ids[number % len(ids)] for number in range(trial.followers)]
            _tell(clients, port=installation.port, follow=follow, watchers=trial.watchers)
            _answer(clients)
            found = Found(loads=[load()])
            with writer.writing():
                _live(installation, trial, writer, found)
            services = installation.client.get("/api/v1/services").json()
            _tell(clients, written=writer.lines, services={each["id"]: each for each in services})
            found.clients = _answer(clients)
        found.written = writer.total()
        found.to_be_received = sum(sum(writer.lines[service].values()) for service in follow)
        found.changes = writer.changes
        found.loads.append(load())
        return found
    finally:
        installation.end()


class Writer:
    """The part of the jobs and of the controller: log lines, and changes of what is seen of the services."""

    def __init__(self, installation: Installation, services: int) -> None:
        self._installation = installation
        self._over = Event()
        self._rotate, self._rotated = Event(), Event()
        self.folders: dict[str, Path] = {}
        self.lines: dict[str, dict[str, int]] = {}
        """How many were written, by service and file."""
        self.changes = 0
        self._error: Exception | None = None
        own = installation.sql("SELECT id FROM installation")[0][0]
        with self._database() as database:
            for service in (new_id() for _ in range(services)):
                token = str(Token(own, service, 0, 1))
                database.execute("INSERT INTO services (id, recipe_name) VALUES (?, 'simple/hello')", (service,))
                database.execute(
                    "INSERT INTO service_status (service_id, observed_generation, wanted_replicas, ready_replicas,"
                    " conditions, digest, updated_at) VALUES (?, 1, 1, 0, '[]', '', 0)",
                    (service,),
                )
                database.execute(
                    "INSERT INTO attempts (token, service_id, replica, lane, incarnation, generation, digest,"
                    " failures, intent_at, message) VALUES (?, ?, 0, 'main', 1, 1, '', 0, ?, '')",
                    (token, service, time.time()),
                )
                folder = installation.settings.run_dir / own / service / token
                folder.mkdir(parents=True)
                self.folders[service], self.lines[service] = folder, dict.fromkeys(STREAMS, 0)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write meanwhile, in a thread."""
        thread = Thread(target=self._write)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
        if self._error is not None:
            raise self._error

    def rotate(self) -> None:
        """Rotate all files, half of them renamed, half copied and truncated; return when it is done."""
        self._rotated.clear()
        self._rotate.set()
        self._rotated.wait()

    def total(self) -> int:
        """Return how many lines were written."""
        return sum(sum(lines.values()) for lines in self.lines.values())

    def _write(self) -> None:
        try:
            beat = 0
            while not self._over.wait(BEAT):
                if self._rotate.is_set():
                    self._rotate.clear()
                    self._rotate_all()
                    self._rotated.set()
                for service in self.folders:
                    for stream in STREAMS if beat % ERRORS_EVERY == 0 else STREAMS[:1]:
                        self._add_line(service, stream)
                self._change(list(self.folders)[beat % len(self.folders)])
                beat += 1
        except Exception as error:
            self._error = error
            self._rotated.set()

    def _add_line(self, service: str, stream: str) -> None:
        number = self.lines[service][stream]
        with (self.folders[service] / f"{stream}.log").open("a") as file:
            file.write(f"{number} {time.monotonic():.6f} {PADDING}\n")
        self.lines[service][stream] = number + 1

    def _rotate_all(self) -> None:
        for number, folder in enumerate(self.folders.values()):
            for stream in STREAMS:
                file, before = folder / f"{stream}.log", folder / f"{stream}.log.1"
                if not file.exists() or file.stat().st_size == 0:
                    continue
                if number % 2 == 0:
                    file.rename(before)
                else:
                    before.write_bytes(file.read_bytes())
                    os.truncate(file, 0)

    def _change(self, service: str) -> None:
        """Change what is seen of a service; each fourth time, what is wanted of it too."""
        self.changes += 1
        with self._database() as database:
            values = (self.changes % 1000, service)
            database.execute("UPDATE service_status SET ready_replicas = ? WHERE service_id = ?", values)
            if self.changes % 4 == 0:
                database.execute("UPDATE services SET replicas = ? WHERE id = ?", (1 + self.changes % 9, service))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        path = self._installation.folder / "state" / "ai-factory.db"
        with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            yield connection


def _live(installation: Installation, trial: Trial, writer: Writer, found: Found) -> None:
    """Do what happens at its time, and measure at the end of each minute."""
    began = time.monotonic()
    due = [(share * trial.seconds, what) for share, what in trial.events]
    due += [(end * MINUTE, "") for end in range(1, int(trial.seconds / MINUTE) + 1)]
    meter, written, happened = _Meter(), 0, list[str]()
    for moment, what in sorted(due):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        pid = installation.pid("api")
        if what == "":
            total = writer.total()
            found.minutes.append(Minute(_megabytes(pid), meter.since(pid), total - written, happened))
            written, happened = total, []
            continue
        names = [number for number in signal.Signals if number.name in what]
        for number in names:
            meter.ends(pid)
            installation.kill("api", number)
        if "rotated" in what:
            writer.rotate()
        if names:
            installation.start("api")
        happened.append(what)
    time.sleep(max(0.0, began + trial.seconds - time.monotonic()))


class _Meter:
    """The processor time of a program over its restarts."""

    def __init__(self) -> None:
        self._pid = 0
        self._at = self._spent = 0.0

    def ends(self, pid: int) -> None:
        """Keep what a process has spent that is about to end."""
        now = cpu_seconds(pid)
        self._spent += now - (self._at if pid == self._pid else 0.0)
        self._pid, self._at = pid, now

    def since(self, pid: int) -> float:
        """Return the seconds spent since it was asked last."""
        self.ends(pid)
        spent, self._spent = self._spent, 0.0
        return spent


def _megabytes(pid: int) -> float:
    """Return the resident memory of a process (proc(5), statm)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _table(trial: Trial, found: Found) -> Table:
    clients = trial.followers + trial.watchers
    title = f"Streams: {trial.followers} followers of logs and {trial.watchers} watches"
    table = Table(title, ("minute", "API's memory, MB", "its CPU s", "lines written", "what happened"))
    for number, minute in enumerate(found.minutes, 1):
        happened = ", ".join(minute.happened) or "–"
        table.add(str(number), f"{minute.megabytes:.1f}", f"{minute.cpu:.1f}", f"{minute.written:,}", happened)
    told = found.clients
    for what, name in (
        ("lines lost", "lost"),
        ("lines doubled or out of order", "doubled"),
        ("lines torn", "torn"),
        ("watches that do not know the newest state of all", "behind"),
        ("changes whose number did not grow", "out_of_order"),
        ("clients that broke down", "broken"),
    ):
        figure = told[name]
        table.goal(what, len(figure) if isinstance(figure, list) else figure, 1, "")
    if growth := _growth(found.minutes):
        table.goal("memory, the last calm minute over the second one", growth, MOST_GROWTH, "times")
    delays = told["delays"]
    table.notes += [
        f"{found.written:,} lines were written in {trial.services * 2} files; of {found.to_be_received:,} to be "
        f"received {told['lines']:,} were. {found.changes:,} changes, told {told['changes']:,} times.",
        f"{clients} clients came back {told['reconnects']:,} times (and were refused {told['refused']} times); who "
        "is cut off tries again each 0.2 s, with its Last-Event-ID.",
        f"From write to arrival of a line: median {ms(median(delays))} ms, p99 {ms(percentile(delays, 0.99))} ms, at "
        f"most {ms(max(delays, default=0.0))} ms; of {len(delays):,} lines written while their reader was connected.",
        f"Load of the machine when the clients were connected and at the end: {' / '.join(found.loads)}.",
        "Rotated: half of all files renamed, half copied to another and truncated. Memory is compared between two "
        "restarts.",
    ]
    return table


def _growth(minutes: Sequence[Minute]) -> float | None:
    """Return how much memory grew in the longest calm, from its second minute to its last; `None` if too short."""
    calms: list[list[float]] = [[]]
    for minute in minutes:
        if "SIG" in "".join(minute.happened):
            calms.append([])
        calms[-1].append(minute.megabytes)
    longest = max(calms, key=len)
    return longest[-1] / longest[1] if len(longest) > 2 else None


@contextmanager
def _clients() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.streams_clients"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.terminate()


def _tell(process: subprocess.Popen[str], **words: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(words) + "\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    answer: Mapping[str, Any] = json.loads(process.stdout.readline())
    return dict(answer)

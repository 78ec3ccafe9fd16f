"""`make chaos`: kill the controller again and again under load while all around it breaks, and count what came of it.

The seed says what is drawn; when it happens is the machine's. At the end all is mended, and then each wanted replica
must run once (else it is lost), nothing else may run (leaks), and at no time may two engines of a replica, two jobs of
a token or two submissions of one have been seen (doubles).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx

from controller.failpoints import POINTS
from tests.cluster.engines import RECIPE, Journal
from tests.cluster.faults import Commands, Faults, small_run_dir
from tests.cluster.matching import differences
from tests.cluster.system import System
from tests.modes import bound_by_modes
from tests.slurm_cluster import TOOLS, ClusterError, SlurmCluster

LEAST_SERVICES, MOST_SERVICES = 5, 10
MOST_REPLICAS = 3
SETTLING = 180.0
RARE = ("release the lease", "revoke", "scancel a stray")
LIKELY = tuple(point for point in POINTS if not point.endswith(RARE))


@dataclass
class Findings:
    """What was done, and what came of it."""

    seed: int
    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    work: Counter[str] = field(default_factory=Counter)
    doubles: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was doubled, leaked or lost."""
        return not (self.doubles or self.leaks or self.lost)

    def table(self) -> str:
        """Return it all as text."""
        lines = [f"seed {self.seed}, {self.seconds:.0f} s"]
        for title in ("kills", "faults", "changes"):
            counts: Counter[str] = getattr(self, title)
            lines += [f"{title:<34}{counts.total():>6}", *(f"  {k:<32}{n:>6}" for k, n in sorted(counts.items()))]
        lines += [f"{what:<34}{count:>6}" for what, count in self.work.items()]
        for title in ("doubles", "leaks", "lost"):
            found: list[str] = getattr(self, title)
            lines += [f"{title:<34}{len(found):>6}", *(f"  {each}" for each in found)]
        return "\n".join(lines)


class Chaos:
    """One run. Four threads: the killer, the load, the faults and the watch."""

    def __init__(self, system: System, seed: int, haste: float) -> None:
        self.system = system
        self._haste = haste
        self.findings = Findings(seed)
        self.journal = Journal(system)
        self.commands = Commands(system)
        self._over = threading.Event()
        self._controller = threading.Lock()
        self._draw = {name: random.Random(f"{seed} {name}") for name in ("kills", "load", "faults")}
        self._acknowledged: dict[str, int] = {}
        self._doubtful: set[str] = set()

    def run(self, kills: int, seconds: float) -> Findings:
        """Break things until the controller was killed that often, or the time is up; then mend all, and judge."""
        began = time.monotonic()
        self.system.migrate()
        self.system.start("api", under=bound_by_modes())
        self._start()
        with ThreadPoolExecutor() as pool:
            tasks = [pool.submit(self._until_over, each) for each in (self._load, self._fault, self._watch)]
            try:
                while self.findings.kills.total() < kills and time.monotonic() < began + seconds:
                    if any(task.done() for task in tasks):
                        break
                    self._kill_later()
            finally:
                self._over.set()
            for task in tasks:
                task.result()
        self._settle()
        self.findings.seconds = time.monotonic() - began
        return self.findings

    def _until_over(self, work: Callable[[], None]) -> None:
        while not self._over.is_set():
            work()

    # --- the controller's deaths

    def _start(self, failpoint: str = "") -> None:
        self.system.start("controller", under=bound_by_modes(), failpoint=failpoint)

    def _kill_later(self) -> None:
        """Let the controller live for a while, then kill it, unless it died before at a failpoint; start it again."""
        drawn = self._draw["kills"]
        until = time.monotonic() + drawn.expovariate(1 / 2.0) + 0.2
        while time.monotonic() < until and self._is_running():
            time.sleep(0.05)
        with self._controller:
            self._kill("at any moment")
            time.sleep(drawn.choice((0, 0, 0, 0.5, 2)))
            point = f"{drawn.choice(LIKELY)} {drawn.choice((1, 1, 2, 3))}" if drawn.random() < 0.4 else ""
            self._start(point)

    def _is_running(self) -> bool:
        with self._controller:
            return self.system.exit_code("controller") is None

    def _kill(self, how: str) -> None:
        code = self.system.exit_code("controller")
        if code is None:
            self.system.kill("controller")
        else:
            self.system.forget("controller")
            how = "at a failpoint" if code == -signal.SIGKILL else ""
        if how:
            self.findings.kills[how] += 1
        else:  # the database could not be opened: it said so and ended, as a supervisor expects
            self.findings.changes[f"controller ended by itself with {code}"] += 1

    def _kill_now(self) -> None:
        with self._controller:
            self._kill("while the database is read-only")
            self._start()

    # --- the load

    def _load(self) -> None:
        drawn = self._draw["load"]
        alive = [key for key, replicas in self._acknowledged.items() if replicas >= 0]
        moves = [self._change, self._scale, self._stop_or_start, self._delete]
        move = self._create if len(alive) < LEAST_SERVICES else drawn.choice([self._create, *moves])
        if move == self._create and len(alive) >= MOST_SERVICES:
            move = self._delete
        key = drawn.choice(alive) if alive else ""
        try:
            move(key)
        except (httpx.HTTPError, sqlite3.Error, RefusedError):
            self.findings.changes["refused or unanswered"] += 1
            self._doubtful.add(key)
        self._over.wait(drawn.uniform(0.1, 2.0))

    def _create(self, _: str) -> None:
        drawn = self._draw["load"]
        replicas = drawn.randint(1, MOST_REPLICAS)
        config = {"startup_delay": drawn.choice((0, 0, 1)), "replicas": replicas}
        body = {"recipe_name": RECIPE, "config": config}
        answer = self.system.client.post("/api/v1/services", json=body)
        _check(answer)
        self._acknowledged[str(answer.json()["id"])] = replicas
        self.findings.changes["created"] += 1

    def _change(self, key: str) -> None:
        model = f"model-{self._draw['load'].randint(1, 99)}"
        self.system.sql("UPDATE services SET config = json_set(config, '$.model', ?) WHERE id = ?", model, key)
        self.findings.changes["changed"] += 1

    def _scale(self, key: str) -> None:
        replicas = self._draw["load"].randint(1, MOST_REPLICAS)
        self.system.sql("UPDATE services SET replicas = ? WHERE id = ?", replicas, key)
        if self._acknowledged[key] > 0:
            self._acknowledged[key] = replicas
        self.findings.changes["scaled"] += 1

    def _stop_or_start(self, key: str) -> None:
        stopped = self._acknowledged[key] == 0
        word = "running" if stopped else "stopped"
        self.system.sql("UPDATE services SET desired_state = ? WHERE id = ?", word, key)
        replicas = self.system.sql("SELECT replicas FROM services WHERE id = ?", key)[0][0]
        self._acknowledged[key] = replicas if stopped else 0
        self.findings.changes["started again" if stopped else "stopped"] += 1

    def _delete(self, key: str) -> None:
        if self._draw["load"].random() < 0.5:
            self.system.sql("DELETE FROM services WHERE id = ?", key)
        else:
            _check(self.system.client.delete(f"/api/v1/services/{key}"))
        self._acknowledged[key] = -1
        self.findings.changes["deleted"] += 1

    # --- the faults

    def _fault(self) -> None:
        drawn = self._draw["faults"]
        faults = Faults(self.system, self.commands, drawn, self._kill_now, self._haste)
        kinds = list(faults.kinds)
        drawn.shuffle(kinds)
        for kind in kinds:
            if self._over.wait(drawn.uniform(1.0, 6.0)):
                return
            self._tell(f"{kind}: begins")
            try:
                faults.kinds[kind]()
            except (sqlite3.OperationalError, subprocess.SubprocessError, ClusterError) as error:
                self._tell(f"{kind}: {error}")
            else:
                self._tell(f"{kind}: over")
                self.findings.faults[kind] += 1
            with contextlib.suppress(subprocess.SubprocessError):
                for line in self.system.cluster.resume_nodes():
                    self._tell(f"was out of service: {line}")

    def _tell(self, what: str) -> None:
        """Write a line of this run's story, for whoever has to find out what went wrong."""
        with (self.system.folder / "story").open("a") as story:
            story.write(f"{datetime.now().isoformat(sep=' ', timespec='milliseconds')} {what}\n")

    # --- the watch

    def _watch(self) -> None:
        """Look at what runs: two jobs of a token, or of a replica with a claim each, must never be seen at once."""
        self._over.wait(0.5)
        try:
            running = self.system.jobs("RUNNING")
        except (subprocess.SubprocessError, sqlite3.OperationalError):
            return
        self.findings.work["readings with jobs running"] += bool(running)
        tokens, replicas = defaultdict(list), defaultdict(list)
        for job in running:
            tokens[job["name"]].append(job["id"])
            if self._has_claim(job["name"], job["id"]):
                replicas[job["name"].rpartition("-")[0]].append(job["id"])
        for name, ids in (*tokens.items(), *replicas.items()):
            if len(ids) > 1:
                self._double(f"{name} runs as the jobs {sorted(ids)}")

    def _has_claim(self, token: str, job_id: int) -> bool:
        with contextlib.suppress(OSError):
            claim = self.system.job_folder(token) / "claim"
            return f'"job_id": {job_id},' in claim.read_text()
        return False

    def _double(self, what: str) -> None:
        if what not in self.findings.doubles:
            self._tell(what)
            self.findings.doubles.append(what)

    # --- the end

    def _settle(self) -> None:
        """Mend everything, wait for calm, and judge."""
        self.system.cluster.repair()
        with self._controller:
            self.system.kill("controller")
            self._start()
        wanted = self._wanted()
        until = time.monotonic() + SETTLING
        given_up: set[str] = set()
        while (left := self._differences(wanted)) and time.monotonic() < until:
            failed = {key for key, n in wanted.items() if n and key not in given_up and self._is_given_up(key)}
            for key in failed:  # it said so; a change of what is wanted is how people have it tried again
                self._change(key)
            given_up |= failed
            time.sleep(1)
        self._judge(left, wanted, given_up)

    def _wanted(self) -> dict[str, int]:
        """Return what the table asks for, which must be what was acknowledged."""
        query = "SELECT id, replicas, desired_state, deletion_requested_at, config FROM services"
        wanted = {}
        for row in self.system.sql(query):
            ended = row["deletion_requested_at"] is not None or row["desired_state"] != "running"
            wanted[row["id"]] = 0 if ended else row["replicas"] or 1
        for key, replicas in self._acknowledged.items():
            if key not in self._doubtful and max(replicas, 0) != wanted.get(key, 0):
                self.findings.lost.append(f"{key}: {replicas} replicas were acknowledged, {wanted.get(key)} are wanted")
        return wanted

    def _differences(self, wanted: dict[str, int]) -> list[str]:
        try:
            return differences(self.system, wanted)
        except subprocess.SubprocessError as error:
            return [f"the cluster can't be read: {error}"]

    def _is_given_up(self, key: str) -> bool:
        return self.system.status(key) == "failed"

    def _judge(self, left: list[str], wanted: dict[str, int], given_up: set[str]) -> None:
        findings, system = self.findings, self.system
        for line in left:
            (findings.leaks if "no owner" in line or "not gone" in line else findings.lost).append(line)
        starts = self.journal.starts()
        living = {r[0] for r in system.sql("SELECT token FROM attempts WHERE closed_at IS NULL")}
        findings.leaks += [
            f"the engine {start.pid} of {start.token} still lives"
            for start in starts
            if start.token not in living and _lives(start.pid, start.token)
        ]
        for start in self.journal.doubles():
            self._double(f"the engine of {start.token} (job {start.job_id}) met that of {start.met}")
        sent = Counter(token for _, _, token in self.commands.calls("sbatch"))
        for token, count in sent.items():
            if count > 1:
                self._double(f"{token} was submitted {count} times")
        outcomes = system.sql("SELECT outcome, count(*) FROM attempts GROUP BY outcome ORDER BY outcome")
        findings.work["services"] = len(wanted)
        findings.work["replicas wanted at the end"] = sum(wanted.values())
        findings.work["services given up meanwhile"] = len(given_up)
        findings.work["attempts"] = sum(count for _, count in outcomes)
        findings.work |= {f"  {word or 'open at the end'}": count for word, count in outcomes}
        findings.work["jobs submitted"] = len(sent)
        findings.work["engines started"] = len(starts)
        findings.work["terms"] = system.sql("SELECT epoch FROM leases")[0][0]
        told = (system.folder / "controller.log").read_text(errors="replace")
        findings.work["tracebacks in the log"] = told.count("Traceback (most recent call last)")


class RefusedError(Exception):
    """The API said no."""


def _check(answer: httpx.Response) -> None:
    if answer.status_code != 200:
        raise RefusedError(answer.text)


def _lives(pid: int, token: str) -> bool:
    try:
        return token.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def main() -> int:
    """Bring a cluster up, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="leave logs and database behind")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="af-chaos-"))
    cluster = SlurmCluster(folder / "slurm")
    settings = {"NODES": "4", "CPUS": "8", "MEM": "4000", "GPUS": "2", "MINJOBAGE": "10"}
    try:
        subprocess.run([TOOLS / "slurm-up", cluster.folder], check=True, env=os.environ | settings, timeout=300)
        findings = run(folder / "system", cluster, options.seed, options.kills, options.minutes * 60)
    except BaseException:
        shutil.copytree(cluster.folder / "log", folder / "slurm-log")
        raise
    finally:
        subprocess.run([TOOLS / "slurm-down", cluster.folder, "--wipe"], check=False, timeout=120)
    print(findings.table())
    if findings.clean and not options.keep:
        shutil.rmtree(folder)
    else:
        print(f"logs and database: {folder}")
    return 0 if findings.clean and findings.kills.total() >= options.kills else 1


def run(folder: Path, cluster: SlurmCluster, seed: int, kills: int, seconds: float, *, haste: float = 1.0) -> Findings:
    """Run in a folder of its own on a cluster that is up; RUN_DIR is gone afterwards if it was mounted.

    `haste` divides how long each fault lasts.
    """
    folder.mkdir()
    system = System(folder, cluster, "apptainer")
    with small_run_dir(system):
        try:
            findings = Chaos(system, seed, haste).run(kills, seconds)
            if not findings.clean:
                shutil.copytree(folder / "run", folder / "run-at-the-end")
                shutil.copytree(cluster.folder / "log", folder / "slurm")
            return findings
        finally:
            try:
                cluster.repair()
            finally:
                system.close()


if __name__ == "__main__":
    sys.exit(main())

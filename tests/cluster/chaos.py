"""`make chaos`: kill the controller again and again under load while all around it breaks, and count what came of it.

The seed says what is drawn; when it happens is the machine's. Now and then, and at the end, all is mended. Then each
wanted replica must run once (else it is lost) and nothing else may run (it leaked), and at no time may two engines of a
replica, two jobs of a token or two submissions of one have been seen (they are doubled). Some of the services have jobs
of a minute, so that replicas are handed over all the while: there two engines may be, and no more.
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
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path

from controller.failpoints import POINTS
from tests.cluster import slurm_past
from tests.cluster.beside import by_their_rows
from tests.cluster.engines import Journal
from tests.cluster.faults import Faults, small_run_dir
from tests.cluster.findings import TAKEN_OVER, Findings
from tests.cluster.job_faults import JobFaults, NobodyError
from tests.cluster.lying_commands import Commands, Lies
from tests.cluster.matching import differences
from tests.cluster.processes import engines
from tests.cluster.sampler import Sampler, amiss, overlaps
from tests.cluster.system import System
from tests.cluster.users import Users
from tests.modes import bound_by_modes
from tests.slurm_cluster import TOOLS, ClusterError, SlurmCluster

SETTLING = 180.0
"""Seconds that all may take to be as wanted again once all is mended."""
KILLS_AT_A_TIME = 20
"""So often the controller is killed until all is mended and everything has to become as wanted."""
MOST_UNTIL_LEADING = 8.0
DOUBT = 40
"""Seconds of controller.doubt_grace: ten minutes, to scale with the other graces of the tests' installations."""
RARE = ("release the lease", "revoke", "scancel a stray", "shorten")
LIKELY = tuple(point for point in POINTS if not point.endswith(RARE))


Pauses = tuple[float, float]
"""The least and the most seconds between two faults of a kind."""


class Strikes:
    """Faults that strike one after another, in an order drawn anew each time all have been."""

    def __init__(self, kinds: Mapping[str, Callable[[], None]], drawn: random.Random, pauses: Pauses) -> None:
        self._kinds = kinds
        self._pauses = pauses
        self._drawn = drawn
        self._left: list[str] = []

    def pause(self) -> float:
        """Return the seconds until the next one."""
        return self._drawn.uniform(*self._pauses)

    def next(self) -> tuple[str, Callable[[], None]]:
        """Return the next one, by its name."""
        if not self._left:
            self._left = self._drawn.sample(list(self._kinds), len(self._kinds))
        kind = self._left.pop()
        return kind, self._kinds[kind]


class Chaos:
    """One run. The killer, the load, the watch, the sampler and three rows of strikes have a thread each."""

    def __init__(self, system: System, seed: int, haste: float) -> None:
        self.system = system
        self.findings = Findings(seed)
        self.journal = Journal(system)
        self.commands = Commands(system)
        self._draw = {name: random.Random(f"{seed} {name}") for name in ("kills", "load", "faults", "jobs", "lies")}
        self._past = slurm_past.SlurmPast(system.cluster.folder / "state", system.folder / "past")
        self._jobs = JobFaults(system, self._draw["jobs"], self._tell)
        faults = Faults(system, self.commands, self._past, self._draw["faults"], self._kill_now, haste)
        lies = Lies(self.commands, self._draw["lies"])
        self._strikes = [
            Strikes(faults.kinds, self._draw["faults"], (3.0, 9.0)),
            Strikes(self._jobs.kinds, self._draw["jobs"], (1.0, 6.0)),
            Strikes(lies.kinds, self._draw["lies"], (2.0, 8.0)),
        ]
        self._kinds = (*faults.kinds, *self._jobs.kinds, *lies.kinds)
        self._over = threading.Event()
        self._controller = threading.Lock()
        self._users = Users(system, self._draw["load"], self.findings.changes)

    def run(self, kills: int, seconds: float) -> Findings:
        """Break things until the controller was killed that often, or the time is up; mend all now and then, and judge.

        After the first mending that leaves anything amiss nothing more is broken.
        """
        began = time.monotonic()
        self.system.migrate()
        self.system.start("api", under=bound_by_modes())
        self._start()
        self.sampler = Sampler(self.system.folder / "run", self.system.folder / "samples")
        try:
            while self.findings.clean and self.findings.kills.total() < kills and time.monotonic() < began + seconds:
                self._break(min(self.findings.kills.total() + KILLS_AT_A_TIME, kills), began + seconds)
                self._settle()
        finally:
            self.sampler.close()
        self.findings.seconds = time.monotonic() - began
        self._sum_up()
        self.findings.vouch(self._kinds, len(self.sampler.samples()))
        return self.findings

    def _break(self, kills: int, deadline: float) -> None:
        """Break things until the controller was killed so many times in all."""
        self._over.clear()
        work: list[Callable[[], None]] = [self._use, self._watch, self._remember]
        work += [partial(self._strike, strikes) for strikes in self._strikes]
        with ThreadPoolExecutor() as pool:
            tasks = [pool.submit(self._until_over, each) for each in work]
            try:
                while self.findings.kills.total() < kills and time.monotonic() < deadline:
                    if any(task.done() for task in tasks):
                        break
                    self._kill_later()
            finally:
                self._over.set()
            for task in tasks:
                task.result()

    def _until_over(self, work: Callable[[], None]) -> None:
        while not self._over.is_set():
            work()

    # --- the controller's deaths

    def _start(self, failpoint: str = "") -> None:
        self.system.start("controller", under=bound_by_modes(), failpoint=failpoint)

    def _kill_later(self) -> None:
        """Let the controller live for a while, then kill it, unless it died before at a failpoint; start it again."""
        drawn = self._draw["kills"]
        if drawn.random() < 0.7:
            self._let_lead()
        until = time.monotonic() + drawn.expovariate(1 / 2.0) + 0.2
        while time.monotonic() < until and self._is_running():
            time.sleep(0.05)
        with self._controller:
            self._kill("at any moment")
            time.sleep(drawn.choice((0, 0, 0, 0.5, 2)))
            point = f"{drawn.choice(LIKELY)} {drawn.choice((1, 1, 2, 3))}" if drawn.random() < 0.4 else ""
            self._start(point)

    def _let_lead(self) -> None:
        """Wait until it leads, unless it dies, or something keeps it from that."""
        began, epoch = time.monotonic(), self._epoch()
        while self._epoch() == epoch and time.monotonic() < began + MOST_UNTIL_LEADING and self._is_running():
            time.sleep(0.1)

    def _epoch(self) -> int:
        with contextlib.suppress(sqlite3.Error):
            return sum(row["epoch"] for row in self.system.sql("SELECT epoch FROM leases"))
        return 0

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

    # --- the load, and the faults

    def _use(self) -> None:
        self._users.move()
        self._over.wait(self._users.pause())

    def _strike(self, strikes: Strikes) -> None:
        if self._over.wait(strikes.pause()):
            return
        kind, strike = strikes.next()
        self._tell(f"{kind}: begins")
        try:
            strike()
        except (sqlite3.OperationalError, subprocess.SubprocessError, ClusterError, NobodyError) as error:
            self._tell(f"{kind}: {error}")
        else:
            self._tell(f"{kind}: over")
            self.findings.faults[kind] += 1
        if strikes is self._strikes[0]:
            self._give_nodes_back()

    def _remember(self) -> None:
        self._over.wait(slurm_past.INTERVAL)
        self._past.remember()

    def _give_nodes_back(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            for line in self.system.cluster.resume_nodes():
                self._tell(f"was out of service: {line}")

    def _tell(self, what: str) -> None:
        """Write a line of this run's story, for whoever has to find out what went wrong."""
        with (self.system.folder / "story").open("a") as story:
            story.write(f"{datetime.now().isoformat(sep=' ', timespec='milliseconds')} {what}\n")

    # --- the watch

    def _watch(self) -> None:
        """Look at what runs by Slurm's word: two jobs of a token must never be seen at once."""
        self._over.wait(0.5)
        try:
            running = Counter(job["name"] for job in self.system.jobs("RUNNING"))
        except (subprocess.SubprocessError, sqlite3.OperationalError):
            return
        self.findings.work["readings with jobs running"] += bool(running)
        for token, count in running.items():
            if count > 1:
                self._double(f"{token} runs as {count} jobs")

    def _double(self, what: str) -> None:
        if what not in self.findings.doubled:
            self._tell(what)
            self.findings.doubled.append(what)

    # --- the end

    def _settle(self) -> None:
        """Mend everything, wait for calm, and judge."""
        self._mend()
        wanted = self._users.wanted()
        self.findings.lost += self._users.forgotten(wanted)
        began = time.monotonic()
        given_up: set[str] = set()
        while (left := self._differences(wanted)) and time.monotonic() < began + SETTLING:
            failed = {key for key, n in wanted.items() if n and key not in given_up and self._is_given_up(key)}
            for key in failed:  # it said so; a change of what is wanted is how people have it tried again
                self._users.change(key)
            given_up |= failed
            time.sleep(1)
        self.findings.convergence.append(time.monotonic() - began)
        self._tell(f"calm after {self.findings.convergence[-1]:.1f} s: {left or 'all is as wanted'}")
        self.findings.work["services given up meanwhile"] += len(given_up)
        self._judge(left)

    def _mend(self) -> None:
        """Make everything around the controller work, and start that anew, so that no failpoint is left in it."""
        self._tell("all is mended")
        self.commands.tell_the_truth()
        self.system.cluster.repair()
        self._jobs.mend()
        self.commands.wait_for_late_ones()
        with self._controller:
            self.system.kill("controller")
            self._start()

    def _differences(self, wanted: dict[str, int]) -> list[str]:
        """Return what is not as wanted, by the product's word and Slurm's, and by that of who looks on from outside."""
        outside = amiss(engines(self.system.folder / "run"), wanted, by_their_rows(self.system))
        try:
            return differences(self.system, wanted) + outside
        except subprocess.SubprocessError as error:
            return [f"the cluster can't be read: {error}", *outside]

    def _is_given_up(self, key: str) -> bool:
        return self.system.status(key) == "failed"

    def _judge(self, left: list[str]) -> None:
        for line in left:
            is_leak = "no owner" in line or "not gone" in line
            (self.findings.leaked if is_leak else self.findings.lost).append(line)
        for overlap in overlaps(self.sampler.samples(), by_their_rows(self.system)):
            self._double(str(overlap))
        for start, met in self.journal.doubles():
            if not self.sampler.had_just_resumed(met, start.at):
                self._double(f"the engine of {start.token} (job {start.job_id}) met that of {met}")
        for token, count in Counter(token for _, _, token in self.commands.calls("sbatch")).items():
            if count > 1:
                self._double(f"{token} was submitted {count} times")

    def _sum_up(self) -> None:
        """Count what there was."""
        work, system, samples = self.findings.work, self.system, self.sampler.samples()
        wanted = self._users.wanted()
        outcomes = system.sql("SELECT outcome, count(*) FROM attempts GROUP BY outcome ORDER BY outcome")
        work["services"] = len(wanted)
        work["replicas wanted at the end"] = sum(wanted.values())
        work["attempts"] = sum(count for _, count in outcomes)
        work |= {f"  {word or 'open at the end'}": count for word, count in outcomes}
        beside = system.sql("SELECT count(*), count(ready_at) FROM attempts WHERE beside IS NOT NULL")[0]
        work["successors opened beside"], work[TAKEN_OVER] = beside
        work["jobs submitted"] = len({token for _, _, token in self.commands.calls("sbatch")})
        work["engines started"] = len(self.journal.starts())
        work["samples of what lives"] = len(samples)
        work["  engines seen in them"] = sum(len(sample.engines) for sample in samples)
        work["  of these suspended"] = sum(not engine.works for sample in samples for engine in sample.engines)
        work["terms"] = system.sql("SELECT epoch FROM leases")[0][0]
        told = (system.folder / "controller.log").read_text(errors="replace")
        work["tracebacks in the log"] = told.count("Traceback (most recent call last)")
        if work["tracebacks in the log"]:
            self.findings.unproved.append("the controller's log has tracebacks")


def main() -> int:
    """Bring a cluster up, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60)
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
    system.configure("[controller]", f"[controller]\ndoubt_grace = {DOUBT}")
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

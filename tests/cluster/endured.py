"""One service under constant load, and what came of each phase of what befalls it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from controller.core.attempt import HandOverReason
from tests.cluster.load import Clients, Request
from tests.cluster.squeue_watch import HandOver, SqueueWatch, hand_overs, most_at_once, most_beside, without_reason
from tests.cluster.system import System, wait_for
from tests.ports import free_port

NAME = "lasting"
REPLICAS = 2
TIME_LIMIT = 1
"""Minutes: the least that Slurm knows."""
MORE_THAN_HALF = 5
"""Of a node's CPUs: each job has a node of its own."""
SURGE = 1
"""Replicas that a change has two jobs of at once: what a recipe has that says nothing of it."""
TOKEN_DELAY = 0.05
"""Seconds that the engine takes for a word of a stream."""
DRAIN_MOST = 20
"""Seconds that a replica which was taken over from may finish what it has."""
MOST_TOGETHER = 1.3
"""Two jobs of a replica are held at most for so many times as long as start-up and drain take."""
PATIENCE = 180.0
"""Seconds until anything that a phase waits for has come about."""

GATEWAY = """
[gateway]
port = {port}
"""

Phase = Callable[["Endurance"], None]
"""Has something befall the service, and returns once that is over."""


@dataclass
class Outcome:
    """What came of one phase."""

    name: str
    seconds: float = 0.0
    requests: list[Request] = field(default_factory=list)
    """Those that ended in it."""
    hand_overs: list[HandOver] = field(default_factory=list)
    most_jobs: int = 0
    wrong: list[str] = field(default_factory=list)
    """Promises that were not kept, failed requests among them."""
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Request]:
        """The requests that were not answered in full."""
        return [request for request in self.requests if request.error is not None]


def spoken_every(seconds: float) -> list[str]:
    """Return the arguments of an engine that takes so long for a word of a stream."""
    return ["--token-delay", str(seconds)]


class Endurance:
    """One installation with its service, its clients and its watch, while phases go on."""

    def __init__(self, system: System, limits: int, time_limit: int = TIME_LIMIT) -> None:
        """`limits`: how many times each replica is to be handed over in a row; `time_limit`: of its jobs, minutes."""
        self.system = system
        self.limits = limits
        self.time_limit = time_limit
        self.gateways = [system.url, f"http://127.0.0.1:{free_port()}"]
        """Of the API's own process, and the program of its own."""
        with system.config.open("a") as config:
            config.write(GATEWAY.format(port=self.gateways[1].rpartition(":")[2]))
        system.configure("[controller]", f"[controller]\ndrain_most = {DRAIN_MOST}")
        self.key = ""
        self.may_fail: Callable[[Request], bool] = lambda _: False
        """Set by a phase in which requests may fail: which."""
        self.notes: list[str] = []
        self.wrong: list[str] = []

    def run(self, phases: Mapping[str, Phase]) -> list[Outcome]:
        """Set everything up, and go through these phases, up to the first that breaks a promise."""
        self.system.start("up")
        self.system.start("gateway")
        resources = {"time_limit": self.time_limit, "cpu": MORE_THAN_HALF}
        self.key = self.system.create(
            name=NAME, replicas=REPLICAS, resources=resources, extra_args=spoken_every(TOKEN_DELAY)
        )
        for gateway in self.gateways:
            wait_for(lambda url=gateway: self._ready_at(url) == REPLICAS, f"{gateway} knows it", PATIENCE, self.story)
        outcomes: list[Outcome] = []
        with SqueueWatch(self.system) as self.watch, Clients(self.gateways, NAME) as self.clients:
            for name, phase in phases.items():
                outcomes.append(self._go_through(name, phase))
                if outcomes[-1].wrong:
                    break
        return outcomes

    def _go_through(self, name: str, phase: Phase) -> Outcome:
        self.may_fail, self.notes, self.wrong = (lambda _: False), [], []
        outcome = Outcome(name, notes=self.notes, wrong=self.wrong)
        began = time.time()
        try:
            phase(self)
            self.wait_whole()
        except AssertionError as error:
            self.wrong.append(str(error))
        ended = time.time()
        outcome.seconds = ended - began
        outcome.requests = [request for request in self.clients.ended if began <= request.ended < ended]
        self.wrong += [str(request) for request in outcome.failed if not self.may_fail(request)]
        self._look_at_jobs(outcome, began, ended)
        return outcome

    def _look_at_jobs(self, outcome: Outcome, began: float, ended: float) -> None:
        rows = self.system.attempts(self.key)
        by_token = {row["token"]: row for row in rows}
        readings = [reading for reading in self.watch.readings if began <= reading.at < ended]
        outcome.most_jobs = most_at_once(readings)
        outcome.hand_overs = [each for each in hand_overs(self.watch.readings, rows) if began <= each.done_at < ended]
        self.wrong += without_reason(readings, by_token)
        changing = most_beside(readings, by_token, HandOverReason.CHANGED)
        if changing > SURGE:
            self.wrong.append(f"a change had two jobs of {changing} replicas at once, {SURGE} is allowed")
        if len(readings) < outcome.seconds:  # one a second at least: every half is tried
            self.wrong.append(f"squeue was read only {len(readings)} times in {outcome.seconds:.0f} s")
        together = sum(each.together for each in outcome.hand_overs)
        allowed = MOST_TOGETHER * sum(each.start_up + each.drain for each in outcome.hand_overs)
        if together > allowed:
            self.wrong.append(f"two jobs were held at once for {together:.0f} s in all, {allowed:.0f} s are allowed")

    # --- what phases use

    def wait(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait until a condition holds; raises `AssertionError` with the service's story."""
        wait_for(condition, what, patience, self.story)

    def wait_whole(self) -> None:
        """Wait until each replica answers, and nothing is left of what has ended."""
        self.wait(lambda: len(self.serving()) == REPLICAS and not self._ending(), f"{REPLICAS} replicas serve")

    def _ending(self) -> list[str]:
        rows = self.system.attempts(self.key)
        return [row["token"] for row in rows if row["closed_at"] is not None and row["gone_at"] is None]

    def change(self, **fields: Any) -> None:
        """Change the service, by REST."""
        self._ask("PATCH", "", fields)

    def undo(self) -> None:
        """Go back to what was launched before, by REST."""
        self._ask("POST", "/rollout/undo")

    def rollout(self) -> dict[str, Any]:
        """Return how far the last change is, as REST says it."""
        return self._ask("GET", "/rollout")

    def wait_rolled_out(self) -> None:
        """Wait until all replicas run what is wanted now, and nothing else."""
        self.wait(lambda: self.rollout()["state"] == "complete", "the change is rolled out")

    def _ask(self, method: str, path: str, content: object = None) -> dict[str, Any]:
        answer = self.system.client.request(method, f"/api/v1/services/{self.key}{path}", json=content)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def serving(self) -> dict[int, dict[str, Any]]:
        """Return the attempt of each replica that gets its requests."""
        rows = self.system.attempts(self.key)
        serve = (r for r in rows if not r["closed_at"] and r["ready_at"] and not r["unready_since"])
        return {row["replica"]: row for row in serve if not row["draining_since"]}

    def attempt(self, token: str) -> dict[str, Any]:
        """Return one of its attempts."""
        (row,) = (row for row in self.system.attempts(self.key) if row["token"] == token)
        return row

    def node_of(self, token: str) -> str:
        """Return where the job of an attempt runs."""
        return next(str(job["node"]) for job in self.system.jobs("RUNNING") if job["name"] == token)

    def digests(self) -> set[str]:
        """Return what they were launched as."""
        return {row["digest"] for row in self.serving().values()}

    def count_hand_overs(self) -> Counter[int]:
        """Return how often each replica was handed over so far."""
        ended = [row for row in self.system.attempts(self.key) if row["outcome"] == "Superseded"]
        return Counter(row["replica"] for row in ended)

    def story(self) -> str:
        """Tell what there is to know."""
        return self.system.story(self.key)

    def _ready_at(self, gateway: str) -> int:
        answer = httpx.get(f"{gateway}/v1/models/{NAME}", trust_env=False, timeout=30)
        return int(answer.json().get("ready_replicas", 0))

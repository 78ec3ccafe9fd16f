"""What befalls a service under load, one phase after another: `make endurance`."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from controller.core.attempt import HandOverReason
from tests.cluster.endured import DRAIN_MOST, NAME, REPLICAS, SURGE, TOKEN_DELAY, Endurance, Phase, spoken_every
from tests.cluster.faults import cut_power
from tests.cluster.load import TIMEOUT, Request, answered, read_stream
from tests.cluster.system import wait_for

REPLACE = signal.SIGUSR2
REPLACED = "All programs were replaced"


def time_limits(run: Endurance) -> None:
    """Every job comes to its time limit, again and again."""
    before = run.count_hand_overs()
    patience = 60.0 * run.time_limit * (run.limits + 2)
    done = lambda: min((run.count_hand_overs() - before)[number] for number in range(REPLICAS))  # noqa: E731
    run.wait(lambda: done() >= run.limits, f"each replica was handed over {run.limits} times", patience)
    outcomes = Counter(row["outcome"] for row in run.system.attempts(run.key) if row["outcome"])
    if set(outcomes) != {"Superseded"}:
        run.wrong.append(f"jobs ended otherwise than by a hand-over: {dict(outcomes)}")


def bound(run: Endurance) -> None:
    """Streams that take longer than a replica may drain are cut there, with an event that says so, and not before."""
    asked = [Request("endless stream") for _ in range(4)]
    threads = [threading.Thread(target=_stream_endlessly, args=(run, request)) for request in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for request in asked:
        lasted = request.ended - request.began
        run.notes.append(f"a stream of two minutes was cut after {lasted:.0f} s: {request.error}")
        if lasted < DRAIN_MOST or '"error"' not in (request.error or ""):
            run.wrong.append(str(request))


def _stream_endlessly(run: Endurance, request: Request) -> None:
    words = int(120 / TOKEN_DELAY)
    with httpx.Client(base_url=run.gateways[0], trust_env=False, timeout=TIMEOUT) as client, answered(request):
        read_stream(client, NAME, words, request)


def update(run: Endurance) -> None:
    """Its config is changed: the replicas are handed over to what is wanted now, one after another."""
    _roll_out(run, lambda: run.change(config={"extra_args": spoken_every(TOKEN_DELAY * 0.8)}))


def undo(run: Endurance) -> None:
    """It goes back to what was launched before."""
    _roll_out(run, run.undo)


def _roll_out(run: Endurance, change: Callable[[], None]) -> None:
    began, before = time.time(), run.digests()
    change()
    run.wait_rolled_out()
    run.notes.append(f"it was rolled out after {time.time() - began:.0f} s")
    if left := before & run.digests():
        run.wrong.append(f"what ran before serves on: {left}")


def bad_update(run: Endurance) -> None:
    """It is changed to what can't start: what ran before serves on, and no other replica is tried; then undone."""
    before = run.digests()
    run.change(config={"extra_args": ["--no-such-argument"]})
    run.wait(lambda: run.rollout()["state"] == "failed", "the change has failed")
    rollout, serving = run.rollout(), run.serving()
    run.notes.append(f"{rollout['state']}: {rollout['message']}")
    tried = {
        row["replica"]
        for row in run.system.attempts(run.key)
        if row["generation"] == rollout["generation"] and row["beside"] == HandOverReason.CHANGED
    }
    if len(serving) != REPLICAS or run.digests() != before:
        run.wrong.append(f"what ran before does not serve on: {serving}")
    if len(tried) > SURGE:
        run.wrong.append(f"replicas {sorted(tried)} were changed, though the first one failed")
    run.undo()
    run.wait_rolled_out()


def scale_down(run: Endurance) -> None:
    """There is to be one replica fewer: it finishes what it has, and the others go on. Then there are as many again."""
    last = REPLICAS - 1
    run.change(replicas=last)
    run.wait(lambda: all(row["gone_at"] for row in _of_replica(run, last)), f"nothing is left of replica {last}")
    ended = _of_replica(run, last)[-1]
    if ended["outcome"] != "ScaledDown" or ended["draining_since"] is None:
        run.wrong.append(f"it did not drain: {ended}")
    else:
        run.notes.append(f"replica {last} drained for {ended['closed_at'] - ended['draining_since']:.0f} s")
    run.change(replicas=REPLICAS)
    run.wait_whole()


def _of_replica(run: Endurance, number: int) -> list[dict[str, Any]]:
    return [row for row in run.system.attempts(run.key) if row["replica"] == number]


def upgrade(run: Endurance) -> None:
    """API, controller and gateway are replaced one after another, as `systemctl reload` does it."""
    for program in ("up", "gateway", "up"):
        log = run.system.folder / f"{program}.log"
        before = log.read_text(errors="replace").count(REPLACED)
        run.system.send(program, REPLACE)
        wait_for(lambda log=log, n=before: log.read_text(errors="replace").count(REPLACED) > n, f"{program} is new")
        time.sleep(1)
    until = run.count_hand_overs().total() + 1
    run.wait(lambda: run.count_hand_overs().total() >= until, "the new controller hands over")


def told_to_end(run: Endurance) -> None:
    """Somebody else tells a job to end, as preemption with a grace does: it finishes what it has."""
    told = _youngest(run)
    run.system.slurm("scancel", "--signal=TERM", "--full", str(told["job_id"]))
    _see_it_replaced(run, told["token"])


def drained_node(run: Endurance) -> None:
    """A node is taken out of service: its job is replaced elsewhere."""
    told = _youngest(run)
    node = run.node_of(told["token"])
    run.system.slurm("scontrol", "update", f"nodename={node}", "state=drain", "reason=maintenance")
    try:
        _see_it_replaced(run, told["token"])
    finally:
        run.system.cluster.resume_nodes()


def _youngest(run: Endurance) -> dict[str, Any]:
    """Return which of those that serve is the farthest from its time limit."""
    return max(run.serving().values(), key=lambda row: float(row["ends_at"]))


def _see_it_replaced(run: Endurance, token: str) -> None:
    began = time.time()
    run.wait(lambda: run.attempt(token)["gone_at"], f"{token} is gone")
    run.wait_whole()
    ended = run.attempt(token)
    run.notes.append(f"it was replaced within {time.time() - began:.0f} s ({ended['outcome']})")
    if ended["draining_since"] is None:
        run.wrong.append(f"it did not drain: {ended}")


def lost_node(run: Endurance) -> None:
    """A node loses its power: what streams from it breaks off, and nothing else."""
    token = run.serving()[0]["token"]
    node = run.node_of(token)
    cut_power(run.system, node)
    lost_at = time.time()
    run.may_fail = lambda request: request.first_byte is not None and request.first_byte <= lost_at
    try:
        run.wait(lambda: token not in {row["token"] for row in run.serving().values()}, "its loss is seen")
        run.wait_whole()
    finally:
        run.system.cluster.control("start", f"slurmd-{node}")
        run.system.cluster.resume_nodes()
    took = time.time() - lost_at
    outcome = run.attempt(token)["outcome"]
    run.notes.append(f"{node} was lost ({outcome}), and all was whole again after {took:.0f} s")
    if outcome == "Superseded":
        run.wrong.append("it was handed over, not lost")


PHASES: dict[str, Phase] = {
    "time-limits": time_limits,
    "bound": bound,
    "update": update,
    "undo": undo,
    "bad-update": bad_update,
    "scale-down": scale_down,
    "told-to-end": told_to_end,
    "drained-node": drained_node,
    "upgrade": upgrade,
    "lost-node": lost_node,
}
"""In the order in which they come."""

"""The metrics, as Prometheus' own parser reads them, and what /health says."""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.contract.job.words import Lane
from api.contract.listen import PortError
from api.contract.status import Condition, Progress, Truth
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.attempt import Attempt, HandOverReason
from controller.core.jobs import ReadingFailure, Snapshot
from controller.core.observed import Observed
from controller.core.plan import Cancel, Plan, Revoke, Submit
from controller.core.published import Status
from controller.lease import Leader
from controller.ports import DeposedError, Term, Tracked
from controller.queue import KeyedQueue
from controller.runtime.leading import Leading
from controller.telemetry import health
from controller.telemetry.health import Doctor
from controller.telemetry.metrics import Metrics
from controller.telemetry.server import serving

from .passes import NOW, a_pass

A = Attempt(token="a", service_id="one", replica=0, incarnation=1, generation=1, digest="d", intent_at=0.0)
ATTEMPTS = (
    A,
    replace(A, token="b", started_at=1.0),
    replace(A, token="c", started_at=1.0, ready_at=2.0, gpus=1),
    replace(A, token="d", closed_at=1.0, outcome="Stopped", gpus=2),
    replace(A, token="e", closed_at=1.0, outcome="Stopped"),
)


class World:
    """A controller that stands by, until it is told to lead."""

    def __init__(self) -> None:
        self.now = NOW
        self.calls: Counter[tuple[str, str]] = Counter()
        self.leading: Leading | None = None
        self.metrics = Metrics(lambda: self.leading, self.calls)

    def lead(self, snapshot: Snapshot | None = None, failure: ReadingFailure | None = None) -> KeyedQueue:
        queue = KeyedQueue(lambda: self.now)
        term = SimpleNamespace(
            term=Term(epoch=7, began_at=NOW),
            queue=queue,
            cluster=SimpleNamespace(
                clock=SimpleNamespace(now=lambda: self.now),
                snapshots=SimpleNamespace(latest=snapshot, failure=failure),
                orphans=SimpleNamespace(unknown=frozenset({"t"})),
                tracked=TrackedAttempts(Tracked.of(a) for a in ATTEMPTS),
            ),
        )
        self.leading = cast(Leading, term)
        return queue

    def values(self) -> dict[str, float]:
        """All samples; the labels' values follow the name."""
        families = list(text_string_to_metric_families(self.metrics.text().decode()))
        assert all(family.documentation and family.type != "untyped" for family in families)
        return {
            "/".join([s.name.removeprefix("ai_factory_"), *(v for k, v in s.labels.items())]): s.value
            for family in families
            for s in family.samples
            if s.name.startswith("ai_factory_")
        }


@pytest.fixture
def world() -> World:
    return World()


def test_every_series_is_there_from_the_start_at_zero(world: World) -> None:
    values = world.values()
    for name in (
        "passes_total/ok", "passes_total/failed", "passes_total/deposed", "pass_seconds_count", "readings_total/ok",
        "readings_total/failed", "actions_total/submit", "actions_total/cancel", "actions_total/revoke", "leader",
        "epoch", "queue_keys", "queue_oldest_seconds", "unknown_tokens", "gpus", "attempts/queued", "attempts/starting",
        "attempts/ready", "attempts/ending", "convergence_seconds_count/ready", "convergence_seconds_count/stopped",
        "convergence_seconds_count/completed", "slurm_calls_total/sbatch/ok", "slurm_calls_total/squeue/not_started",
    ):  # fmt: skip
        assert values.pop(name) == 0, name
    assert math.isnan(values.pop("snapshot_age_seconds"))
    assert set(values.values()) == {0}


def test_states_are_those_of_the_moment(world: World) -> None:
    queue = world.lead(Snapshot(sequence=1, began_at=NOW - 4, jobs={}))
    queue.add("x", NOW - 30)
    queue.add("y", NOW - 10)
    queue.add("later", NOW + 10)
    world.calls["sbatch", "killed"] += 2
    values = world.values()
    assert (values["leader"], values["epoch"], values["unknown_tokens"]) == (1, 7, 1)
    assert (values["queue_keys"], values["queue_oldest_seconds"], values["snapshot_age_seconds"]) == (2, 30, 4)
    states = [values[f"attempts/{state}"] for state in ("queued", "starting", "ready", "ending")]
    assert states == [1, 1, 1, 2]
    assert values["slurm_calls_total/sbatch/killed"] == 2
    assert values["gpus"] == 3
    world.leading = None
    assert world.values()["attempts/ending"] == world.values()["epoch"] == 0


def test_passes_count_by_how_they_end(world: World) -> None:
    with world.metrics.passing():
        pass
    for error in (DeposedError("over"), OSError("away"), ValueError("bug")):
        with pytest.raises(type(error)), world.metrics.passing():
            raise error
    with pytest.raises(asyncio.CancelledError), world.metrics.passing():
        raise asyncio.CancelledError
    values = world.values()
    assert [values[f"passes_total/{r}"] for r in ("ok", "failed", "deposed")] == [1, 2, 1]
    assert values["pass_seconds_count"] == 1


def test_readings_and_actions(world: World) -> None:
    for well in (True, True, False):
        world.metrics.has_read(well=well)
    actions = (Submit(token="a"), Cancel(token="b", job_id=1), Cancel(token="b", job_id=2), Revoke(token="c"))
    world.metrics.report(a_pass(Plan(actions=actions)))
    values = world.values()
    assert (values["readings_total/ok"], values["readings_total/failed"]) == (2, 1)
    assert [values[f"actions_total/{kind}"] for kind in ("submit", "cancel", "revoke")] == [1, 2, 1]


def said(generation: int, reason: Progress, truth: Truth = Truth.FALSE) -> Status:
    about = {"status": truth, "reason": reason, "message": "", "since": 0.0, "generation": generation}
    return Status(observed_generation=generation, conditions=(Condition(type="Progressing", **cast(Any, about)),))


def test_convergence_is_measured_once_from_the_change_to_the_end(world: World) -> None:
    under_way, there = said(1, Progress.QUEUED, Truth.TRUE), said(1, Progress.AS_WANTED)
    world.metrics.report(a_pass(Plan(status=under_way)))
    world.metrics.report(a_pass(Plan(), now=NOW + 5, status=under_way))
    assert world.values()["convergence_seconds_count/ready"] == 0
    world.metrics.report(a_pass(Plan(status=there), now=NOW + 40, status=under_way))
    world.metrics.report(a_pass(Plan(), now=NOW + 90, status=there))
    values = world.values()
    assert (values["convergence_seconds_count/ready"], values["convergence_seconds_sum/ready"]) == (1, 40)
    stopping = {"generation": 2, "running": False}
    world.metrics.report(a_pass(Plan(status=said(2, Progress.STOPPED)), now=NOW + 100, status=there, **stopping))
    assert world.values()["convergence_seconds_count/stopped"] == 1


def test_a_service_is_not_as_wanted_while_an_outdated_attempt_serves(world: World) -> None:
    there = said(1, Progress.AS_WANTED)
    outdated = replace(A, digest="old")
    world.metrics.report(a_pass(Plan(status=there, attempts=(outdated,))))
    assert world.values()["convergence_seconds_count/ready"] == 0
    world.metrics.report(a_pass(Plan(attempts=(A,)), now=NOW + 3, status=there))
    assert world.values()["convergence_seconds_sum/ready"] == 3


def test_what_another_leader_may_have_ended_is_not_measured(world: World) -> None:
    world.metrics.report(a_pass(Plan(status=said(1, Progress.QUEUED, Truth.TRUE))))
    world.metrics.new_term()
    world.metrics.report(a_pass(Plan(), now=NOW + 900, status=said(1, Progress.AS_WANTED)))
    assert world.values()["convergence_seconds_count/ready"] == 0


# health


FRESH = Snapshot(sequence=1, began_at=NOW - 4, jobs={})


@pytest.fixture
def beat(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the database answers."""
    answer: dict[str, Any] = {"leader": Leader(epoch=7, holder="me", host="h", renewed_at=NOW - 2)}

    async def leader(_: object) -> Leader | None:
        if isinstance(answer["leader"], Exception):
            raise answer["leader"]
        return cast("Leader | None", answer["leader"])

    monkeypatch.setattr(health, "leader", leader)
    return answer


def doctor(world: World) -> Doctor:
    return Doctor(cast(Any, None), lambda: world.now, lambda: world.leading, heartbeat_seconds=15, snapshot_seconds=50)


async def test_a_leader_that_is_well(world: World, beat: dict[str, Any]) -> None:
    world.lead(FRESH)
    found = await doctor(world).examine()
    assert (found.status, found.stale, found.leader, found.epoch) == ("healthy", (), True, 7)
    assert (found.last_heartbeat, found.snapshot_age, found.database) == (2.0, 4.0, "ok")


async def test_a_standby_is_well_while_another_one_leads(world: World, beat: dict[str, Any]) -> None:
    assert (await doctor(world).examine()).status == "standby"
    beat["leader"] = None
    assert (await doctor(world).examine()).stale == ("heartbeat",)


async def test_what_is_stale_is_named(world: World, beat: dict[str, Any]) -> None:
    world.lead(FRESH, ReadingFailure(since=NOW, reason="SlurmSilent", message="No answer."))
    world.now = NOW + 100
    found = await doctor(world).examine()
    assert (found.status, found.stale) == ("stale", ("heartbeat", "snapshot"))
    assert found.reading_failure == "No answer."
    beat["leader"] = OSError("the disk is gone")
    found = await doctor(world).examine()
    assert (found.stale, found.database) == (("database", "snapshot"), "the disk is gone")


async def test_a_term_that_never_read_anything_is_stale_after_a_while(world: World, beat: dict[str, Any]) -> None:
    world.lead()
    assert (await doctor(world).examine()).stale == ()
    world.now = NOW + 51
    assert "snapshot" in (await doctor(world).examine()).stale


async def test_both_answer_over_http(world: World, beat: dict[str, Any]) -> None:
    world.lead(FRESH)
    async with serving("127.0.0.1", 0, world.metrics, doctor(world)) as port, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}"
        async with session.get(f"{url}/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert list(text_string_to_metric_families(await answer.text()))
        async with session.get(f"{url}/health") as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "healthy")
        world.now = NOW + 100
        async with session.get(f"{url}/health") as answer:
            assert (answer.status, json.loads(await answer.text())["stale"]) == (503, ["heartbeat", "snapshot"])


async def test_a_port_that_is_taken(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match="metrics_port"):
            async with serving("127.0.0.1", port, world.metrics, doctor(world)):
                pass


# hand-overs


OLD = replace(A, started_at=100.0, ready_at=110.0, draining_since=NOW - 20)
SUCCESSOR = replace(
    A, token="b", incarnation=2, lane=Lane.B, beside="TimeLimit", started_at=NOW - 90, ready_at=NOW - 20
)


def seen_of(*attempts: Attempt) -> Observed:
    return Observed(
        attempts=attempts, endpoints=(), status=Status(), snapshot=None, reading_failure=None, files={}, probes={},
        sent={}, cancelled={},
    )  # fmt: skip


def ends(attempt: Attempt, outcome: str, at: float = NOW) -> Attempt:
    return replace(attempt, closed_at=at, outcome=outcome)


WANTED = Status(observed_generation=1, replicas=1, target=1)


def test_a_hand_over_is_counted_once_it_has_ended(world: World) -> None:
    assert world.values()["hand_overs_total/TimeLimit"] == 0
    plan = Plan(attempts=(ends(OLD, "Superseded"),))
    world.metrics.report(a_pass(plan, seen=seen_of(OLD, SUCCESSOR), status=WANTED))
    world.metrics.report(a_pass(Plan(), seen=seen_of(ends(OLD, "Superseded"), SUCCESSOR), status=WANTED))
    values = world.values()
    assert values["hand_overs_total/TimeLimit"] == 1
    assert (values["hand_over_overlap_seconds_count"], values["hand_over_overlap_seconds_sum"]) == (1, 90)
    assert values["gap_seconds_count"] == 0


def test_each_reason_of_a_hand_over_is_there_from_the_start(world: World) -> None:
    found = {name: value for name, value in world.values().items() if name.startswith("hand_overs_total/")}
    assert found == {f"hand_overs_total/{reason}": 0 for reason in HandOverReason}
    assert set(HandOverReason) == {"TimeLimit", "Changed", "Interrupted", "NodeDrains"}
    for reason in HandOverReason:
        seen = seen_of(OLD, replace(SUCCESSOR, beside=reason))
        world.metrics.report(a_pass(Plan(attempts=(ends(OLD, "Superseded"),)), seen=seen, status=WANTED))
    assert {world.values()[name] for name in found} == {1}


@pytest.mark.parametrize("outcome", ["TimeLimit", "Preempted", "NodeFailed", "MadeRoom"])
def test_one_is_counted_too_whose_old_job_ended_by_itself(world: World, outcome: str) -> None:
    plan = Plan(attempts=(ends(OLD, outcome),))
    world.metrics.report(a_pass(plan, seen=seen_of(OLD, SUCCESSOR), status=WANTED))
    values = world.values()
    assert (values["hand_overs_total/TimeLimit"], values["hand_over_overlap_seconds_sum"]) == (1, 90)
    assert values["gap_seconds_count"] == 0


def test_one_that_came_late_is_counted_when_it_is_ready_and_its_gap(world: World) -> None:
    old, late = replace(OLD, draining_since=None), replace(SUCCESSOR, started_at=NOW - 5, ready_at=None)
    over = ends(old, "TimeLimit")
    world.metrics.report(a_pass(Plan(attempts=(over,)), seen=seen_of(old, late), status=WANTED))
    assert world.values()["hand_overs_total/TimeLimit"] == 0
    ready = replace(late, ready_at=NOW + 25)
    world.metrics.report(a_pass(Plan(attempts=(ready,)), seen=seen_of(over, late), now=NOW + 25, status=WANTED))
    world.metrics.report(a_pass(Plan(), seen=seen_of(over, ready), now=NOW + 30, status=WANTED))
    values = world.values()
    assert (values["hand_overs_total/TimeLimit"], values["hand_over_overlap_seconds_sum"]) == (1, 5)
    assert (values["gap_seconds_count"], values["gap_seconds_sum"]) == (1, 25)


def test_one_whose_job_began_only_then_had_no_overlap(world: World) -> None:
    over = ends(OLD, "TimeLimit", at=NOW - 30)
    late = replace(SUCCESSOR, started_at=NOW - 20, ready_at=None)
    plan = Plan(attempts=(replace(late, ready_at=NOW),))
    world.metrics.report(a_pass(plan, seen=seen_of(over, late), status=WANTED))
    values = world.values()
    assert (values["hand_over_overlap_seconds_count"], values["hand_over_overlap_seconds_sum"]) == (1, 0)


@pytest.mark.parametrize("outcome", ["Stopped", "ScaledDown", "QuotaExceeded", "Outdated"])
def test_what_people_end_is_no_hand_over(world: World, outcome: str) -> None:
    plan = Plan(attempts=(ends(OLD, outcome),))
    world.metrics.report(a_pass(plan, seen=seen_of(OLD, SUCCESSOR), status=WANTED))
    assert world.values()["hand_overs_total/TimeLimit"] == 0


def test_a_successor_that_went_first_took_nothing_over(world: World) -> None:
    failed = ends(SUCCESSOR, "NodeFailed", at=NOW - 10)
    world.metrics.report(a_pass(Plan(attempts=(ends(OLD, "TimeLimit"),)), seen=seen_of(OLD, failed), status=WANTED))
    assert world.values()["hand_overs_total/TimeLimit"] == 0


def loses(world: World, **about: Any) -> None:
    serves = replace(OLD, draining_since=None)
    world.metrics.report(a_pass(Plan(attempts=(ends(serves, "TimeLimit"),)), seen=seen_of(serves), **about))


def comes_back(world: World, **about: Any) -> None:
    starting = replace(A, token="b", incarnation=2, started_at=NOW + 30)
    plan = Plan(attempts=(replace(starting, ready_at=NOW + 40),))
    world.metrics.report(a_pass(plan, seen=seen_of(starting), now=NOW + 40, **about))


def test_a_gap_is_the_time_without_a_ready_attempt(world: World) -> None:
    loses(world, status=WANTED)
    world.metrics.report(a_pass(Plan(), now=NOW + 20, status=WANTED))
    assert world.values()["gap_seconds_count"] == 0
    comes_back(world, status=WANTED)
    comes_back(world, status=WANTED)
    values = world.values()
    assert (values["gap_seconds_count"], values["gap_seconds_sum"]) == (1, 40)


@pytest.mark.parametrize(
    "about",
    [{"running": False, "status": WANTED}, {"status": replace(WANTED, target=0)}],
    ids=["stopped", "scaled down"],
)
def test_what_people_end_is_no_gap(world: World, about: dict[str, Any]) -> None:
    loses(world, **about)
    comes_back(world, status=WANTED)
    assert world.values()["gap_seconds_count"] == 0


def test_a_gap_that_another_leader_may_have_closed_is_not_measured(world: World) -> None:
    loses(world, status=WANTED)
    world.metrics.new_term()
    comes_back(world, status=WANTED)
    assert world.values()["gap_seconds_count"] == 0

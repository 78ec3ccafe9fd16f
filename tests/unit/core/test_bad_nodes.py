"""Which nodes jobs are kept off: those on which different things fail to start, or one that works elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.contract.status import Truth
from controller.core.attempt import Attempt
from controller.core.bad_nodes import WINDOW, BadNode, Fault, Successes, bad_nodes
from controller.core.plan import Submit

from .builders import NOW, condition, desired, gone, only, plan, queued, ready, see, see_running, started

BAD = BadNode(name="n1", until=NOW + 100, faults=3, outcome="EngineExited")


def fault(ago: float = 10.0, **changes: Any) -> Fault:
    values = {"node": "n1", "has_gpus": True, "digest": "a", "at": NOW - ago, "outcome": "EngineExited"}
    return Fault(**(values | changes))


def names(*faults: Fault, successes: Successes | None = None, now: float = NOW, nodes: int = 10) -> list[str]:
    found = bad_nodes(faults, successes or Successes(), now, has_gpus=True, nodes=nodes)
    return [node.name for node in found]


OF_TWO = (fault(30), fault(20, digest="b"), fault(10))
OF_ONE = (fault(30), fault(20), fault(10))


def test_three_faults_of_different_launches_speak_against_a_node() -> None:
    assert names(*OF_TWO) == ["n1"]
    assert names(*OF_TWO[:2]) == []


def test_one_launch_alone_speaks_against_it_only_if_it_works_elsewhere() -> None:
    assert names(*OF_ONE) == []
    assert names(*OF_ONE, successes=Successes(nodes={"a": frozenset({"n2"})})) == ["n1"]
    assert names(*OF_ONE, successes=Successes(nodes={"a": frozenset({"n1"})})) == [], "here is not elsewhere"


def test_what_became_ready_there_clears_a_node() -> None:
    since = {("n1", True): NOW - 15}
    assert names(*OF_TWO, successes=Successes(last=since)) == []
    again = (fault(5, digest="b"), fault(4), fault(3))
    assert names(*OF_TWO, *again, successes=Successes(last=since)) == ["n1"]


def test_a_success_without_gpus_says_nothing_of_the_gpus() -> None:
    assert names(*OF_TWO, successes=Successes(last={("n1", False): NOW - 1})) == ["n1"]
    assert names(*(replace(each, has_gpus=False) for each in OF_TWO)) == []


def test_a_node_is_left_out_until_the_first_of_the_last_three_faults_is_old() -> None:
    (found,) = bad_nodes([fault(500, digest="c"), *OF_TWO], Successes(), NOW, has_gpus=True, nodes=10)
    assert found == BadNode(name="n1", until=NOW - 30 + WINDOW, faults=4, outcome="EngineExited")
    assert names(*OF_TWO, now=found.until - 1) == ["n1"]
    assert names(*OF_TWO, now=found.until) == []


@pytest.mark.parametrize(("nodes", "most"), [(1, 0), (2, 1), (3, 1), (6, 2), (100, 33)])
def test_where_too_many_would_be_left_out_none_is(nodes: int, most: int) -> None:
    def of(count: int) -> list[str]:
        return names(*(replace(each, node=f"n{n}") for n in range(count) for each in OF_TWO), nodes=nodes)

    assert len(of(most)) == most
    assert of(most + 1) == []


@pytest.mark.parametrize(
    ("attempt", "speaks"),
    [
        (gone(started(), "EngineExited"), True),
        (gone(started(), "StartupTimeout"), True),
        (gone(started(), "Unreachable"), True),
        (gone(ready(), "EngineExited"), False),
        (gone(started(), "OutOfMemory"), False),
        (gone(started(), "VolumeInUse"), False),
        (gone(started(), "EngineExited", exit_code=127), False),
        (gone(started(), "NodeFailed"), False),
        (gone(started(), "Stopped"), False),
        (gone(started(draining_since=NOW - 5), "EngineExited"), False),
        (gone(queued(), "EngineExited"), False),
        (started(), False),
    ],
)
def test_what_speaks_against_a_node(attempt: Attempt, speaks: bool) -> None:
    assert (Fault.of(attempt) is not None) is speaks


def test_a_new_job_is_kept_off_bad_nodes() -> None:
    (submit,) = plan(desired(), see(bad_nodes=(BAD,))).actions
    assert isinstance(submit, Submit)
    assert submit.exclude == ("n1",)


def test_a_service_that_has_something_to_start_says_so_and_tells_it_once() -> None:
    made = plan(desired(), see(bad_nodes=(BAD,)))
    told = condition(made.status, "Startable")
    assert (told.status, told.reason) == (Truth.TRUE, "NodesExcluded")
    assert "n1 until" in told.message
    assert "3 failed there in a row: EngineExited" in told.message
    assert [event.reason for event in made.events if event.warning] == ["NodesExcluded"]


def test_a_service_that_is_ready_says_nothing_of_them() -> None:
    seen = see_running(ready(), bad_nodes=(BAD,))
    assert only(seen).ready
    assert condition(plan(desired(), seen).status, "Startable").reason == "NothingAgainst"

"""What who reads squeue calls too much, and what it counts of a hand-over."""

from __future__ import annotations

from typing import Any

from tests.cluster.squeue_watch import Reading, hand_overs, most_at_once, most_beside, without_reason

FIRST, SECOND, THIRD, OTHER = ("af-i-s-0-9", "af-i-s-0-10", "af-i-s-0-11", "af-i-s-1-1")


def row(token: str, lane: str, beside: str | None, **more: Any) -> dict[str, Any]:
    return {
        "token": token,
        "service_id": "s",
        "replica": int(token.split("-")[3]),
        "lane": lane,
        "beside": beside,
    } | more


ROWS = {each["token"]: each for each in (
    row(FIRST, "main", None, outcome="Superseded", draining_since=8.0, closed_at=12.0, started_at=0.0, ready_at=1.0),
    row(SECOND, "b", "TimeLimit", outcome=None, draining_since=None, closed_at=None, started_at=5.0, ready_at=8.0),
    row(THIRD, "main", "TimeLimit", outcome=None, draining_since=None, closed_at=None, started_at=None, ready_at=None),
    row(OTHER, "main", None, outcome=None, draining_since=None, closed_at=None, started_at=0.0, ready_at=1.0),
)}  # fmt: skip


def readings(*seen: dict[str, str]) -> list[Reading]:
    return [Reading(float(at), 0.5, jobs) for at, jobs in enumerate(seen)]


def test_two_jobs_of_a_replica_need_a_reason_and_their_own_lanes() -> None:
    both = readings({SECOND: "PENDING", FIRST: "RUNNING", OTHER: "RUNNING"})
    assert without_reason(both, ROWS) == []
    assert most_at_once(both) == 3
    unexplained = ROWS | {SECOND: ROWS[SECOND] | {"beside": None}}
    assert without_reason(both, unexplained) == [f"{SECOND} was beside {FIRST}"]
    assert without_reason(readings({FIRST: "RUNNING", THIRD: "PENDING"}), ROWS) == [f"{THIRD} was beside {FIRST}"]
    assert without_reason(readings({FIRST: "RUNNING"}, {THIRD: "RUNNING"}), ROWS) == []


def test_successors_are_counted_by_their_reason() -> None:
    seen = readings({FIRST: "RUNNING", SECOND: "PENDING", OTHER: "RUNNING"}, {SECOND: "RUNNING", OTHER: "RUNNING"})
    assert most_beside(seen, ROWS, "TimeLimit") == 1
    assert most_beside(seen, ROWS, "Changed") == 0
    assert most_beside(seen[1:], ROWS, "TimeLimit") == 0


def test_only_what_both_hold_at_once_counts_of_a_hand_over() -> None:
    seen = readings(
        {FIRST: "RUNNING", SECOND: "PENDING"},
        {FIRST: "RUNNING", SECOND: "RUNNING"},
        {FIRST: "COMPLETING", SECOND: "RUNNING"},
        {SECOND: "RUNNING"},
    )
    (found,) = hand_overs(seen, ROWS.values())
    assert (found.token, found.reason, found.done_at) == (SECOND, "TimeLimit", 12.0)
    assert (found.start_up, found.drain, found.together) == (3.0, 4.0, 1.0)

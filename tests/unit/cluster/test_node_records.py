"""What is remembered of nodes: read once in a term, kept by passes, forgotten after a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.cluster.node_records import NodeRecords
from controller.core.attempt import Attempt
from controller.core.bad_nodes import WINDOW

NOW = 10_000.0


class Rows:
    """What the database holds, and the time."""

    def __init__(self, *attempts: Attempt) -> None:
        self.attempts = attempts
        self.asked: list[float] = []
        self.at = NOW

    def now(self) -> float:
        return self.at

    async def placed(self, since: float) -> Sequence[Attempt]:
        self.asked.append(since)
        return self.attempts


def failed(number: int, **changes: Any) -> Attempt:
    values = {
        "token": f"t{number}", "service_id": "s", "replica": 0, "incarnation": number, "generation": 1,
        "digest": f"d{number}", "intent_at": NOW - 100, "node": "n1", "closed_at": NOW - 50 + number,
        "outcome": "EngineExited", "gpus": 1,
    }  # fmt: skip
    return Attempt(**(values | changes))


def bad(records: NodeRecords, *, has_gpus: bool = True) -> list[str]:
    return [node.name for node in records.bad(has_gpus=has_gpus, nodes=4)]


def records_of(rows: Rows) -> NodeRecords:
    return NodeRecords(rows, rows)  # type: ignore[arg-type]


async def test_a_term_begins_with_what_the_rows_tell_and_reads_them_once() -> None:
    rows = Rows(failed(1), failed(2), failed(3))
    records = records_of(rows)
    assert bad(records) == []
    await records.learn()
    await records.learn()
    assert rows.asked == [NOW - WINDOW]
    assert (bad(records), bad(records, has_gpus=False)) == (["n1"], [])


async def test_passes_keep_it_and_count_an_attempt_once() -> None:
    records = records_of(Rows())
    records.update([failed(1), failed(1), failed(2), failed(1)])
    assert bad(records) == []
    records.update([failed(3)])
    assert bad(records) == ["n1"]
    records.update([failed(4, outcome=None, closed_at=None, ready_at=NOW)])
    assert bad(records) == []


async def test_a_launch_that_was_ready_elsewhere_is_not_to_blame() -> None:
    records = records_of(Rows())
    records.update(failed(number, digest="same") for number in (1, 2, 3))
    assert bad(records) == []
    records.update([failed(4, digest="same", node="n2", outcome=None, closed_at=None, ready_at=NOW - 500)])
    assert bad(records) == ["n1"]


async def test_where_slurm_tells_of_no_nodes_those_that_were_met_count() -> None:
    records = records_of(Rows())
    records.update([failed(1), failed(2), failed(3)])
    assert records.bad(has_gpus=True, nodes=0) == ()
    records.update([failed(4, node="n2", outcome=None, closed_at=None, ready_at=NOW)])
    assert [node.name for node in records.bad(has_gpus=True, nodes=0)] == ["n1"]


async def test_it_is_forgotten_after_a_while() -> None:
    rows = Rows()
    records = records_of(rows)
    records.update([failed(1), failed(2), failed(3)])
    rows.at += WINDOW
    assert bad(records) == []

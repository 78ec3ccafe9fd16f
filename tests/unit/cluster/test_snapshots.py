import itertools
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract.job.token import Token
from api.contract.launch import Submission
from controller.cluster.maintenances import MAINTENANCE_AGAIN
from controller.cluster.readings import MASS, Vanished, build_snapshot, find_in_doubt, find_vanished, known_as_ended
from controller.cluster.snapshots import (
    ASK_AGAIN_MOST,
    HIDDEN_AGAIN,
    NODES_AGAIN,
    WITHOUT_ACCOUNTING,
    SnapshotTaker,
)
from controller.core.attempt import Sent
from controller.core.jobs import Job, JobPhase, Maintenance, Snapshot
from controller.ports import Listing, Tracked, UnreadableError


def job(job_id: int, token: str, phase: JobPhase = JobPhase.RUNNING, node: str | None = "n1") -> Job:
    return Job(job_id=job_id, token=token, phase=phase, state=phase.name, node=node)


def track(job_id: int | None, token: str, *, is_open: bool = True) -> Tracked:
    return Tracked(service_id="s", token=token, job_id=job_id, open=is_open, started=True)


def listing(*jobs: Job) -> Listing:
    return Listing(jobs=jobs)


def ended(job_id: int, token: str) -> Job:
    return job(job_id, token, JobPhase.ENDED)


def test_vanished_is_what_is_not_listed_under_both_id_and_token() -> None:
    seen = listing(job(1, "a"), job(2, "x"), job(9, "c"))
    tracked = [track(1, "a"), track(2, "b"), track(3, "c"), track(None, "d"), track(4, "e", is_open=False)]
    assert find_vanished(seen, tracked) == {Vanished(2, "b"), Vanished(3, "c"), Vanished(4, "e")}


def test_accounting_must_know_the_same_token_and_its_end() -> None:
    asked = [Vanished(1, "a"), Vanished(2, "b"), Vanished(3, "c"), Vanished(4, "d")]
    answers = {1: ended(1, "a"), 2: ended(2, "recycled"), 3: job(3, "c")}
    assert known_as_ended(asked, answers) == {Vanished(1, "a"): answers[1]}


@pytest.mark.parametrize(
    ("live", "lost", "doubted"),
    [
        (5, 5, True),
        (9, 5, True),
        (10, 5, False),
        (11, 6, True),
        (4, 4, False),
        (1, 1, False),
        (100, 50, False),
        (100, 51, True),
    ],
)
def test_more_than_half_and_at_least_five(live: int, lost: int, doubted: bool) -> None:
    tracked = [track(i, f"t{i}") for i in range(live)]
    seen = listing(*(job(i, f"t{i}") for i in range(lost, live)))
    expected = {f"t{i}" for i in range(lost)} if doubted else set()
    assert find_in_doubt(seen, tracked, ()) == expected


def test_what_accounting_knows_or_never_had_a_job_is_not_in_doubt() -> None:
    tracked = [track(i, f"t{i}") for i in range(6)] + [track(None, "new")] + [track(90, "closed", is_open=False)]
    assert find_in_doubt(listing(), tracked, ()) == {f"t{i}" for i in range(6)}
    assert find_in_doubt(listing(), tracked, [Vanished(i, f"t{i}") for i in range(2)]) == set()


def test_a_token_under_another_id_has_not_vanished() -> None:
    tracked = [track(i, f"t{i}") for i in range(5)]
    assert find_in_doubt(listing(job(77, "t0")), tracked, ()) == set()


@given(
    st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30))
)
def test_doubt_is_all_or_nothing(known: set[int], closed: set[int], seen: set[int], over: set[int]) -> None:
    tracked = [track(i, f"t{i}", is_open=i not in closed) for i in known]
    doubted = find_in_doubt(listing(*(job(i, f"t{i}") for i in seen)), tracked, [Vanished(i, f"t{i}") for i in over])
    live = known - closed
    lost = live - seen - over
    if doubted:
        assert doubted == {f"t{i}" for i in lost}
        assert len(lost) >= MASS
        assert len(lost) > len(live) / 2
    else:
        assert len(lost) < MASS or len(lost) <= len(live) / 2


def test_a_snapshot_puts_it_all_together() -> None:
    seen = listing(job(2, "a"), job(1, "a", JobPhase.PENDING), job(5, "stranger-of-ours"))
    tracked = [track(1, "a"), track(3, "b"), track(4, "c")]
    over = {Vanished(3, "b"): ended(3, "b"), Vanished(8, "old"): ended(8, "old")}
    snapshot = build_snapshot(
        sequence=7,
        began_at=100.0,
        listing=seen,
        tracked=tracked,
        vanished=find_vanished(seen, tracked),
        ended=over,
        addresses={"n1": "10.0.0.1"},
    )
    assert snapshot == Snapshot(
        sequence=7,
        began_at=100.0,
        jobs={"a": (seen.jobs[1], seen.jobs[0]), "b": (over[Vanished(3, "b")],), "stranger-of-ours": (seen.jobs[2],)},
        missing=frozenset({"c"}),
        addresses={"n1": "10.0.0.1"},
    )


class World:
    """A scheduler, a clock and a database, all as the test says."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.jobs: list[Job] = []
        self.rows: list[Tracked] = []
        self.accounting: Mapping[int, Job] | UnreadableError | None = {}
        self.listing_fails: UnreadableError | None = None
        self.addresses_fail = ""
        self.leaving_nodes: Mapping[str, str] = {}
        self.leaving_fails = ""
        self.looked_at: list[list[str]] = []
        """The nodes whose states were asked for."""
        self.reserved: tuple[Maintenance, ...] = ()
        self.reservations_fail = False
        self.listing_takes = 0.0
        self.calls: list[object] = []
        self._sequence = 0
        self.snapshots = SnapshotTaker(self, self.tracked, self)

    def now(self) -> float:
        return self.time

    def tracked(self) -> Collection[Tracked]:
        self.calls.append("tracked")
        return self.rows

    async def list_jobs(self) -> Listing:
        self.calls.append("squeue")
        self.time += self.listing_takes
        if self.listing_fails:
            raise self.listing_fails
        return listing(*self.jobs)

    async def ended_jobs(self, job_ids: Collection[int]) -> Mapping[int, Job] | None:
        self.calls.append(("sacct", frozenset(job_ids)))
        if isinstance(self.accounting, UnreadableError):
            raise self.accounting
        return self.accounting

    async def addresses(self) -> Mapping[str, str]:
        self.calls.append("sinfo")
        if self.addresses_fail:
            raise UnreadableError(self.addresses_fail, "no answer")
        return {"n1": f"10.0.0.{self.calls.count('sinfo')}"}

    async def leaving(self, nodes: Collection[str]) -> Mapping[str, str]:
        self.looked_at.append(sorted(nodes))
        if self.leaving_fails:
            raise UnreadableError(self.leaving_fails, "no answer")
        return self.leaving_nodes

    async def maintenances(self) -> tuple[Maintenance, ...]:
        self.calls.append("scontrol")
        if self.reservations_fail:
            raise UnreadableError("SlurmTimeout", "no answer")
        return self.reserved

    async def shorten(self, token: str, minutes: int) -> None:
        raise NotImplementedError

    async def submit(self, submission: Submission) -> Sent:
        raise NotImplementedError

    async def cancel(self, token: str, job_id: int) -> None:
        raise NotImplementedError

    def next_sequence(self) -> int:
        self.calls.append("sequence")
        self._sequence += 1
        return self._sequence

    async def take(self, after: float = 0.0) -> tuple[Snapshot, list[object]]:
        self.time += after
        self.calls.clear()
        return await self.snapshots.take(), [call for call in self.calls if call not in ("sequence", "tracked")]


async def test_the_sequence_and_the_database_come_before_the_listing() -> None:
    world = World()
    snapshot, _ = await world.take()
    assert world.calls == ["sequence", "tracked", "squeue", "sinfo"]
    assert (snapshot.sequence, snapshot.began_at) == (1, 1000.0)
    assert world.snapshots.latest is snapshot


async def test_the_tokens_of_a_service_are_those_of_the_latest_snapshot() -> None:
    world = World()
    assert world.snapshots.tokens_of("one") == ()
    world.jobs = [job(1, "af-x-one-0-1"), job(2, "af-x-one_more-0-1"), job(3, "af-x-one-1-4"), job(4, "odd")]
    await world.take()
    assert list(world.snapshots.tokens_of("one")) == [Token("x", "one", 0, 1), Token("x", "one", 1, 4)]
    world.jobs = world.jobs[1:]
    await world.take()
    assert list(world.snapshots.tokens_of("one")) == [Token("x", "one", 1, 4)]


async def test_a_quiet_take_is_one_squeue() -> None:
    world = World()
    world.jobs, world.rows = [job(1, "a")], [track(1, "a")]
    await world.take()
    assert (await world.take(2))[1] == ["squeue"]


async def test_nodes_of_running_jobs_are_looked_at_every_half_minute() -> None:
    world = World()
    world.jobs = [job(1, "a"), job(2, "b", node="n2"), job(3, "c", JobPhase.PENDING, node=None)]
    await world.take()
    world.leaving_nodes = {"n2": "draining"}
    await world.take(NODES_AGAIN - 1)
    assert world.looked_at == [["n1", "n2"]]
    snapshot, _ = await world.take(1)
    assert world.looked_at == [["n1", "n2"]] * 2
    assert [snapshot.jobs[token][0].node_leaves for token in "abc"] == ["", "draining", ""]
    assert (await world.take(1))[0].jobs["b"][0].node_leaves == "draining"


async def test_nobody_asks_for_nodes_while_nothing_runs() -> None:
    world = World()
    world.jobs = [job(1, "a", JobPhase.PENDING, node=None)]
    await world.take()
    assert world.looked_at == []


async def test_reservations_are_read_while_a_job_waits_for_a_maintenance_every_half_minute() -> None:
    world = World()
    world.reserved = (Maintenance(begins_at=5000.0, ends_at=6000.0),)
    waits = job(1, "a", JobPhase.PENDING, node=None)
    world.jobs = [waits]
    await world.take()
    assert (await world.take(1))[1] == ["squeue"]
    world.jobs = [replace(waits, awaits_maintenance=True)]
    assert await world.take(1) == (world.snapshots.latest, ["squeue", "scontrol"])
    assert world.snapshots.latest is not None
    assert world.snapshots.latest.maintenances == world.reserved
    assert (await world.take(MAINTENANCE_AGAIN - 1))[1] == ["squeue"]
    world.reservations_fail, known = True, world.reserved
    snapshot, calls = await world.take(1)
    assert (snapshot.maintenances, calls) == (known, ["squeue", "scontrol"])
    world.jobs = [waits]
    assert (await world.take(1))[0].maintenances == ()


@pytest.mark.parametrize(("reason", "pause"), [("SlurmTimeout", NODES_AGAIN), ("PermissionDenied", HIDDEN_AGAIN)])
async def test_what_was_known_of_a_node_stands_while_nobody_answers(reason: str, pause: float) -> None:
    world = World()
    world.jobs, world.leaving_nodes = [job(1, "a")], {"n1": "drained"}
    await world.take()
    world.leaving_fails = reason
    assert (await world.take(NODES_AGAIN))[0].jobs["a"][0].node_leaves == "drained"
    world.leaving_fails, world.leaving_nodes = "", {}
    assert (await world.take(pause - 1))[0].jobs["a"][0].node_leaves == "drained"
    assert (await world.take(1))[0].jobs["a"][0].node_leaves == ""


async def test_addresses_are_read_again_when_a_job_gets_a_node_and_after_a_failure() -> None:
    world = World()
    world.addresses_fail = "SlurmTimeout"
    assert (await world.take())[0].addresses == {}
    world.addresses_fail = ""
    assert (await world.take())[0].addresses == {"n1": "10.0.0.1"}
    world.jobs = [job(1, "a", JobPhase.PENDING, node=None)]
    assert (await world.take())[1] == ["squeue"]
    world.jobs = [job(1, "a")]
    assert (await world.take())[1] == ["squeue", "sinfo"]
    assert (await world.take())[1] == ["squeue"]
    world.jobs = [job(1, "a", JobPhase.ENDED)]
    assert (await world.take())[1] == ["squeue"]


async def test_accounting_is_asked_once_about_what_it_knows() -> None:
    world = World()
    world.rows = [track(3, "b")]
    world.accounting = {3: ended(3, "b")}
    snapshot, calls = await world.take()
    assert ("sacct", frozenset({3})) in calls
    assert snapshot.jobs == {"b": (ended(3, "b"),)}
    assert snapshot.missing == frozenset()
    snapshot, calls = await world.take(100)
    assert calls == ["squeue"]
    assert snapshot.jobs == {"b": (ended(3, "b"),)}
    world.rows = []
    assert (await world.take())[0].jobs == {}


async def test_accounting_is_asked_ever_less_often_about_what_it_does_not_know() -> None:
    world = World()
    world.rows = [track(3, "b")]
    asked_at = []
    for _ in range(300):
        snapshot, calls = await world.take(1)
        assert snapshot.missing == {"b"}
        if len(calls) > 1 and calls[1] != "sinfo":
            asked_at.append(world.time)
    pauses = [after - before for before, after in itertools.pairwise(asked_at)]
    assert pauses[:5] == [2, 4, 8, 16, 32]
    assert set(pauses[5:]) == {ASK_AGAIN_MOST}
    world.rows.append(track(4, "c"))
    assert ("sacct", frozenset({4})) in (await world.take())[1]  # a new one does not wait for that


async def test_without_accounting_the_vanished_are_missing_and_nobody_is_asked() -> None:
    world = World()
    world.rows, world.accounting = [track(3, "b")], None
    assert (await world.take())[0].missing == {"b"}
    assert (await world.take(100))[1] == ["squeue"]
    assert len((await world.take(WITHOUT_ACCOUNTING))[1]) == 2


async def test_an_accounting_that_is_down_does_not_hinder_the_snapshot() -> None:
    world = World()
    world.rows, world.accounting = [track(3, "b")], UnreadableError("AccountingDown", "no")
    assert (await world.take())[0].missing == {"b"}
    assert world.snapshots.failure is None
    assert (await world.take(1))[0].accounting_trouble == "no", "it was not asked again"
    world.accounting = {3: ended(3, "b")}
    snapshot, _ = await world.take(10)
    assert (snapshot.missing, snapshot.accounting_trouble) == (frozenset(), "")


async def test_a_mass_vanishing_is_in_doubt_until_accounting_speaks() -> None:
    world = World()
    world.rows = [track(i, f"t{i}") for i in range(6)]
    world.jobs = [job(i, f"t{i}") for i in range(6)]
    assert (await world.take())[0].in_doubt == frozenset()
    world.jobs = []
    assert (await world.take(2))[0].in_doubt == {f"t{i}" for i in range(6)}
    world.accounting = {i: ended(i, f"t{i}") for i in range(6)}
    snapshot, _ = await world.take(2)
    assert snapshot.in_doubt == frozenset()
    assert len(snapshot.jobs) == 6


async def test_a_site_that_hides_its_nodes_is_not_asked_at_each_reading() -> None:
    world = World()
    world.jobs = [job(1, "t1")]
    world.addresses_fail = "PermissionDenied"
    assert (await world.take())[1] == ["squeue", "sinfo"]
    for _ in range(5):
        snapshot, calls = await world.take(2)
        assert (snapshot.addresses, calls) == ({}, ["squeue"])
    assert (await world.take(HIDDEN_AGAIN))[1] == ["squeue", "sinfo"]


async def test_a_failure_lasts_since_the_reading_began_that_met_it() -> None:
    world = World()
    world.listing_fails = UnreadableError("SlurmUnreachable", "down")
    world.listing_takes = 10.0
    with pytest.raises(UnreadableError):
        await world.take(5)
    assert world.snapshots.failure is not None
    assert world.snapshots.failure.since == 1005.0


async def test_a_failed_reading_is_no_snapshot() -> None:
    world = World()
    first, _ = await world.take()
    world.listing_fails = UnreadableError("SlurmUnreachable", "down")
    for _ in range(2):
        with pytest.raises(UnreadableError):
            await world.take(5)
    failure = world.snapshots.failure
    assert failure is not None
    assert (failure.since, failure.reason, failure.message) == (1005.0, "SlurmUnreachable", "down")
    assert world.snapshots.latest is first
    world.listing_fails = None
    again, _ = await world.take()
    assert world.snapshots.failure is None
    assert again.sequence == 4

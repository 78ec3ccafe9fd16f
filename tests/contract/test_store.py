"""The controller's store: what is written is read again, nothing is written after the term, nothing twice."""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from backends import Backend
from sqlalchemy.exc import OperationalError

import controller.store
from api.contract.database import Database
from api.contract.job.words import Lane
from api.contract.recipes.book import Library
from api.contract.settings import SlurmSettings
from api.contract.status import Condition, Truth
from controller.core.attempt import Attempt, SendOutcome, Sent
from controller.core.lead import Way
from controller.core.plan import Plan, Submit
from controller.core.published import Endpoint, Event, Status
from controller.lease import Lease, SqlLeaseRecords
from controller.ports import DeposedError, Record, Term, Tracked
from controller.store import SqlStore, installation_id
from controller.wanted import Wanted
from tests.contract.grounds import RECIPE, attempt


class FixedClock:
    @staticmethod
    def now() -> float:
        return 1000.0


FULL = attempt(
    "af-x-one-2-7",
    replica=2,
    incarnation=7,
    lane=Lane.B,
    beside="HandOver",
    door="0123456789abcdef",
    generation=4,
    digest="0123456789abcdef",
    gpus=4,
    failures=3,
    faults=2,
    intent_at=1700000000.123456,
    job_id=2**40,
    submitted_at=1700000001.1,
    absent_since=1700000001.2,
    claimed_at=1700000001.3,
    started_at=1700000001.4,
    node="node-1",
    host="fd00::1",
    launched_at=1700000001.5,
    port=65535,
    serving_at=1700000001.6,
    ready_at=1700000001.7,
    unready_since=1700000001.8,
    draining_since=1700000001.85,
    draining_feed=5_000_000_000,
    shut_at=1700000001.87,
    ends_at=1700000001.9,
    closed_at=1700000002.1,
    outcome="EngineExited",
    message="It said: „Ende“ 🙂\n\ttwice 'quoted' \\ and more",
    exit_code=-9,
    gone_at=1700000002.2,
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipes" / "simple" / "tool.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(RECIPE % "first")
    return path


@pytest.fixture
async def store(database: Database, backend: Backend, recipe: Path) -> SqlStore:
    await backend.run("INSERT INTO services (id, recipe_name) VALUES ('one', 'simple/tool')")
    library = Library((recipe.parents[1],), {})
    return SqlStore(database, Wanted("x", library, SlurmSettings()))


@pytest.fixture
async def term(database: Database) -> Term:
    term = await Lease(SqlLeaseRecords(database), FixedClock(), 15).acquire()
    assert term is not None
    return term


async def load(store: SqlStore) -> Record:
    record = await store.load("one")
    assert record is not None
    return record


async def carry_out(store: SqlStore, term: Term, plan: Plan, now: float = 1.0) -> Record:
    """Record a plan over what is there, and return what is there then."""
    await store.record(term, await load(store), plan, now)
    return await load(store)


@pytest.mark.parametrize("value", ["[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900], ids=["lists", "objects"])
async def test_a_config_that_sql_nests_too_deeply_is_a_refusal(store: SqlStore, backend: Backend, value: str) -> None:
    await backend.run(
        f"INSERT INTO services (id, recipe_name, config) VALUES ('two', 'simple/tool', '{{\"a\": {value}}}')"
    )
    found = await store.load("two")
    assert found is not None
    assert found.desired.refusal is not None
    assert "Take levels out" in found.desired.refusal.message


async def test_a_number_without_end_in_a_config_holds_nothing_up(store: SqlStore, backend: Backend) -> None:
    config = '{"a": ' + "9" * 5000 + "}"
    await backend.run(f"INSERT INTO services (id, recipe_name, config) VALUES ('two', 'simple/tool', '{config}')")
    assert await store.load("two") is not None


class TestRoundTrips:
    def test_the_full_attempt_leaves_no_field_out(self) -> None:
        least = attempt()
        same = [f.name for f in fields(Attempt) if getattr(FULL, f.name) == getattr(least, f.name)]
        assert same == ["service_id"]

    async def test_an_attempt_with_every_field(self, store: SqlStore, term: Term) -> None:
        assert (await carry_out(store, term, Plan(attempts=(FULL,)))).attempts == (FULL,)

    async def test_an_attempt_with_as_few_as_can_be(self, store: SqlStore, term: Term) -> None:
        assert (await carry_out(store, term, Plan(attempts=(attempt(),)))).attempts == (attempt(),)

    async def test_an_attempt_is_replaced_in_full(self, store: SqlStore, term: Term) -> None:
        same_slot: dict[str, Any] = {"token": FULL.token, "replica": 2, "incarnation": 7}
        await carry_out(store, term, Plan(attempts=(attempt(**same_slot),)))
        assert (await carry_out(store, term, Plan(attempts=(FULL,)))).attempts == (FULL,)
        bare = attempt(**same_slot, closed_at=FULL.closed_at, outcome=FULL.outcome)
        assert (await carry_out(store, term, Plan(attempts=(bare,)))).attempts == (bare,)

    async def test_endpoints(self, store: SqlStore, term: Term, backend: Backend) -> None:
        first = Endpoint(token="t1", replica=0, models=("m", "other/m"), host="10.0.0.1", port=8000, ready=True)
        second = Endpoint(token="t2", replica=1, models=(), host="fd00::1", port=1, door="k1", ready=False)
        assert (await carry_out(store, term, Plan(endpoints=(first, second)))).endpoints == (first, second)
        changed = replace(second, ready=True)
        assert (await carry_out(store, term, Plan(endpoints=(changed,)))).endpoints == (changed,)
        assert (await carry_out(store, term, Plan(events=(Event(reason="R", message=""),)))).endpoints == (changed,)
        assert (await carry_out(store, term, Plan(endpoints=()))).endpoints == ()

    async def test_endpoints_that_stay_are_not_written(self, store: SqlStore, term: Term, backend: Backend) -> None:
        first = Endpoint(token="t1", replica=0, models=("m",), host="h", port=1, ready=True)
        second = replace(first, token="t2", replica=1)
        await carry_out(store, term, Plan(endpoints=(first,)))
        before = await backend.one("SELECT change_seq FROM endpoints WHERE token = 't1'")
        await carry_out(store, term, Plan(endpoints=(first, second)))
        assert await backend.one("SELECT change_seq FROM endpoints WHERE token = 't1'") == before

    async def test_status(self, store: SqlStore, term: Term) -> None:
        assert (await load(store)).status == Status()
        conditions = tuple(
            Condition(type=f"T{n}", status=truth, reason="R", message="why „so“", since=n + 0.5, generation=n)
            for n, truth in enumerate(Truth)
        )
        status = Status(observed_generation=1, replicas=3, target=2, ready_replicas=2, conditions=conditions)
        assert (await carry_out(store, term, Plan(status=status))).status == status
        again = replace(status, ready_replicas=3, conditions=conditions[:1])
        assert (await carry_out(store, term, Plan(status=again))).status == again

    async def test_status_that_did_not_change_is_not_written(
        self, store: SqlStore, term: Term, backend: Backend
    ) -> None:
        await carry_out(store, term, Plan(status=Status(observed_generation=1)), now=1.0)
        await carry_out(store, term, Plan(attempts=(attempt(),)), now=2.0)
        assert await backend.one("SELECT updated_at FROM service_status") == (1.0,)

    async def test_the_controllers_writes_are_no_change_by_people(
        self, store: SqlStore, term: Term, backend: Backend
    ) -> None:
        position, keys = await store.changed(0)
        assert keys == ("one",)
        endpoint = Endpoint(token="t1", replica=0, models=(), host="h", port=1, ready=True)
        await carry_out(
            store,
            term,
            Plan(
                attempts=(attempt(),),
                endpoints=(endpoint,),
                status=Status(observed_generation=1),
                events=(Event(reason="R", message=""),),
            ),
        )
        assert (await store.changed(position))[1] == ()
        assert (await load(store)).desired.generation == 1


class TestEvents:
    async def test_the_same_line_again_only_counts(self, store: SqlStore, term: Term, backend: Backend) -> None:
        started, failed = Event(reason="Started", message="m"), Event(reason="Failed", message="m", warning=True)
        for now, event in enumerate((started, started, failed, failed, failed, started)):
            await carry_out(store, term, Plan(events=(event,)), now=float(now))
        rows = await backend.run("SELECT type, reason, message, count, first_at, last_at FROM events ORDER BY id")
        assert rows == [
            ("Normal", "Started", "m", 2, 0.0, 1.0),
            ("Warning", "Failed", "m", 3, 2.0, 4.0),
            ("Normal", "Started", "m", 1, 5.0, 5.0),
        ]


FULL_PLAN = Plan(
    attempts=(attempt(),),
    endpoints=(Endpoint(token="t1", replica=0, models=(), host="h", port=1, ready=True),),
    status=Status(observed_generation=1),
    events=(Event(reason="R", message="m"),),
    actions=(Submit(token="af-x-one-0-1"),),
)


class TestFence:
    async def test_an_empty_plan_costs_no_transaction(
        self, store: SqlStore, term: Term, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = await load(store)
        monkeypatch.setattr(database, "write", lambda: pytest.fail("a write"))
        await store.record(term, record, Plan(look_again_at=5.0), 1.0)

    async def test_nobody_takes_over_in_the_middle_of_a_write(
        self, store: SqlStore, term: Term, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The epoch is read inside the transaction that writes: it holds until that is committed."""
        write, writing, go_on = controller.store._write_event, asyncio.Event(), asyncio.Event()

        async def slow(*arguments: Any) -> None:
            writing.set()
            await go_on.wait()
            await write(*arguments)

        monkeypatch.setattr(controller.store, "_write_event", slow)
        recording = asyncio.create_task(store.record(term, await load(store), FULL_PLAN, 1.0))
        await writing.wait()
        other = Database(backend.url)
        try:
            free = Lease(
                SqlLeaseRecords(other), FixedClock(), 0, monotonic=iter(range(1, 99)).__next__
            )  # any holder is too old for it
            taking = asyncio.create_task(self.take_over(free))
            await asyncio.sleep(0.3)
            assert not taking.done()
            go_on.set()
            await recording
            taken = await asyncio.wait_for(taking, 60)
        finally:
            await other.close()
        assert taken.epoch == term.epoch + 1
        with pytest.raises(DeposedError):
            await store.record(term, await load(store), FULL_PLAN, 1.0)
        assert await backend.run("SELECT count(*) FROM events") == [(1,)]

    @staticmethod
    async def take_over(lease: Lease) -> Term:
        while (term := await lease.acquire()) is None:
            pass
        return term


class TestNote:
    @pytest.fixture(autouse=True)
    async def intent(self, store: SqlStore, term: Term) -> None:
        await carry_out(store, term, Plan(attempts=(attempt(),)))

    async def test_what_sbatch_answered_is_kept(self, store: SqlStore, term: Term, backend: Backend) -> None:
        await store.note(term, attempt().token, Sent(outcome=SendOutcome.ACCEPTED, sequence=1, job_id=42), 9.0)
        assert (await load(store)).attempts == (replace(attempt(), job_id=42, submitted_at=9.0),)
        assert await backend.run("SELECT reason, message FROM events") == [("Submitted", "Replica 0: it is job 42.")]

    async def test_a_database_that_is_away_costs_no_more_than_the_note(
        self, store: SqlStore, term: Term, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What else was to be sent in this pass must still be sent."""

        def away() -> None:
            raise OperationalError("BEGIN", {}, Exception("database is locked"))

        monkeypatch.setattr(database, "write", away)
        await store.note(term, attempt().token, Sent(outcome=SendOutcome.ACCEPTED, sequence=1, job_id=42), 9.0)
        assert (await load(store)).attempts == (attempt(),)


async def test_what_is_loaded_is_what_is_left_and_the_newest_of_each_lane(store: SqlStore, term: Term) -> None:
    gone: dict[str, Any] = {"closed_at": 1.0, "outcome": "Stopped", "gone_at": 2.0}
    forgotten = (attempt("a", incarnation=1, **gone), attempt("b", incarnation=2, lane=Lane.B, **gone))
    kept = (
        attempt("c", incarnation=3, lane=Lane.B, **gone),
        attempt("d", incarnation=4, closed_at=1.0, outcome="Stopped"),
        attempt("e", incarnation=5, **gone),
    )
    assert (await carry_out(store, term, Plan(attempts=(*forgotten, *kept)))).attempts == kept


class TestTracked:
    async def test_all_that_are_not_gone(self, store: SqlStore, term: Term) -> None:
        closed: dict[str, Any] = {"closed_at": 1.0, "outcome": "Stopped"}
        attempts = (
            attempt("a", incarnation=1, **closed, gone_at=2.0),
            attempt("b", incarnation=2, **closed, job_id=5, started_at=1.0, ready_at=1.0),
            attempt("c", incarnation=3, job_id=6),
            attempt("d", replica=1, job_id=7, started_at=1.0, ready_at=2.0),
            attempt("e", replica=2, job_id=8, started_at=1.0, ready_at=2.0, unready_since=3.0),
        )
        await carry_out(store, term, Plan(attempts=attempts))
        assert set(await store.tracked()) == {
            Tracked(service_id="one", token="b", job_id=5, open=False, started=True, settled=False),
            Tracked(service_id="one", token="c", job_id=6, open=True, started=False, settled=False),
            Tracked(service_id="one", token="d", job_id=7, open=True, started=True, settled=True),
            Tracked(service_id="one", token="e", job_id=8, open=True, started=True, settled=False),
        }

    async def test_known_tells_closed_from_open_from_never_heard_of(self, store: SqlStore, term: Term) -> None:
        closed: dict[str, Any] = {"closed_at": 1.0, "outcome": "Stopped"}
        many = tuple(
            attempt(f"t{n}", replica=n, **(closed if n % 2 else {}), gone_at=2.0 if n % 4 == 1 else None)
            for n in range(620)
        )
        await carry_out(store, term, Plan(attempts=many))
        asked = [a.token for a in many] + [f"unheard{n}" for n in range(700)]
        assert await store.known(asked) == {a.token: not a.open for a in many}
        assert await store.known(()) == {}


class TestWanted:
    async def test_a_row_is_resolved(self, store: SqlStore, backend: Backend) -> None:
        config = json.dumps({"word": "„bye“"})
        await backend.run(f"UPDATE services SET config = '{config}', replicas = 3")
        desired = (await load(store)).desired
        assert desired.spec is not None
        assert desired.spec.command == ("tool", "„bye“", "first")
        assert (desired.running, desired.replicas, desired.generation, desired.refusal) == (True, 3, 2, None)
        assert (desired.name, desired.service_id, desired.installation) == ("tool-one", "one", "x")

    async def test_a_generation_is_resolved_once(
        self, store: SqlStore, term: Term, backend: Backend, recipe: Path
    ) -> None:
        """A recipe that changes on disk does not touch running services; the next generation has it."""
        first = (await carry_out(store, term, Plan(status=Status(observed_generation=1)))).desired
        recipe.write_text(RECIPE % "second, and longer")
        again = (await load(store)).desired
        assert (again.spec, again.digest) == (first.spec, first.digest)
        await backend.run("UPDATE services SET replicas = 2")
        changed = (await load(store)).desired
        assert changed.spec is not None
        assert changed.spec.command[-1] == "second, and longer"
        assert changed.digest != first.digest

    async def test_a_recipe_that_is_gone_does_not_touch_running_services(
        self, store: SqlStore, term: Term, recipe: Path
    ) -> None:
        first = (await carry_out(store, term, Plan(status=Status(observed_generation=1)))).desired
        recipe.unlink()
        assert (await load(store)).desired == first

    @pytest.mark.parametrize(
        ("change", "reason", "message"),
        [
            ("recipe_name = 'nowhere'", "BadRecipe", "There is no recipe 'nowhere'. There are: simple/tool."),
            ("""config = '{"word": 7}'""", "BadConfig", "word: must be text."),
        ],
    )
    async def test_what_can_not_be_resolved_is_refused(
        self, store: SqlStore, backend: Backend, change: str, reason: str, message: str
    ) -> None:
        await backend.run(f"UPDATE services SET {change}")
        desired = (await load(store)).desired
        assert desired.spec is None
        assert desired.refusal is not None
        assert (desired.refusal.reason, desired.refusal.message) == (reason, message)

    async def test_a_refusal_is_looked_at_again(self, store: SqlStore, term: Term, recipe: Path) -> None:
        text = recipe.read_text()
        recipe.write_text("broken: [")
        refused = await carry_out(store, term, Plan(status=Status(observed_generation=1)))
        assert refused.desired.refusal is not None
        assert refused.desired.refusal.reason == "BadRecipe"
        recipe.write_text(text)
        assert (await load(store)).desired.refusal is None

    async def test_a_stored_spec_that_can_not_be_read_is_resolved_anew(
        self, store: SqlStore, term: Term, backend: Backend
    ) -> None:
        await carry_out(store, term, Plan(status=Status(observed_generation=1)))
        await backend.run("""UPDATE service_status SET spec = '{"of": "an older version"}'""")
        refusal = (await load(store)).desired.refusal
        assert refusal is not None
        assert "can't be read" in refusal.message
        # The refusal is written, and with it goes what could not be read.
        await carry_out(store, term, Plan(status=Status(observed_generation=1)))
        assert (await load(store)).desired.refusal is None


async def test_the_installation_has_an_id(backend: Backend, database: Database) -> None:
    assert await installation_id(database) == (await backend.one("SELECT id FROM installation"))[0]


async def test_what_began_tells_how_long_it_waited_and_what_it_was_opened_beside(
    store: SqlStore, term: Term, backend: Backend
) -> None:
    first = attempt("af-x-one-0-1", digest="d1", intent_at=10.0, started_at=20.0, ready_at=25.0)
    over = replace(first, closed_at=40.0, outcome="Superseded", gone_at=50.0)
    second = attempt(
        "af-x-one-0-2", incarnation=2, lane=Lane.B, beside="TimeLimit", digest="d2", intent_at=30.0, started_at=35.0
    )
    third = attempt("af-x-one-1-2", replica=1, incarnation=2, digest="d1", intent_at=40.0, started_at=45.0)
    queued = attempt("af-x-one-2-1", replica=2, digest="d1", intent_at=50.0)
    lone = attempt("af-x-one-1-1", replica=1, digest="d1", intent_at=5.0, started_at=6.0, closed_at=7.0, outcome="O")
    await carry_out(store, term, Plan(attempts=(over, second, lone, third, queued)))
    assert await store.ways(9.0) == [
        ("d1", Way(intent_at=40.0, started_at=45.0)),
        ("d2", Way(intent_at=30.0, started_at=35.0, forerunner_closed_at=40.0, forerunner_gone_at=50.0)),
        ("d1", Way(intent_at=10.0, started_at=20.0, ready_at=25.0)),
    ]

"""The controller's store: what is written is read again, nothing is written after the term, nothing twice."""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from backends import Backend
from sqlalchemy.exc import IntegrityError, OperationalError

import controller.store
from api.contract.database import Database
from api.contract.recipes.book import Library
from api.contract.settings import SlurmSettings
from api.contract.status import Condition, Truth
from controller.core.model import (
    Attempt,
    Cancel,
    Endpoint,
    Event,
    Plan,
    Revoke,
    SendOutcome,
    Sent,
    Status,
    Submit,
)
from controller.lease import Lease, SqlLeaseRecords
from controller.ports import DeposedError, Record, Term, Tracked
from controller.store import SqlStore, installation_id
from controller.wanted import Wanted

RECIPE = """
name: tool
category: simple
description: For tests.
version: 1.0.0
image: /images/tool.sif
program: [tool]
command: ["{word}", "%s"]
parameters:
  word: {type: string, default: hello, description: A word.}
"""
TABLES = ("attempts", "endpoints", "service_status", "events")


class FixedClock:
    @staticmethod
    def now() -> float:
        return 1000.0


def attempt(token: str = "af-x-one-0-1", **values: Any) -> Attempt:
    given: dict[str, Any] = {
        "service_id": "one",
        "replica": 0,
        "incarnation": 1,
        "generation": 1,
        "digest": "d",
        "intent_at": 5.0,
    }
    return Attempt(token=token, **({"intent_at": 5.0} | given | values))


FULL = attempt(
    "af-x-one-2-7",
    replica=2,
    incarnation=7,
    lane="successor",
    generation=4,
    digest="0123456789abcdef",
    failures=3,
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


async def everything(backend: Backend) -> list[Any]:
    return [sorted(await backend.run(f"SELECT * FROM {table}"), key=str) for table in TABLES]


async def depose(backend: Backend) -> None:
    await backend.run("UPDATE leases SET epoch = epoch + 1")


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

    async def test_attempts_that_matter_are_loaded(self, store: SqlStore, term: Term) -> None:
        """Those that are not gone, and of each replica the newest, even if it is."""
        gone: dict[str, Any] = {"closed_at": 1.0, "outcome": "Stopped", "gone_at": 2.0}
        old = attempt("a", incarnation=1, **gone)
        newest = attempt("b", incarnation=2, **gone)
        closed = attempt("c", replica=1, incarnation=1, closed_at=1.0, outcome="Stopped")
        fresh = attempt("d", replica=1, incarnation=2)
        record = await carry_out(store, term, Plan(attempts=(fresh, newest, closed, old)))
        assert record.attempts == (newest, closed, fresh)

    async def test_endpoints(self, store: SqlStore, term: Term, backend: Backend) -> None:
        first = Endpoint(token="t1", replica=0, models=("m", "other/m"), host="10.0.0.1", port=8000, ready=True)
        second = Endpoint(token="t2", replica=1, models=(), host="fd00::1", port=1, ready=False)
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
        status = Status(observed_generation=1, ready_replicas=2, conditions=conditions)
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

    async def test_those_of_one_plan_keep_their_order(self, store: SqlStore, term: Term, backend: Backend) -> None:
        lines = [Event(reason="R", message=text) for text in ("a", "b", "b", "a")]
        await carry_out(store, term, Plan(events=tuple(lines)))
        rows = await backend.run("SELECT message, count FROM events ORDER BY id")
        assert rows == [("a", 1), ("b", 2), ("a", 1)]

    async def test_services_do_not_mix(self, store: SqlStore, term: Term, backend: Backend) -> None:
        await backend.run("INSERT INTO services (id, recipe_name) VALUES ('two', 'simple/tool')")
        other = await store.load("two")
        assert other is not None
        event = Event(reason="R", message="m")
        await carry_out(store, term, Plan(events=(event,)))
        await store.record(term, other, Plan(events=(event,)), 1.0)
        await carry_out(store, term, Plan(events=(event,)))
        assert await backend.run("SELECT service_id, count FROM events ORDER BY id") == [("one", 2), ("two", 1)]


FULL_PLAN = Plan(
    attempts=(attempt(),),
    endpoints=(Endpoint(token="t1", replica=0, models=(), host="h", port=1, ready=True),),
    status=Status(observed_generation=1),
    events=(Event(reason="R", message="m"),),
    actions=(Submit(token="af-x-one-0-1"),),
)


class TestFence:
    async def test_a_deposed_term_writes_nothing(self, store: SqlStore, term: Term, backend: Backend) -> None:
        record, before = await load(store), await everything(backend)
        await depose(backend)
        with pytest.raises(DeposedError):
            await store.record(term, record, FULL_PLAN, 1.0)
        assert await everything(backend) == before

    async def test_nor_does_one_that_nobody_holds(self, store: SqlStore, term: Term, backend: Backend) -> None:
        await backend.run("UPDATE leases SET holder = NULL")
        with pytest.raises(DeposedError):
            await store.record(term, await load(store), FULL_PLAN, 1.0)

    async def test_nor_one_that_was_never_given(self, store: SqlStore) -> None:
        with pytest.raises(DeposedError):
            await store.record(Term(epoch=1, began_at=0), await load(store), FULL_PLAN, 1.0)

    @pytest.mark.parametrize("action", [Cancel(token="t", job_id=1), Revoke(token="t")])
    async def test_nor_may_it_act(self, store: SqlStore, term: Term, backend: Backend, action: Any) -> None:
        await store.record(term, await load(store), Plan(actions=(action,)), 1.0)
        await depose(backend)
        with pytest.raises(DeposedError):
            await store.record(term, await load(store), Plan(actions=(action,)), 1.0)

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
            taken = await asyncio.wait_for(taking, 5)
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

    async def test_a_twin_of_an_open_attempt_leaves_nothing(
        self, store: SqlStore, term: Term, backend: Backend
    ) -> None:
        record = await load(store)
        await store.record(term, record, Plan(attempts=(attempt("t1"),)), 1.0)
        before = await everything(backend)
        twin = attempt("t2", incarnation=2)
        other = attempt("t3", replica=1)
        with pytest.raises(IntegrityError):
            await store.record(term, record, replace(FULL_PLAN, attempts=(other, twin)), 1.0)
        assert await everything(backend) == before

    async def test_the_same_intent_twice_leaves_one(self, store: SqlStore, term: Term, backend: Backend) -> None:
        record = await load(store)
        await store.record(term, record, Plan(attempts=(attempt(),)), 1.0)
        with pytest.raises(IntegrityError):
            await store.record(term, record, FULL_PLAN, 1.0)
        assert await backend.run("SELECT count(*) FROM attempts, services") == [(1,)]
        assert await backend.run("SELECT count(*) FROM events") == [(0,)]


class TestNote:
    @pytest.fixture(autouse=True)
    async def intent(self, store: SqlStore, term: Term) -> None:
        await carry_out(store, term, Plan(attempts=(attempt(),)))

    async def test_what_sbatch_answered_is_kept(self, store: SqlStore, term: Term, backend: Backend) -> None:
        await store.note(term, attempt().token, Sent(outcome=SendOutcome.ACCEPTED, sequence=1, job_id=42), 9.0)
        assert (await load(store)).attempts == (replace(attempt(), job_id=42, submitted_at=9.0),)
        assert await backend.run("SELECT reason, message FROM events") == [("Submitted", "Replica 0: it is job 42.")]

    async def test_what_is_known_already_stands(self, store: SqlStore, term: Term, backend: Backend) -> None:
        known = replace(attempt(), job_id=7, submitted_at=3.0)
        await carry_out(store, term, Plan(attempts=(known,)))
        await store.note(term, known.token, Sent(outcome=SendOutcome.ACCEPTED, sequence=1, job_id=42), 9.0)
        assert (await load(store)).attempts == (known,)
        assert await backend.run("SELECT count(*) FROM events") == [(0,)]

    @pytest.mark.parametrize("outcome", [SendOutcome.REJECTED, SendOutcome.DEFERRED, SendOutcome.UNKNOWN])
    async def test_no_answer_is_no_note(self, store: SqlStore, term: Term, outcome: SendOutcome) -> None:
        await store.note(term, attempt().token, Sent(outcome=outcome, sequence=1), 9.0)
        assert (await load(store)).attempts == (attempt(),)

    async def test_a_database_that_is_away_costs_no_more_than_the_note(
        self, store: SqlStore, term: Term, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What else was to be sent in this pass must still be sent."""

        def away() -> None:
            raise OperationalError("BEGIN", {}, Exception("database is locked"))

        monkeypatch.setattr(database, "write", away)
        await store.note(term, attempt().token, Sent(outcome=SendOutcome.ACCEPTED, sequence=1, job_id=42), 9.0)
        assert (await load(store)).attempts == (attempt(),)

    async def test_a_token_of_nobody_is_no_note(self, store: SqlStore, term: Term, backend: Backend) -> None:
        await store.note(term, "af-x-two-0-1", Sent(outcome=SendOutcome.ACCEPTED, sequence=1, job_id=42), 9.0)
        assert await backend.run("SELECT count(*) FROM events") == [(0,)]

    async def test_a_deposed_term_notes_nothing(self, store: SqlStore, term: Term, backend: Backend) -> None:
        await depose(backend)
        with pytest.raises(DeposedError):
            await store.note(term, attempt().token, Sent(outcome=SendOutcome.ACCEPTED, sequence=1, job_id=42), 9.0)
        assert (await load(store)).attempts == (attempt(),)


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
    async def test_keys_are_of_all_services(self, store: SqlStore, backend: Backend) -> None:
        await backend.run("INSERT INTO services (id, recipe_name) VALUES ('two', 'r')", "DELETE FROM services")
        assert set(await store.keys()) == {"one", "two"}
        assert await store.load("three") is None

    async def test_changed_tells_each_change_once(self, store: SqlStore, backend: Backend) -> None:
        position, keys = await store.changed(0)
        assert keys == ("one",)
        assert await store.changed(position) == (position, ())
        await backend.run("INSERT INTO services (id, recipe_name) VALUES ('two', 'r')")
        await backend.run("UPDATE services SET replicas = 2 WHERE id = 'one'")
        later, keys = await store.changed(position)
        assert keys == ("two", "one")
        await backend.run("DELETE FROM services WHERE id = 'two'")
        assert (await store.changed(later))[1] == ("two",)

    async def test_a_row_is_resolved(self, store: SqlStore, backend: Backend) -> None:
        config = json.dumps({"word": "„bye“"})
        await backend.run(f"UPDATE services SET config = '{config}', replicas = 3")
        desired = (await load(store)).desired
        assert desired.spec is not None
        assert desired.spec.command == ("tool", "„bye“", "first")
        assert (desired.running, desired.replicas, desired.generation, desired.refusal) == (True, 3, 2, None)
        assert (desired.name, desired.service_id, desired.installation) == ("tool-one", "one", "x")

    @pytest.mark.parametrize("statement", ["UPDATE services SET desired_state = 'stopped'", "DELETE FROM services"])
    async def test_stopped_and_deleted_are_not_to_run(self, store: SqlStore, backend: Backend, statement: str) -> None:
        await backend.run(statement)
        assert (await load(store)).desired.running is False

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

    async def test_scaling_alone_keeps_the_digest(self, store: SqlStore, term: Term, backend: Backend) -> None:
        first = (await carry_out(store, term, Plan(status=Status(observed_generation=1)))).desired
        await backend.run("UPDATE services SET replicas = 2")
        second = (await load(store)).desired
        assert (second.digest, second.replicas) == (first.digest, 2)

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

"""act: what was recorded is carried out in order, once, and only while the lease holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from api.contract.job.parameters import Door, Image
from api.contract.launch import Health, LaunchSpec, Resources, Submission
from controller.act import ActionExecutor
from controller.cluster.cluster import Cluster
from controller.cluster.sends import Sends
from controller.cluster.snapshots import SnapshotTaker
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.attempt import Attempt, ProbeSpec, SendOutcome, Sent, Shortening
from controller.core.desired import Desired
from controller.core.jobs import Job, JobPhase, Snapshot
from controller.core.plan import Cancel, Drain, Reopen, Revoke, Shorten, Submit
from controller.core.published import Status
from controller.core.script import Site
from controller.ports import (
    ClusterPorts,
    DeposedError,
    JobFolder,
    Record,
    Term,
    UnreadableError,
    UsedTokenError,
)

TERM = Term(epoch=1, began_at=0.0)
SITE = Site(
    apptainer="apptainer", image_cache="/run/images", port_range=None, volumes="/v", python="python3.9", time_warning=60
)
SPEC = LaunchSpec(recipe="r", kind="service", engine="vllm", model="m", image=None, command=("x",),
                  resources=Resources(cpu=3), health=None, secret_variable="VLLM_API_KEY")  # fmt: skip
BEHIND = replace(SPEC, access="door", health=Health(), secret_variable=None)


class World:
    """Scheduler, store, folders and probes in one; notes all that is done, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.answer: Callable[[str], Sent] = lambda token: self.sent(SendOutcome.ACCEPTED, job_id=7)
        self.errors: dict[str, BaseException] = {}
        self.number = 0
        self.holds = True
        self.parameters: dict[str, Any] = {}
        self.submission: Submission | None = None
        self.keys = ["new", "old"]
        self.noted: dict[str, ProbeSpec] = {}
        self.probed: dict[str, str | None] = {}
        self.awaited_job: int | None = None
        self.holds_after_awaiting = True
        self.sends: Sends
        self.snapshots: SnapshotTaker

    def sent(self, outcome: SendOutcome, job_id: int | None = None, message: str = "") -> Sent:
        return Sent(outcome=outcome, sequence=self.next_sequence(), job_id=job_id, message=message)

    def _do(self, verb: str, *about: Any) -> None:
        self.done.append((verb, *about))
        if verb in self.errors:
            raise self.errors[verb]

    def next_sequence(self) -> int:
        self.number += 1
        return self.number

    def now(self) -> float:
        return 50.0

    def may_act(self) -> bool:
        return self.holds

    async def prepare(self, service_id: str, token: str, parameters: bytes, probe: ProbeSpec) -> JobFolder:
        self._do("prepare", service_id, token)
        self.noted[token] = probe
        self.parameters = json.loads(parameters)
        return JobFolder(path=f"/run/{token}", launch_script="/run/lib/launch.sh", wrapper="/run/lib/wrapper.pyz")

    def door(self, token: str, key: str) -> Door | None:
        return Door(certificate=f"of {token}", key="k", authority="a", id=key) if key in self.keys else None

    @staticmethod
    def secret(token: str) -> str:
        return f"secret of {token}"

    async def launched(self, service_id: str, token: str) -> ProbeSpec | None:
        return self.noted.get(token)

    async def awaited(self, image: Image | None) -> int | None:
        self._do("awaited", image)
        self.holds = self.holds_after_awaiting
        return self.awaited_job

    async def last_words(self, service_id: str, token: str) -> str:
        self._do("last words", service_id, token)
        return ""

    async def revoke(self, service_id: str, token: str) -> None:
        self._do("revoke", service_id, token)

    async def say_closed(self, service_id: str, token: str) -> None:
        self._do("say closed", service_id, token)

    async def tell_door(self, service_id: str, token: str, *, drains: bool) -> None:
        self._do("tell", service_id, token, drains)

    async def clear(self, service_id: str, token: str) -> None:
        self._do("clear", service_id, token)

    async def submit(self, submission: Submission) -> Sent:
        self._do("submit", submission.token)
        self.submission = submission
        return self.answer(submission.token)

    async def cancel(self, token: str, job_id: int) -> None:
        self._do("cancel", token, job_id)

    async def shorten(self, token: str, minutes: int) -> None:
        self._do("shorten", token, minutes)

    async def note(self, term: Term, token: str, sent: Sent, now: float) -> None:
        self._do("note", token, sent.job_id)

    def watch(self, attempt: Attempt, spec: ProbeSpec) -> None:
        self._do("watch", attempt.token)
        self.probed[attempt.token] = spec.model

    def forget(self, token: str) -> None:
        self._do("forget", token)

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, *_ in self.done]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def executor(world: World) -> ActionExecutor:
    return new_executor(world)


def new_executor(world: World, *, images: bool = False) -> ActionExecutor:
    """One that may have missing images made by jobs."""
    fake = cast(Any, world)
    ports = ClusterPorts(scheduler=fake, run_dirs=fake, probes=fake, images=fake if images else None)
    cluster = Cluster(ports, store=fake, tracked=TrackedAttempts(), admission=fake, rhythm=fake, clock=fake)
    world.sends, world.snapshots = cluster.sends, cluster.snapshots
    return ActionExecutor(cluster=cluster, store=fake, clock=fake, site=SITE, keys=fake,
                          may_act=world.may_act)  # fmt: skip


def attempt(token: str, **values: Any) -> Attempt:
    given: dict[str, Any] = {"service_id": "one", "replica": 0, "incarnation": 1, "generation": 1, "digest": "d"}
    return Attempt(token=token, **({"intent_at": 0.0} | given | values))


def record(*attempts: Attempt, spec: LaunchSpec | None = SPEC, digest: str = "d") -> Record:
    desired = Desired(installation="x", service_id="one", name="my service", generation=1, running=True, replicas=1,
                      spec=spec, digest=digest)  # fmt: skip
    return Record(desired=desired, status=Status(), endpoints=(), attempts=attempts)


async def act(
    executor: ActionExecutor, attempts: tuple[Attempt, ...], *actions: Any, spec: LaunchSpec | None = SPEC
) -> None:
    await executor.act(TERM, record(*attempts, spec=spec), attempts, actions)


A, B = attempt("a"), attempt("b", replica=1)


class TestSubmitting:
    async def test_the_folder_then_sbatch_then_the_note(self, executor: ActionExecutor, world: World) -> None:
        await act(executor, (A,), Submit(token="a"))
        assert world.done == [
            ("prepare", "one", "a"),
            ("submit", "a"),
            ("note", "a", 7),
        ]
        assert (world.parameters["token"], world.parameters["secret"]) == ("a", "secret of a")

    async def test_the_door_is_made_under_the_key_that_was_recorded(
        self, executor: ActionExecutor, world: World
    ) -> None:
        await act(executor, (replace(A, door="old"),), Submit(token="a"), spec=BEHIND)
        assert world.parameters["door"] == {"certificate": "of a", "key": "k", "authority": "a", "id": "old"}
        assert world.parameters["secret"] is None

    @pytest.mark.parametrize("door", ["old", None], ids=["was dropped", "never was"])
    async def test_without_its_key_it_is_not_sent(
        self, executor: ActionExecutor, world: World, door: str | None
    ) -> None:
        """An engine that nobody could reach would take its time and its GPUs for nothing."""
        world.keys = ["new"]
        await act(executor, (replace(A, door=door),), Submit(token="a"), spec=BEHIND)
        assert world.done == []
        assert world.sends.sent["a"].outcome is SendOutcome.DEFERRED
        assert "not in the key file any more" in world.sends.sent["a"].message

    async def test_what_the_job_needs_is_asked_for(self, executor: ActionExecutor, world: World) -> None:
        await act(executor, (A,), Submit(token="a"))
        assert world.submission == Submission(
            token="a",
            resources=Resources(cpu=3),
            folder="/run/a",
            script="/run/lib/launch.sh",
            arguments=("/run/a", "/run/lib/wrapper.pyz", "python3.9"),
            comment="my service",
            warning=60,
        )

    @pytest.mark.parametrize("outcome", list(SendOutcome))
    async def test_what_came_of_it_is_remembered(
        self, executor: ActionExecutor, world: World, outcome: SendOutcome
    ) -> None:
        answered = Sent(outcome=outcome, sequence=99, job_id=7, message="m")
        world.answer = lambda _: answered
        await act(executor, (A,), Submit(token="a"))
        assert world.sends.sent == {"a": answered}

    @pytest.mark.parametrize("outcome", list(SendOutcome))
    async def test_no_token_is_sent_twice_in_a_term(
        self, executor: ActionExecutor, world: World, outcome: SendOutcome
    ) -> None:
        world.answer = lambda _: world.sent(outcome)
        for _ in range(3):
            await act(executor, (A,), Submit(token="a"))
        assert world.verbs.count("submit") == 1

    async def test_nor_while_it_is_being_sent(self, executor: ActionExecutor, world: World) -> None:
        seen: list[Sent] = []

        def answer(token: str) -> Sent:
            seen.append(world.sends.sent[token])
            return world.sent(SendOutcome.ACCEPTED, job_id=7)

        world.answer = answer
        await act(executor, (A,), Submit(token="a"))
        assert [s.outcome for s in seen] == [SendOutcome.UNKNOWN]

    @pytest.mark.parametrize("error", [RuntimeError("torn"), asyncio.CancelledError(), UnreadableError("R", "m")])
    async def test_one_that_was_interrupted_is_unknown(
        self, executor: ActionExecutor, world: World, error: BaseException
    ) -> None:
        """Only what is read after it ended says anything of it; and it is not sent again."""
        world.errors["submit"] = error
        with pytest.raises(type(error)):
            await act(executor, (A,), Submit(token="a"))
        before = world.sends.sent["a"]
        assert before.outcome is SendOutcome.UNKNOWN
        assert before.sequence == world.number == 2
        world.errors.clear()
        await act(executor, (A,), Submit(token="a"))
        assert world.verbs.count("submit") == 1
        assert world.sends.sent["a"] == before

    @pytest.mark.parametrize("awaited", [None, 99], ids=["there", "missing"])
    async def test_it_waits_for_the_job_that_makes_its_image(self, world: World, awaited: int | None) -> None:
        world.awaited_job = awaited
        await act(new_executor(world, images=True), (A,), Submit(token="a"))
        assert world.verbs == ["prepare", "awaited", "submit", "note"]
        assert world.done[1] == ("awaited", SPEC.image)
        assert world.submission is not None
        assert world.submission.after == awaited

    async def test_a_folder_that_can_not_be_written_defers_it(self, executor: ActionExecutor, world: World) -> None:
        world.errors["prepare"] = OSError(28, "No space left on device")
        await act(executor, (A,), Submit(token="a"))
        assert world.verbs == ["prepare"]
        sent = world.sends.sent["a"]
        assert (sent.outcome, sent.sequence) == (SendOutcome.DEFERRED, 1)
        assert "No space left on device" in sent.message
        assert "RUN_DIR" in sent.message
        assert "mend its permissions" in sent.message

    async def test_where_this_host_lacks_something_the_folder_is_not_blamed(
        self, executor: ActionExecutor, world: World
    ) -> None:
        world.errors["prepare"] = OSError(24, "Too many open files")
        await act(executor, (A,), Submit(token="a"))
        assert world.sends.sent["a"].outcome is SendOutcome.DEFERRED
        assert "ulimit -a" in world.sends.sent["a"].message
        assert "permissions" not in world.sends.sent["a"].message

    async def test_a_token_that_was_used_before_is_not_sent(self, executor: ActionExecutor, world: World) -> None:
        world.errors["prepare"] = UsedTokenError("claimed")
        await act(executor, (A,), Submit(token="a"))
        assert world.verbs == ["prepare"]
        assert world.sends.sent["a"].outcome is SendOutcome.DEFERRED
        assert "restored" in world.sends.sent["a"].message

    async def test_nothing_is_sent_without_knowing_what(self, executor: ActionExecutor, world: World) -> None:
        await act(executor, (A,), Submit(token="a"), spec=None)
        assert (world.done, world.sends.sent) == ([], {})

    async def test_the_job_id_stands_even_if_it_can_not_be_noted(self, executor: ActionExecutor, world: World) -> None:
        world.errors["note"] = DeposedError("over")
        with pytest.raises(DeposedError):
            await act(executor, (A, B), Submit(token="a"), Submit(token="b"))
        assert world.sends.sent["a"].job_id == 7
        assert "b" not in world.sends.sent


class TestTheLease:
    @pytest.mark.parametrize(
        "action",
        [Submit(token="a"), Cancel(token="a", job_id=7), Revoke(token="a"), Shorten(token="a", minutes=5, before=9.0)],
    )
    async def test_without_it_nothing_is_done(self, executor: ActionExecutor, world: World, action: Any) -> None:
        world.holds = False
        with pytest.raises(DeposedError):
            await act(executor, (A,), action)
        assert (world.done, world.sends.sent, world.sends.cancelled) == ([], {}, {})

    async def test_lost_on_the_way_the_rest_is_left(self, executor: ActionExecutor, world: World) -> None:
        def answer(_: str) -> Sent:
            world.holds = False
            return world.sent(SendOutcome.ACCEPTED, job_id=7)

        world.answer = answer
        with pytest.raises(DeposedError):
            await act(executor, (A, B), Submit(token="a"), Submit(token="b"), Cancel(token="a", job_id=1))
        assert world.verbs == ["prepare", "submit", "note"]

    async def test_lost_over_a_slow_file_system_nothing_is_sent(
        self, executor: ActionExecutor, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prepare = world.prepare

        async def slow(*arguments: Any) -> JobFolder:
            world.holds = False
            return await prepare(*arguments)

        monkeypatch.setattr(world, "prepare", slow)
        with pytest.raises(DeposedError):
            await act(executor, (A,), Submit(token="a"))
        assert world.verbs == ["prepare"]
        assert world.sends.sent == {}

    async def test_lost_while_an_image_was_asked_for_nothing_is_sent(self, world: World) -> None:
        world.holds_after_awaiting = False
        executor = new_executor(world, images=True)
        with pytest.raises(DeposedError):
            await act(executor, (A,), Submit(token="a"))
        assert world.verbs == ["prepare", "awaited"]
        assert world.sends.sent == {}


class TestCancellingAndRevoking:
    async def test_actions_come_in_their_order(self, executor: ActionExecutor, world: World) -> None:
        closed = replace(A, closed_at=1.0, outcome="Stopped")
        await act(executor, (closed, B), Cancel(token="a", job_id=5), Revoke(token="a"), Submit(token="b"))
        assert world.done[:3] == [("say closed", "one", "a"), ("cancel", "a", 5), ("revoke", "one", "a")]
        assert world.verbs == ["say closed", "cancel", "revoke", "prepare", "submit", "note"]
        assert world.sends.cancelled == {"a": 50.0}

    async def test_a_second_job_of_an_open_attempt_is_cancelled_without_a_word_to_the_first(
        self, executor: ActionExecutor, world: World
    ) -> None:
        await act(executor, (A,), Cancel(token="a", job_id=6))
        assert world.verbs == ["cancel"]

    async def test_a_cancel_does_not_wait_for_the_shared_folder(self, executor: ActionExecutor, world: World) -> None:
        world.errors["say closed"] = OSError(30, "Read-only file system")
        await act(executor, (replace(A, closed_at=1.0, outcome="Stopped"),), Cancel(token="a", job_id=5))
        assert world.done[1] == ("cancel", "a", 5)

    async def test_doors_are_told(self, executor: ActionExecutor, world: World) -> None:
        await act(executor, (A, B), Drain(token="a"), Reopen(token="b"))
        assert world.done == [("tell", "one", "a", True), ("tell", "one", "b", False)]

    async def test_a_job_is_shortened_and_that_is_remembered(self, executor: ActionExecutor, world: World) -> None:
        await act(executor, (A,), Shorten(token="a", minutes=5, before=400.0))
        assert world.done == [("shorten", "a", 5)]
        assert world.sends.shortened == {"a": Shortening(at=50.0, minutes=5, before=400.0)}
        await act(executor, (replace(A, closed_at=1.0, gone_at=2.0, outcome="Stopped"),))
        assert world.sends.shortened == {}

    async def test_what_could_not_be_shortened_holds_nothing_up(self, executor: ActionExecutor, world: World) -> None:
        world.errors["shorten"] = UnreadableError("PermissionDenied", "scontrol: no")
        await act(executor, (A, B), Shorten(token="a", minutes=5, before=400.0), Revoke(token="b"))
        assert world.verbs == ["shorten", "revoke"]
        assert world.sends.shortened["a"].trouble == "scontrol: no"

    async def test_a_cancel_that_failed_is_made_again_at_once(self, executor: ActionExecutor, world: World) -> None:
        world.errors["cancel"] = UnreadableError("SlurmUnreachable", "no answer")
        with pytest.raises(UnreadableError):
            await act(executor, (replace(A, closed_at=1.0, outcome="Stopped"),), Cancel(token="a", job_id=5))
        assert world.sends.cancelled == {}

    @pytest.mark.parametrize(
        ("verb", "action", "error"),
        [
            ("cancel", Cancel(token="a", job_id=5), UnreadableError("Silent", "m")),
            ("revoke", Revoke(token="a"), OSError(5, "Input/output error")),
        ],
    )
    async def test_what_fails_is_told(
        self, executor: ActionExecutor, world: World, verb: str, action: Any, error: Exception
    ) -> None:
        world.errors[verb] = error
        with pytest.raises(type(error)):
            await act(executor, (A,), action)

    @pytest.mark.parametrize("action", [Drain(token="a"), Reopen(token="a"), Revoke(token="a")])
    async def test_what_fails_stops_no_other(self, executor: ActionExecutor, world: World, action: Any) -> None:
        error = OSError(28, "No space left on device")
        world.errors |= {"tell": error, "revoke": error}
        gone = replace(B, gone_at=1.0)
        with pytest.raises(OSError, match="No space left"):
            await act(executor, (A, gone), action, Cancel(token="a", job_id=5))
        assert world.verbs == ["revoke" if isinstance(action, Revoke) else "tell", "cancel", "forget"]

    @pytest.mark.parametrize(("reason", "tries"), [("SlurmTimeout", 1), ("SlurmFailed", 2)])
    async def test_a_silent_slurm_is_waited_for_once(
        self, executor: ActionExecutor, world: World, reason: str, tries: int
    ) -> None:
        world.errors["cancel"] = UnreadableError(reason, "m")
        with pytest.raises(UnreadableError):
            await act(executor, (A, B), Cancel(token="a", job_id=5), Cancel(token="b", job_id=6), Drain(token="b"))
        assert world.verbs == ["cancel"] * tries + ["tell"]

    async def test_what_fails_keeps_nothing_from_being_probed(self, executor: ActionExecutor, world: World) -> None:
        world.errors["tell"] = OSError(5, "Input/output error")
        with pytest.raises(OSError, match="Input/output"):
            await act(executor, (replace(A, serving_at=1.0), replace(B, serving_at=1.0)), Drain(token="b"))
        assert world.probed == {"a": "m", "b": "m"}


class TestClearing:
    async def test_what_is_gone_keeps_no_secret(self, executor: ActionExecutor, world: World) -> None:
        gone = replace(A, gone_at=3.0)
        await executor.act(TERM, record(A, B), (gone, B), ())
        assert world.done == [("clear", "one", "a"), ("forget", "a")]
        await act(executor, (gone, B))
        assert world.done[2:] == [("forget", "a")], "once is enough"


class TestProbing:
    async def test_what_serves_is_probed(self, executor: ActionExecutor, world: World) -> None:
        await act(executor, (A, replace(B, serving_at=1.0)))
        assert world.done == [("watch", "b")]

    async def test_what_is_closed_is_probed_until_it_is_gone(self, executor: ActionExecutor, world: World) -> None:
        """In a term too that finds it closed: an engine that answers is not gone."""
        closed = replace(A, serving_at=1.0, closed_at=2.0, outcome="Stopped")
        await act(executor, (closed,))
        assert world.done == [("watch", "a")]
        await act(executor, (replace(closed, gone_at=3.0),))
        assert world.done == [("watch", "a"), ("forget", "a")]

    async def test_what_is_suspended_is_not_probed_until_it_goes_on(
        self, executor: ActionExecutor, world: World
    ) -> None:
        """What it did not answer while it was stopped would count against it."""
        serving = replace(A, serving_at=1.0, job_id=7)
        for phase, done in ((JobPhase.SUSPENDED, ("forget", "a")), (JobPhase.RUNNING, ("watch", "a"))):
            job = Job(job_id=7, token="a", phase=phase, state=phase.name)
            world.snapshots.latest = Snapshot(sequence=1, began_at=0.0, jobs={"a": (job,)})
            await act(executor, (serving,))
            assert world.done.pop() == done

    @pytest.mark.parametrize("spec", [SPEC, None], ids=["another one is wanted", "none is known"])
    async def test_an_older_launch_is_probed_as_it_was_launched(
        self, executor: ActionExecutor, world: World, spec: LaunchSpec | None
    ) -> None:
        """While a service is rolled over, its old replicas still serve the old model."""
        old, unknown = replace(A, serving_at=1.0, digest="old"), replace(B, serving_at=1.0, digest="older")
        world.noted = {"a": ProbeSpec(engine="vllm", model="the old one", health=None)}
        await act(executor, (old, unknown), spec=spec)
        assert world.done == [("watch", "a")]
        assert world.probed == {"a": "the old one"}

    async def test_what_is_gone_is_forgotten_altogether(self, executor: ActionExecutor, world: World) -> None:
        await act(executor, (A,), Submit(token="a"))
        await act(executor, (replace(A, closed_at=1.0, outcome="X"),), Cancel(token="a", job_id=7))
        await act(executor, (replace(A, closed_at=1.0, outcome="X", gone_at=2.0),))
        assert (world.sends.sent, world.sends.cancelled) == ({}, {})

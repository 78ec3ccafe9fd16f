"""Each rule of the protocol taken out, once: the search must notice. `python -m tests.simulation.mutants` shows it.

A mutant is a patch of the project's own code, or of the world where the rule is the wrapper's or Slurm's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from api.contract.job.words import Lane
from api.contract.launch import Submission
from controller.core import closings, draining, evidence, hand_over, openings
from controller.core.attempt import Attempt, SendOutcome, Sent
from controller.core.fold import Folded
from controller.core.job_files import JobFiles, Revoked
from controller.core.jobs import Job, JobEnd, JobPhase, Maintenance
from controller.core.limits import Limits
from controller.core.marks import Mark
from controller.core.observed import Observed
from controller.core.outcomes import Outcome
from controller.core.plan import Cancel, Drain
from controller.core.situation import Situation
from controller.ports import Listing, Term, UnreadableError
from controller.slurm.argv import submit_command
from controller.slurm.runner import Completed
from tests.simulation import scenarios, schedules
from tests.simulation.adapters import Boundary
from tests.simulation.slurm import Slot

MOST_SCHEDULES = 2000


@dataclass(frozen=True)
class Mutant:
    """A rule, and how it is taken out."""

    rule: str
    patch: Callable[[], Any]
    scenario: Callable[[], None] | None = None
    """Where it is caught, if its moment is too rare for the search."""
    first: int = 0
    """Where its search begins: what is rarely noticed is searched for from where it is."""


def patched(target: str, replacement: Any) -> Callable[[], Any]:
    """Patch one name."""
    return lambda: mock.patch(target, replacement)


# --- intents and sending


async def act_before_recording(self: Any, key: str) -> float | None:
    """The pass with its verbs in the wrong order."""
    from controller.core.decide import decide
    from controller.observe import observe
    from controller.reconciler import _after

    record = await self._store.load(key)
    if record is None:
        return None
    seen = await observe(record, self._cluster, term_began_at=self._term.began_at)
    now = self._clock.now()
    plan = decide(record.desired, seen, now, self._limits)
    attempts = _after(record, plan)
    self._cluster.admission.hold(key, attempts)
    await self._executor.act(self._term, record, attempts, plan.actions)
    await self._store.record(self._term, record, plan, now)
    self._cluster.tracked.update(attempts)
    self._cluster.admission.settle(key, plan)
    return now + 0.2 if plan.actions else (now if plan.attempts else plan.look_again_at)


def unknown_is_not_created(attempt: Attempt, seen: Observed) -> bool:
    """An sbatch without an answer counts as one that made nothing."""
    sent = seen.sent.get(attempt.token)
    return sent is not None and sent.outcome is not SendOutcome.ACCEPTED


def unknown_is_closed(attempt: Attempt, seen: Observed, now: float) -> Attempt:
    """An sbatch without an answer closes its attempt."""
    sent = seen.sent.get(attempt.token)
    if sent is not None and sent.outcome is not SendOutcome.ACCEPTED:
        return replace(attempt, closed_at=now, outcome=Outcome.SUBMIT_DEFERRED)
    return replace(attempt, job_id=attempt.job_id or sent.job_id) if sent is not None else attempt


@contextmanager
def retry_on_unknown() -> Iterator[None]:
    """Send again what has had no answer."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("controller.core.evict._never_created", unknown_is_not_created))
        stack.enter_context(mock.patch("controller.core.fold._sent", unknown_is_closed))
        stack.enter_context(claims_ignored())
        yield


# --- the claim


@contextmanager
def claims_ignored() -> Iterator[None]:
    """Jobs run whether they have their claim or not."""

    def begin(self: Any, job: Any, now: float) -> None:
        folder = self.folder(job.name)
        folder.claim, folder.claim_at = job.job_id, now
        job.stage = "claimed"

    with mock.patch("tests.simulation.slurm.SimSlurm._begin_script", begin):
        yield


def start_beside(self: Any, job: Any, now: float) -> None:
    """An engine asks nobody whether another one of its replica lives."""
    self.slots[self.place(job)] = Slot(job, float("inf"))
    job.stage = "slot"


async def revoke_nothing(self: Any, service_id: str, token: str) -> None:
    """The controller believes that it revoked, and the job never learns of it."""
    self.__dict__.setdefault("believed", set()).add(token)


def read_what_was_believed(self: Any, token: str) -> JobFiles:
    """Beside the file another one that only the controller reads."""
    files = FILES(self, token)
    if files.claim is None and token in self.__dict__.get("believed", ()):
        return replace(files, claim=Revoked())
    return files


@contextmanager
def revoke_by_another_file() -> Iterator[None]:
    """Claim and revocation are two files: both can be won."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("tests.simulation.adapters.SimRunDirs.revoke", revoke_nothing))
        stack.enter_context(mock.patch("tests.simulation.adapters.SimRunDirs.files", read_what_was_believed))
        yield


def restarted_jobs_run(self: Any, job: Any, now: float) -> None:
    """The wrapper does not look at the restart count."""
    folder = self.folder(job.name)
    if folder.claim is not None and folder.claim != job.job_id:
        self.end(job, "COMPLETED", now, code=0)
        return
    folder.claim, folder.claim_at = job.job_id, now
    job.stage = "claimed"


# --- terms


async def record_under_any_term(self: Any, term: Term, record: Any, plan: Any, now: float) -> None:
    """The term is looked up when it is needed instead of being captured once."""
    await RECORD(self, Term(epoch=self._database.epoch, began_at=term.began_at), record, plan, now)


# --- looking


async def silence_is_emptiness(self: Any) -> Listing:
    """A reading that failed is taken for one that found nothing."""
    try:
        return await LIST(self)
    except UnreadableError:
        return Listing(jobs=())


def vanished_at_once(*arguments: Any) -> bool:
    """Whoever is not listed has left."""
    return False


def never_adopted(jobs: tuple[Any, ...], files: JobFiles) -> Any:
    """Only a job whose id was answered is ours."""
    return evidence.claimant(files, jobs)


def cancels_nothing(attempt: Attempt, seen: Observed, now: float, limits: Limits) -> Folded:
    """Closed attempts are left to themselves."""
    folded = EVICT(attempt, seen, now, limits)
    return replace(folded, actions=tuple(a for a in folded.actions if not isinstance(a, Cancel)))


def evicts_the_open_too(attempt: Attempt, seen: Observed, spec: Any, now: float, limits: Limits) -> Folded:
    """A job whose engine does not answer is cancelled, closed or not."""
    folded = FOLD(attempt, seen, spec, now, limits)
    probe = seen.probes.get(attempt.token)
    jobs = seen.snapshot.jobs.get(attempt.token, ()) if seen.snapshot and probe and not probe.ready else ()
    return replace(folded, actions=tuple(Cancel(token=j.token, job_id=j.job_id) for j in jobs))


def without(policy: openings.HoldPolicy) -> tuple[openings.HoldPolicy, ...]:
    """Return what holds an opening back, but for this."""
    return tuple(each for each in openings.HOLDS if each is not policy)


def missing_in_the_other_lane(replica: Any, situation: Any) -> openings.Opening | None:
    """What is missing opens where nothing was."""
    found = openings.missing(replica, situation)
    if found is None or replica.newest is None:
        return found
    return replace(found, lane=Lane.B if found.lane is Lane.MAIN else Lane.MAIN)


def left_without_reason(replica: Any, opening: openings.Opening, situation: Any) -> openings.Hold | None:
    """With a reason an attempt is opened whatever is left."""
    return None if opening.beside is not None else openings.left_over(replica, opening, situation)


@contextmanager
def absence_needs_no_sequence() -> Iterator[None]:
    """Neither the sequence nor the grace nor the claim stands between absence and its conclusion."""

    def settle(attempt: Attempt, seen: Observed, now: float, limits: Limits) -> Folded:
        return Folded(attempt=replace(attempt, gone_at=now))

    with mock.patch("controller.core.evict._settle", settle):
        yield


def torn_down_without_a_record(jobs: tuple[Any, ...], files: JobFiles) -> bool:
    """COMPLETING alone is taken for the engine's end, which may be draining for as long as its grace."""
    return all(job.phase in (JobPhase.COMPLETING, JobPhase.ENDED) for job in jobs)


def without_singleton(job: Submission) -> tuple[str, ...]:
    """sbatch is not told to hold twins back."""
    return tuple(word for word in submit_command(job) if not word.startswith("--dependency"))


# --- what counts as evidence


def any_end_is_believed(attempt: Attempt, job: Any, files: JobFiles, seen: Observed, limits: Limits) -> bool:
    """slurmctld's word that a job was cancelled is taken for its node's."""
    return (job is not None and job.end is JobEnd.CANCELLED) or IS_OVER(attempt, job, files, seen, limits)


def silent_wrappers_are_believed(attempt: Attempt, job: Any, files: JobFiles, seen: Observed, limits: Limits) -> bool:
    """A wrapper that gives no sign of life is enough, whatever answers."""
    return evidence.shows_no_life(files, limits) or IS_OVER(attempt, job, files, seen, limits)


def begun_once_claimed(attempt: Attempt, files: JobFiles, seen: Observed) -> bool:
    """A claim counts as older than the snapshot that shows its job pending."""
    return attempt.started_at is not None or evidence.is_claimed(files)


def absent_in_any_term(attempt: Attempt, snapshot: Any, seen: Observed) -> float:
    """What other terms noted counts, by whatever clock."""
    return attempt.absent_since if attempt.absent_since is not None else float(snapshot.began_at)


def only_the_open_are_doubted(attempt: Attempt, seen: Observed) -> bool:
    """In a mass vanishing closed attempts count as gone."""
    return attempt.open and IS_DOUBTED(attempt, seen)  # type: ignore[no-any-return]


async def sequence_after_the_listing(self: Any) -> Any:
    """A reading takes its number when it ends."""
    snapshot = await TAKE(self)
    self.latest = replace(snapshot, sequence=self._scheduler.next_sequence())
    return self.latest


def tracked_after_the_listing(self: Any) -> Any:
    """What is tracked is looked at when the answer has come."""
    return self._tracked.values()


def old_sequence_stays(self: Any, token: str) -> None:
    """An sbatch that was broken off counts as of when it began."""
    if token not in self.sent:
        LEAVE_OPEN(self, token)


def no_id_is_a_refusal(completed: Completed, sequence: int) -> Sent:
    """An sbatch that exits with 0 and prints no id has made nothing."""
    sent: Sent = READ_ANSWER(completed, sequence)
    is_unlabelled = completed.exit_code == 0 and sent.job_id is None
    return replace(sent, outcome=SendOutcome.DEFERRED) if is_unlabelled else sent


async def cancels_the_unknown(self: Any, tokens: Any) -> dict[str, bool]:
    """A token that the database has never heard of counts as closed."""
    return dict.fromkeys(tokens, True) | dict(await KNOWN(self, tokens))


async def cancels_by_id_alone(self: Any, token: str, job_id: int) -> None:
    """scancel without the name: whoever has the id by now is hit."""
    await Boundary("before scancel")
    job = self._world.slurm.jobs.get(job_id)
    if job is not None and job.alive:
        self._world.judge_cancel(job)
        self._world.slurm.cancel(job, self._world.now)


def cancels_the_younger(jobs: tuple[Any, ...], files: JobFiles) -> tuple[Cancel, ...]:
    """Of two jobs the younger is cancelled, though it may be the one that claims."""
    if files.claim is not None:
        return LOSERS(jobs, files)  # type: ignore[no-any-return]
    alive = sorted(j.job_id for j in jobs if j.phase is not JobPhase.ENDED)
    return tuple(Cancel(token=jobs[0].token, job_id=job_id) for job_id in alive[1:])


def health_is_enough(listener: Any, token: str) -> bool:
    """Whatever answers under the address and calls itself well is taken for the attempt's engine."""
    return listener is not None and bool(listener.healthy)


LIST: Any = None
KNOWN: Any = None
LOSERS: Any = None
FILES: Any = None
PREFER: Any = None
TELL_DOORS: Any = None
RUNNING: Any = None
STARTED: Any = None
RECORD: Any = None
EVICT: Any = None
FOLD: Any = None
IS_OVER: Any = None
IS_DOUBTED: Any = None
TAKE: Any = None
LEAVE_OPEN: Any = None
READ_ANSWER: Any = None


def has_begun_to_drain(attempt: Any, _situation: Any) -> bool:
    """Nobody looks what is in flight."""
    return attempt.draining_since is not None


def is_quiet_at_once(attempt: Any, situation: Any) -> bool:
    """What is quiet ends, though requests may be on their way to it."""
    probe = situation.seen.probes.get(attempt.token)
    return attempt.draining_since is not None and probe is not None and probe.quiet_since is not None


async def dead_are_waited_for(self: Any) -> int | None:
    """Whoever has ever been a gateway is one."""
    return min((gateway.applied for gateway in await self._store.gateways()), default=None)


def told_without_telling(attempt: Any, _seen: Observed) -> bool:
    """No door is told anything, and each is taken to know."""
    return attempt.draining_since is not None


def tells_none_to_open(situation: Any) -> list[Any]:
    """A door that was shut stays so."""
    return [action for action in TELL_DOORS(situation) if isinstance(action, Drain)]


def prefers_the_oldest(replica: Any, situation: Any, leaving: Any) -> None:
    """The old one is preferred again whenever the new one does not answer."""
    PREFER(replica, situation, leaving)
    for attempt in situation.replica(replica.number).attempts:
        if attempt.draining_since is not None and not any(a.ready for a in replica.attempts if a is not attempt):
            situation.put(replace(attempt, draining_since=None))


def prefers_the_youngest(replica: Any, situation: Any, _leaving: Any) -> None:
    """The old one drains as soon as there is another."""
    for attempt in [a for a in replica.attempts if a.open][:-1]:
        if attempt.draining_since is None:
            situation.put(replace(attempt, draining_since=situation.now))


def closes_when_drained() -> tuple[Any, ...]:
    """What drains is closed in its time, whether or not another one answers."""

    def superseded(attempt: Any, situation: Any) -> str | None:
        until = draining.must_end_at(attempt, situation.limits)
        return "It had its time." if until is not None and situation.now >= until else None

    return (*without_closing(closings.superseded), (Outcome.SUPERSEDED, superseded, closings.at_once))


def without_closing(policy: closings.ClosingPolicy) -> tuple[Any, ...]:
    """Return what closes an attempt, but for this."""
    return tuple(each for each in closings.CLOSINGS if each[1] is not policy)


def scaled_down_at_once() -> tuple[Any, ...]:
    """What is surplus is closed whatever is in flight on it."""
    first = (Outcome.SCALED_DOWN, closings.scaled_down, closings.at_once)
    return (first, *without_closing(closings.scaled_down))


def ends_what_serves() -> tuple[Any, ...]:
    """Once a successor was tried for a change, what serves is closed, whatever came of it."""

    def outdated(attempt: Attempt, situation: Any) -> str | None:
        is_tried = Mark.FAILED in situation.marks(attempt.replica) and attempt.digest != situation.desired.digest
        return "It was changed." if is_tried else closings.outdated(attempt, situation)

    return (*without_closing(closings.outdated), (Outcome.OUTDATED, outdated, closings.at_once))


def next_before_ready(replica: Any, situation: Any) -> bool:
    """The next one is changed as soon as there is room for a successor, whatever came of the one before."""
    return situation.marked(Mark.BESIDE) < situation.desired.spec.surge  # type: ignore[no-any-return]


def without_reason(policy: hand_over.ReasonPolicy) -> tuple[hand_over.ReasonPolicy, ...]:
    """Return why what stands is handed over, but for this."""
    return tuple(each for each in hand_over.REASONS if each is not policy)


def preferred_though_told(attempt: Attempt, seen: Observed) -> bool:
    """What its job's report says of its end is not looked at before it is preferred again."""
    return attempt.token in seen.files


def judged_though_told(attempt: Attempt, files: JobFiles, seen: Observed, *more: Any) -> Folded:
    """What is told to end is ended for checks of its health that its closed door keeps out."""
    heard = {attempt.token: replace(files, told_to_end_at=None)}
    return RUNNING(attempt, files, replace(seen, files=heard), *more)  # type: ignore[no-any-return]


def started_with_its_first_limit(attempt: Attempt, *more: Any) -> Attempt:
    """What squeue says first of a job's end is believed for ever."""
    now: Attempt = STARTED(attempt, *more)
    return replace(now, ends_at=attempt.ends_at or now.ends_at)


def the_first_maintenance(job: Job, situation: Situation) -> Maintenance | None:
    """Whatever maintenance comes next is taken for what a job waits for."""
    snapshot = situation.seen.snapshot
    known = snapshot.maintenances if snapshot is not None else ()
    return min((m for m in known if m.ends_at > situation.now), key=lambda m: m.begins_at, default=None)


async def learns_nothing(_self: Any) -> None:
    """A term knows only what it saw itself."""


def remember_originals() -> None:
    """Keep what mutants wrap."""
    from controller.cluster.sends import Sends
    from controller.cluster.snapshots import SnapshotTaker
    from controller.core import decide, drive, fold
    from controller.slurm import scheduler
    from tests.simulation.adapters import SimRunDirs, SimScheduler, SimStore
    from tests.simulation.database import MemoryStore

    globals().update(
        LIST=SimScheduler.list_jobs,
        KNOWN=SimStore.known,
        LOSERS=fold._losers,
        FILES=SimRunDirs.files,
        RECORD=MemoryStore.record,
        EVICT=decide.evict,
        FOLD=decide.fold,
        IS_OVER=evidence.is_over,
        IS_DOUBTED=evidence.is_doubted,
        TAKE=SnapshotTaker.take,
        LEAVE_OPEN=Sends._leave_open,
        READ_ANSWER=scheduler.read_answer,
        PREFER=drive.prefer,
        TELL_DOORS=draining.tell_doors,
        RUNNING=fold._running,
        STARTED=fold._started,
    )


MUTANTS = (
    Mutant("intent first", patched("controller.reconciler.Reconciler.reconcile", act_before_recording)),
    Mutant("no retry on unknown", retry_on_unknown),
    Mutant("claim", claims_ignored),
    Mutant("revoke by the same file", revoke_by_another_file),
    Mutant("restart count", patched("tests.simulation.slurm.SimSlurm._begin_script", restarted_jobs_run)),
    Mutant("fence", patched("tests.simulation.database.MemoryStore.fence", lambda self, term: None)),
    Mutant("term captured once", patched("tests.simulation.database.MemoryStore.record", record_under_any_term)),
    Mutant(
        "silence is not emptiness",
        patched("tests.simulation.adapters.SimScheduler.list_jobs", silence_is_emptiness),
        scenarios.silence,
    ),
    Mutant("adoption", patched("controller.core.evidence.holder", never_adopted), scenarios.unanswered_job_waits),
    Mutant("slot claim", patched("tests.simulation.slurm.SimSlurm._take_slot", start_beside)),
    Mutant(
        "opened without a reason, a job takes the slot of the other lane too",
        patched("tests.simulation.slurm.SimSlurm._others", lambda *_: []),
        scenarios.lives_on_in_the_other_lane,
    ),
    Mutant("eviction", patched("controller.core.decide.evict", cancels_nothing)),
    Mutant("only the closed are evicted", patched("controller.core.decide.fold", evicts_the_open_too)),
    Mutant("started_at rule", patched("controller.core.evidence.has_begun", lambda *_: False)),
    Mutant("one attempt at a time", patched("controller.core.openings.HOLDS", without(openings.left_over))),
    Mutant(
        "a replacement opens in the lane of what it replaces",
        patched("controller.core.openings.OPENINGS", (missing_in_the_other_lane,)),
    ),
    Mutant(
        "a lane opens only once nothing of it is left",
        patched("controller.core.openings.HOLDS", (*without(openings.left_over), left_without_reason)),
    ),
    Mutant("what drains may finish what it has", patched("controller.core.draining.is_drained", has_begun_to_drain)),
    Mutant(
        "whoever routes requests hears of it first",
        patched("controller.core.draining.is_drained", is_quiet_at_once),
    ),
    Mutant(
        "a door shuts once gateways that live have heard of it",
        patched("controller.core.draining._is_heard", lambda *_: True),
        scenarios.heard_late,
    ),
    Mutant(
        "a gateway that is dead is not waited for",
        patched("controller.cluster.gateways.Gateways.heard", dead_are_waited_for),
        scenarios.stopped_gateway,
    ),
    Mutant(
        "a gateway that does not hear is not waited for without end",
        patched("controller.core.draining._is_late", lambda *_: False),
        scenarios.deaf_gateway,
    ),
    Mutant(
        "what is to end has shut its door",
        patched("controller.core.draining._is_told", told_without_telling),
        scenarios.cut_off_gateway,
    ),
    Mutant(
        "what is preferred again lets all in",
        patched("controller.core.draining.tell_doors", tells_none_to_open),
        scenarios.preferred_again,
    ),
    Mutant("what drains is not preferred again", patched("controller.core.drive.prefer", prefers_the_oldest)),
    Mutant("none drains before another is ready", patched("controller.core.drive.prefer", prefers_the_youngest)),
    Mutant("no hand-over closes the last one", patched("controller.core.closings.CLOSINGS", closes_when_drained())),
    Mutant(
        "no more are changed at a time than surge",
        patched("controller.core.openings.may_change", lambda *_: True),
        scenarios.changed_one_after_another,
    ),
    Mutant(
        "the next is changed once the one before is ready",
        patched("controller.core.openings.may_change", next_before_ready),
        scenarios.changed_in_vain,
    ),
    Mutant(
        "a paused change touches nothing",
        patched("controller.core.situation.Situation.is_paused", False),
    ),
    Mutant("a change that fails costs nothing", patched("controller.core.closings.CLOSINGS", ends_what_serves())),
    Mutant("what is surplus drains", patched("controller.core.closings.CLOSINGS", scaled_down_at_once())),
    Mutant(
        "what is told to end drains at once",
        patched("controller.core.evidence.is_told_to_end", lambda *_: False),
    ),
    Mutant(
        "what is told to end is not preferred again",
        patched("controller.core.evidence.says_nothing_of_its_end", preferred_though_told),
    ),
    Mutant(
        "what is told to end is succeeded at once",
        patched("controller.core.hand_over.REASONS", without_reason(hand_over.interrupted)),
        scenarios.told_to_end,
    ),
    Mutant(
        "what is told to end is not judged by its health",
        patched("controller.core.fold._running", judged_though_told),
        scenarios.told_and_unheard,
    ),
    Mutant(
        "the drain of a node is not waited for",
        patched("controller.core.hand_over.REASONS", without_reason(hand_over.node_drains)),
        scenarios.drained_node,
    ),
    Mutant(
        "a replica makes room in time",
        patched("controller.core.room.may_make_room", lambda *_: False),
        scenarios.makes_room,
    ),
    Mutant(
        "it does so early enough for those that end after it",
        patched("controller.core.room.Situation.ending_after", lambda *_: 0),
        scenarios.makes_room_while_busy,
    ),
    Mutant(
        "a replica makes room only while others serve",
        patched("controller.core.room.Situation.ready_without", lambda self, _attempt: self.target),
        scenarios.makes_room,
    ),
    Mutant(
        "a time limit that is cut moves the hand-over",
        patched("controller.core.fold._started", started_with_its_first_limit),
        scenarios.limit_cut,
    ),
    Mutant(
        "a time limit that is extended moves the hand-over",
        patched("controller.core.fold._started", started_with_its_first_limit),
        scenarios.limit_extended,
    ),
    Mutant(
        "a job is shortened before a maintenance",
        patched("controller.core.maintenance.shorten", lambda _: ()),
        scenarios.maintenance_ahead,
    ),
    Mutant(
        "a shortening that failed is told, and not made again at once",
        patched("controller.core.maintenance._due_at", lambda _, situation: situation.now),
        scenarios.maintenance_unheard,
    ),
    Mutant(
        "the last maintenance that a job would meet is tried first",
        patched("controller.core.maintenance._ahead", the_first_maintenance),
        scenarios.maintenance_of_one_node_first,
    ),
    Mutant(
        "no job is shortened to less than its service allows",
        patched("controller.core.maintenance._least", lambda *_: 0),
        scenarios.maintenance_too_near,
    ),
    Mutant(
        "a successor that is held is told at once",
        patched("controller.core.continuity._queued", lambda *_: None),
        scenarios.successor_held_and_cancelled,
    ),
    Mutant(
        "a node on which nothing starts is left out",
        patched("controller.cluster.node_records.bad_nodes", lambda *_, **__: ()),
        scenarios.sick_node,
    ),
    Mutant(
        "how nodes fared is read when a term begins",
        patched("controller.cluster.node_records.NodeRecords.learn", learns_nothing),
        scenarios.sick_node_and_another_term,
    ),
    Mutant(
        "a ceiling's GPUs are promised first", patched("controller.cluster.admission.Admission.hold", lambda *_: None)
    ),
    Mutant("gone only when nothing can come", absence_needs_no_sequence),
    Mutant("singleton", patched("controller.slurm.argv.submit_command", without_singleton)),
    Mutant("installation id", patched("tests.simulation.faults.OTHERS", "af-sim-")),
    Mutant("the unknown are left alone", patched("tests.simulation.adapters.SimStore.known", cancels_the_unknown)),
    Mutant(
        "cancel by name and id",
        patched("tests.simulation.adapters.SimScheduler.cancel", cancels_by_id_alone),
        scenarios.id_given_to_another,
    ),
    Mutant(
        "nobody is cancelled before the claim",
        patched("controller.core.fold._losers", cancels_the_younger),
        first=6_000,
    ),
    Mutant(
        "ready by model and secret",
        patched("tests.simulation.adapters.SimProbes.believes", staticmethod(health_is_enough)),
    ),
    Mutant(
        "breaker for mass vanishing",
        patched("controller.cluster.readings.find_in_doubt", lambda *_: frozenset()),
        scenarios.mass_vanishing,
    ),
    Mutant(
        "nothing outdated is closed in a mass vanishing",
        patched("controller.core.situation.Situation.is_certain", lambda self, _attempt: self.is_readable),
        scenarios.changed_in_a_mass_vanishing,
    ),
    Mutant(
        "nothing closed is gone in a mass vanishing",
        patched("controller.core.evidence.is_doubted", only_the_open_are_doubted),
        scenarios.scaled_in_a_mass_vanishing,
    ),
    Mutant(
        "silent engines end the doubt",
        patched("controller.core.evidence.is_silent", lambda *_: False),
        scenarios.all_engines_end_unlisted,
    ),
    Mutant(
        "wrappers without a sign of life end the doubt",
        patched("controller.core.evidence.shows_no_life", lambda *_: False),
        scenarios.wrappers_end_unlisted,
    ),
    Mutant(
        "an answer that proves nothing holds too",
        patched("controller.core.evidence.is_over", silent_wrappers_are_believed),
        scenarios.engine_outlives_its_wrapper,
    ),
    Mutant(
        "a job that is torn down holds nothing up",
        patched("controller.core.evidence.only_tears_down", lambda *_: False),
        scenarios.long_epilog,
    ),
    Mutant(
        "it is torn down once its own record says so",
        patched("controller.core.evidence.only_tears_down", torn_down_without_a_record),
        scenarios.long_drain,
    ),
    Mutant("an engine that answers is not gone", patched("controller.core.evidence.still_answers", lambda *_: False)),
    Mutant(
        "an engine is asked before its node is believed",
        patched("controller.core.evidence.can_be_heard", lambda *_: False),
    ),
    Mutant(
        "slurmctld's CANCELLED is not its node's",
        patched("controller.core.evidence.is_over", any_end_is_believed),
        scenarios.cancelled_without_its_node,
    ),
    Mutant("a claim may be newer than the snapshot", patched("controller.core.evidence.has_begun", begun_once_claimed)),
    Mutant(
        "absence that another term noted does not count",
        patched("controller.core.evidence.absent_since", absent_in_any_term),
        scenarios.clocks_apart,
    ),
    Mutant(
        "the sequence is read before the listing",
        patched("controller.cluster.snapshots.SnapshotTaker.take", sequence_after_the_listing),
        scenarios.listed_before_it_was_sent,
    ),
    Mutant(
        "what is tracked is read before the listing",
        patched("controller.cluster.tracked_attempts.TrackedAttempts.all", tracked_after_the_listing),
        scenarios.burst_during_a_reading,
    ),
    Mutant(
        "an interrupted sbatch counts from its end",
        patched("controller.cluster.sends.Sends._leave_open", old_sequence_stays),
        scenarios.interrupted_while_read,
    ),
    Mutant(
        "exit 0 without an id leaves it open",
        patched("controller.slurm.scheduler.read_answer", no_id_is_a_refusal),
        scenarios.job_without_an_id_waits,
    ),
    Mutant(
        "scancel's exit code counts",
        patched("controller.slurm.errors.cancel_trouble", lambda *_: None),
        scenarios.scancel_fails,
    ),
    Mutant(
        "doubt has an end",
        patched("tests.simulation.controller.LIMITS", Limits(doubt_grace=float("inf"))),
        scenarios.all_jobs_forgotten,
    ),
)


def find(mutant: Mutant, most: int = MOST_SCHEDULES) -> schedules.Outcome:
    """Play its scenario, or search until the mutant is caught or patience ends."""
    with mutant.patch():
        if mutant.scenario is not None:
            return schedules.play(mutant.scenario)
        return schedules.run(most, mutant.first, stop_at_first=True)


def main() -> int:
    """Print the table; the exit code is 1 if a mutant survived."""
    remember_originals()
    print("| rule taken out | schedules until caught | by |\n|---|---|---|")
    survived = 0
    for mutant in MUTANTS:
        outcome = find(mutant)
        found = next(iter(outcome.failures.values()), None)
        survived += found is None
        after = mutant.scenario.__name__ if mutant.scenario else f"{outcome.schedules:,}"
        after = after if found else f"**survived {outcome.schedules:,}**"
        print(f"| {mutant.rule} | {after} | {(found or '')[:110]} |", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

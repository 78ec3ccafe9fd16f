"""The smallest world that a plan can be carried out in: one service, one obedient cluster, virtual time.

For the life of a service as people see it. What may go wrong between the steps is the simulation's affair.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.contract.job.words import ExitReason
from api.contract.status import word
from controller.core.attempt import Attempt, Probe, SendOutcome, Sent
from controller.core.decide import decide
from controller.core.desired import Desired
from controller.core.job_files import Held, JobExit, JobFiles, Revoked
from controller.core.jobs import Job, JobEnd, JobPhase, Snapshot
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.plan import Cancel, Plan, Revoke, Submit
from controller.core.published import Endpoint, Event, Status
from controller.slurm.states import end_of

from .builders import desired


class World:
    """One service; `look` makes passes until nothing is left to do, `wait` lets time go by."""

    def __init__(self, **wanted: Any) -> None:
        self.now = 1_000.0
        self.wanted: Desired = desired(**wanted)
        self.limits = Limits()
        self.attempts: dict[str, Attempt] = {}
        self.status = Status()
        self.endpoints: tuple[Endpoint, ...] = ()
        self.events: list[Event] = []
        self.jobs: dict[int, Job] = {}
        self.files: dict[str, JobFiles] = {}
        self.probes: dict[str, Probe] = {}
        self.sent: dict[str, Sent] = {}
        self.cancelled: dict[str, float] = {}
        self.answer = SendOutcome.ACCEPTED
        self._sequence = 0

    @property
    def word(self) -> str:
        return word(wanted=self.wanted.running, conditions=self.status.conditions)

    @property
    def newest(self) -> Attempt:
        return max(self.attempts.values(), key=lambda a: a.incarnation)

    @property
    def job(self) -> Job:
        """The newest job."""
        return self.jobs[max(self.jobs)]

    def wish(self, **changes: Any) -> None:
        self.wanted = replace(self.wanted, generation=self.wanted.generation + 1, **changes)
        self.look()

    def look(self) -> Plan:
        """Make passes, each on a new reading, until one has nothing to record and nothing to do."""
        for _ in range(20):
            plan = decide(self.wanted, self._observe(), self.now, self.limits)
            self._record(plan)
            for action in plan.actions:
                self._act(action)
            if not plan.attempts and not plan.actions:
                return plan
        raise AssertionError(f"it does not come to rest: {plan}")

    def wait(self, seconds: float) -> None:
        """Let time go by in steps of a second, looking at each."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + 1, until)
            self.look()

    def run(self, step: str, port: int | None = None, job: Job | None = None) -> None:
        """A job, the newest, runs, and its wrapper has come so far."""
        job = job or self.job
        self.put(JobPhase.RUNNING, job, node="n1", started_at=job.started_at or self.now)
        files = self.files.get(job.token, JobFiles())
        self.files[job.token] = replace(files, claim=Held(job_id=job.job_id), step=step, port=port)
        self.look()

    def serve(self, job: Job | None = None) -> None:
        """From the queue to the first answer."""
        job = job or self.job
        self.run("serving", 8000, job)
        self.probe(job, ready=True)

    def serve_all(self) -> None:
        """Every job that waits comes to serve."""
        for job in self.alive():
            if job.phase is JobPhase.PENDING:
                self.serve(job)

    def probe(self, job: Job | None = None, *, ready: bool, failures: int = 0) -> None:
        self.probes[(job or self.job).token] = Probe(at=self.now, ready=ready, failures=failures)
        self.look()

    def end(self, state: str, *, exit_: JobExit | None = None) -> None:
        """The newest job ends."""
        self.files[self.job.token] = replace(self.files.get(self.job.token, JobFiles()), exit=exit_)
        self.put(JobPhase.ENDED, state=state)
        self.look()

    def put(self, phase: JobPhase, job: Job | None = None, **changes: Any) -> None:
        job = job or self.job
        self.jobs[job.job_id] = replace(
            job, **{"phase": phase, "state": phase.name, "end": end_of(changes.get("state", "")), **changes}
        )

    def terminate(self, job: Job) -> None:
        """A job that has begun says that it was told to end."""
        files = self.files.get(job.token, JobFiles())
        if files.claim is not None and files.exit is None:
            self.files[job.token] = replace(files, exit=JobExit(code=143, reason=ExitReason.TERMINATED, message=""))

    def alive(self) -> list[Job]:
        return [j for j in self.jobs.values() if j.phase is not JobPhase.ENDED]

    def _observe(self) -> Observed:
        self._sequence += 1
        by_token: dict[str, tuple[Job, ...]] = {}
        for job in self.jobs.values():
            by_token[job.token] = (*by_token.get(job.token, ()), job)
        newest = {a.replica: a for a in sorted(self.attempts.values(), key=lambda a: a.incarnation)}
        kept = tuple(a for a in self.attempts.values() if a.gone_at is None or newest[a.replica] is a)
        return Observed(
            attempts=kept,
            endpoints=self.endpoints,
            status=self.status,
            snapshot=Snapshot(sequence=self._sequence, began_at=self.now, jobs=by_token),
            reading_failure=None,
            files=self.files,
            probes=self.probes,
            sent=self.sent,
            cancelled=self.cancelled,
        )

    def _record(self, plan: Plan) -> None:
        for attempt in plan.attempts:
            before = self.attempts.get(attempt.token)
            assert before is None or before.open or not attempt.open, "a closed attempt stays closed"
            self.attempts[attempt.token] = attempt
        self.status = plan.status or self.status
        self.endpoints = self.endpoints if plan.endpoints is None else plan.endpoints
        self.events += plan.events

    def _act(self, action: Submit | Cancel | Revoke) -> None:
        if isinstance(action, Submit):
            assert action.token not in self.sent, "nothing is sent twice"
            self._submit(action.token)
        elif isinstance(action, Cancel):
            assert not self.attempts[action.token].open, "only what is closed is cancelled"
            self.cancelled[action.token] = self.now
            if self.jobs[action.job_id].phase is JobPhase.RUNNING:
                self.terminate(self.jobs[action.job_id])
            self.jobs[action.job_id] = replace(
                self.jobs[action.job_id], phase=JobPhase.ENDED, state="CANCELLED", end=JobEnd.CANCELLED
            )
        elif self.files.get(action.token, JobFiles()).claim is None:
            self.files[action.token] = JobFiles(claim=Revoked())

    def _submit(self, token: str) -> None:
        self._sequence += 1
        job_id = len(self.jobs) + 1 if self.answer is SendOutcome.ACCEPTED else None
        self.sent[token] = Sent(outcome=self.answer, sequence=self._sequence, job_id=job_id, message="Slurm says no.")
        if job_id is not None:
            self.jobs[job_id] = Job(job_id=job_id, token=token, phase=JobPhase.PENDING, state="PENDING")

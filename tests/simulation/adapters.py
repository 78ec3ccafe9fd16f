"""The ports of one simulated controller. Every call has a boundary before and after its effect: there it can die."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from api.contract.job.parameters import Door
from api.contract.job.token import prefix
from api.contract.launch import Health, Submission
from controller.core.attempt import Attempt, Probe, ProbeSpec, Sent
from controller.core.job_files import Claim, Held, JobExit, JobFiles, Revoked, Unreadable
from controller.core.jobs import Job, Maintenance
from controller.core.lead import Way
from controller.core.plan import Plan
from controller.ports import (
    Clock,
    Gateway,
    JobFolder,
    Listing,
    Record,
    Term,
    Tracked,
    UnreadableError,
    UsedTokenError,
)
from controller.signs import Sign, Signs
from controller.slurm import argv, errors, scheduler
from controller.slurm.runner import Completed
from tests.simulation.slurm import MODEL, NODES, Listener

if TYPE_CHECKING:
    from tests.simulation.controller import SimController
    from tests.simulation.slurm import SimJob
    from tests.simulation.world import World

REVOKED = -1
ANY_PROBE = ProbeSpec(engine="vllm", model=MODEL, health=Health())

ANSWERS = {
    "accepted": (0, "{}\n", ""),
    "unlabelled": (0, "", ""),
    "deferred": (1, "", "sbatch: error: Batch job submission failed: QOSMaxSubmitJobPerUserLimit"),
}
"""What sbatch exits with and prints, by what becomes of it; of all else it says nothing before it is killed."""

BOUNDARIES = (
    "before take", "after take", "renew", "keys", "tracked", "known", "ways", "load",
    "before squeue", "squeue hangs", "after squeue", "before sacct", "after sacct",
    "before record", "after record", "before prepare", "after prepare",
    "before sbatch", "after sbatch", "before note", "after note",
    "before scancel", "after scancel", "before revoke", "after revoke",
    "gateways", "before tell a door", "after tell a door",
)  # fmt: skip
"""Where a controller can be killed, paused and deposed: before and after everything it does to its world."""
EFFECTS = ("before record", "before sbatch", "before note", "before scancel", "before revoke")
"""Where a leader that is paused, deposed and wakes up is about to do something."""


class Boundary:
    """Where a coroutine gives itself into the driver's hands."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __await__(self) -> Generator[Boundary, None, None]:
        yield self


def writes(plan: Plan) -> bool:
    """Whether a plan is written, or its actions are for the fence to allow."""
    return bool(plan.attempts or plan.events or plan.actions) or (plan.status or plan.endpoints) is not None


class SimStore:
    """The store, on a database that is busy at times, and whose commits' answers get lost."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def keys(self) -> tuple[str, ...]:
        await Boundary("keys")
        self._world.check_database()
        return await self._world.database.store.keys()

    async def changed(self, since: int) -> tuple[int, tuple[str, ...]]:
        self._world.check_database()
        return await self._world.database.store.changed(since)

    def wakeups(self) -> AsyncIterator[None]:
        raise AssertionError("wake-ups are the driver's")

    async def load(self, key: str) -> Record | None:
        await Boundary("load")
        self._world.check_database()
        return await self._world.database.store.load(key)

    async def record(self, term: Term, record: Record, plan: Plan, now: float) -> None:
        await Boundary("before record")
        self._world.check_database()
        self._world.maybe_fail_the_commit()
        self._world.show(record, plan)
        await self._world.database.store.record(term, record, plan, now)
        self._world.judge_plan(record, plan)
        if writes(plan):
            self._world.judge_write(term)
            self._world.judge_ceiling()
        await Boundary("after record")
        self._world.maybe_lose_the_answer()

    async def note(self, term: Term, token: str, sent: Sent, now: float) -> None:
        await Boundary("before note")
        if self._world.now < self._world.database_fails_until:
            return  # the store says so in its log, and looking finds the id
        await self._world.database.store.note(term, token, sent, now)
        await Boundary("after note")

    async def tracked(self) -> tuple[Tracked, ...]:
        await Boundary("tracked")
        self._world.check_database()
        return await self._world.database.store.tracked()

    async def known(self, tokens: Collection[str]) -> Mapping[str, bool]:
        await Boundary("known")
        self._world.check_database()
        return await self._world.database.store.known(tokens)

    async def placed(self, since: float) -> Sequence[Attempt]:
        self._world.check_database()
        return await self._world.database.store.placed(since)

    async def ways(self, since: float) -> Sequence[tuple[str, Way]]:
        await Boundary("ways")
        self._world.check_database()
        return await self._world.database.store.ways(since)

    async def gateways(self) -> tuple[Gateway, ...]:
        await Boundary("gateways")
        self._world.check_database()
        return await self._world.database.store.gateways()

    async def forget_gateways(self, ids: Collection[str]) -> None:
        self._world.check_database()
        self._world.reach("gateway forgotten")
        await self._world.database.store.forget_gateways(ids)


class SimScheduler:
    """Slurm's commands: they fail, hang, and are carried out after they have given up."""

    def __init__(self, world: World, controller: SimController) -> None:
        self._world = world
        self._controller = controller
        self._number = 0
        self.listed = 0
        """The moment of the newest listing."""
        self.returned: dict[str, int] = {}
        """The moment at which the sbatch of a token had returned."""

    def next_sequence(self) -> int:
        self._number += 1
        return self._number

    async def list_jobs(self) -> Listing:
        await Boundary("before squeue")
        world = self._world
        if world.now < world.slurm.silent_until:
            await Boundary("squeue hangs")
            raise UnreadableError("SlurmUnreachable", "Unable to contact slurm controller (connect failure)")
        slurm = world.slurm
        jobs = [j.seen(slurm.reason(j, world.now)) for j in slurm.listing(world.now) if self._is_ours(j)]
        self.listed = world.tick()
        await Boundary("after squeue")
        return Listing(jobs=tuple(jobs))

    async def ended_jobs(self, job_ids: Collection[int]) -> Mapping[int, Job] | None:
        await Boundary("before sacct")
        world = self._world
        if not world.slurm.has_accounting:
            return None
        if world.now < world.slurm.accounting_down_until:
            raise UnreadableError("AccountingDown", "Problem talking to the database: Connection refused")
        found = [row for i in job_ids if (row := world.slurm.ended(i, world.now)) is not None]
        live = [j for j in world.slurm.jobs.values() if j.alive and j.job_id in job_ids]
        await Boundary("after sacct")
        return {j.job_id: j.accounted() for j in (*live, *found) if self._is_ours(j)}

    async def addresses(self) -> Mapping[str, str]:
        if self._world.now < self._world.slurm.silent_until:
            raise UnreadableError("SlurmUnreachable", "Unable to contact slurm controller (connect failure)")
        return NODES

    async def leaving(self, nodes: Collection[str]) -> Mapping[str, str]:
        if self._world.now < self._world.slurm.silent_until:
            raise UnreadableError("SlurmUnreachable", "Unable to contact slurm controller (connect failure)")
        return {node: "draining" for node in self._world.slurm.leaving if node in nodes}

    async def maintenances(self) -> tuple[Maintenance, ...]:
        if self._world.now < self._world.slurm.silent_until:
            raise UnreadableError("SlurmUnreachable", "Unable to contact slurm controller (connect failure)")
        return tuple(each.seen() for each in self._world.slurm.maintenances)

    async def shorten(self, token: str, minutes: int) -> None:
        await Boundary("before shorten")
        world = self._world
        world.reach("shortened")
        is_silent = world.now < world.slurm.silent_until
        is_done = not is_silent and world.slurm.shorten(token, minutes)
        await Boundary("after shorten")
        if not is_done:
            raise UnreadableError("SlurmFailed", "scontrol: Unable to contact slurm controller, or no jobs with name")

    def _is_ours(self, job: SimJob) -> bool:
        return job.name.startswith(prefix(self._world.installation))

    async def submit(self, submission: Submission) -> Sent:
        world, token = self._world, submission.token
        world.reach("sbatch")
        await Boundary("before sbatch")
        fate = world.fate_of_sbatch()
        world.slurm.exclude(token, submission.exclude)
        job_id = None
        dependencies = [word for word in argv.submit_command(submission) if word.startswith("--dependency")]
        singleton = dependencies[-1:] == ["--dependency=singleton"]
        if fate in ("accepted", "killed after", "unlabelled", "interrupted"):
            job_id = world.slurm.create(token, world.now, singleton=singleton)
        elif fate == "late":
            world.slurm.underway.append((world.now + world.rng.choice((1.0, 20.0, 100.0)), token, singleton))
        elif fate == "doubled":
            job_id = world.slurm.create(token, world.now, singleton=singleton)
            world.slurm.create(token, world.now, singleton=singleton)
        await Boundary("after sbatch")
        self.returned[token] = world.tick()
        if fate == "interrupted":
            raise UnreadableError("SlurmNotStarted", "sbatch printed without end")
        exit_code, stdout, stderr = ANSWERS.get(fate, (None, "", ""))
        answer = Completed(argv=("sbatch",), exit_code=exit_code, stdout=stdout.format(job_id), stderr=stderr)
        return scheduler.read_answer(answer, self.next_sequence())

    async def cancel(self, token: str, job_id: int) -> None:
        await Boundary("before scancel")
        world = self._world
        exit_code, stderr = 0, ""
        if world.now < world.slurm.silent_until:
            exit_code, stderr = 1, "scancel: error: Unable to contact slurm controller (connect failure)"
        elif (job := world.slurm.jobs.get(job_id)) is not None and job.name == token and job.alive:
            world.judge_cancel(job)
            world.slurm.cancel(job, world.now)
        await Boundary("after scancel")
        answer = Completed(argv=("scancel",), exit_code=exit_code, stdout="", stderr=stderr)
        if trouble := errors.cancel_trouble(answer):
            raise UnreadableError(trouble.reason, trouble.message)


class SimRunDirs:
    """The shared folder: it can be away, and what jobs wrote may come late."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._signs = Signs(lambda: world.now)

    async def prepare(
        self, service_id: str, token: str, parameters: bytes, probe: ProbeSpec | None = None
    ) -> JobFolder:
        await Boundary("before prepare")
        self._world.check_folder()
        if self._world.slurm.folder(token).claim is not None:
            self._world.reach("a token was used before")
            raise UsedTokenError(token)
        told, folder = json.loads(parameters), self._world.slurm.folder(token)
        folder.lane, folder.alone = told["lane"], told["alone"]
        await Boundary("after prepare")
        return JobFolder(path=f"/run/{token}", launch_script="/run/launch.sh", wrapper="/run/wrapper.pyz")

    async def read(self, service_id: str, tokens: Collection[str]) -> Mapping[str, JobFiles]:
        found = {token: self.files(token) for token in tokens}
        quiet_for = self._signs.take(service_id, {token: self._sign(token) for token in tokens})
        return {token: replace(files, quiet_for=quiet_for[token]) for token, files in found.items()}

    async def launched(self, service_id: str, token: str) -> ProbeSpec | None:
        """Every engine of the simulation is probed alike."""
        return ANY_PROBE

    def _sign(self, token: str) -> Sign | None:
        found = self._world.slurm.folders.get(token)
        if found is None or found.signed_at is None or self._world.now < self._world.folder_fails_until:
            return None
        return round(found.signed_at * 1000)

    def files(self, token: str) -> JobFiles:
        """Return what of a job's files is seen."""
        world = self._world
        found = world.slurm.folders.get(token)
        if found is None or world.now < world.folder_fails_until:
            return JobFiles()
        is_told = found.told_at is not None
        if world.now < world.files_garbled_until:
            return JobFiles(claim=None if found.claim is None else Unreadable(), is_told_to_drain=is_told)
        late = world.now < world.files_late_until
        claim_hidden = late and world.now - found.claim_at < 30 and found.claim != REVOKED
        claim = None if found.claim is None or claim_hidden else _claim(found.claim)
        if late and world.now - found.written_at < 30:
            return JobFiles(claim=claim, is_told_to_drain=is_told)
        left = JobExit(code=found.exit[0], reason=found.exit[1], message="") if found.exit else None
        return JobFiles(
            claim=claim,
            step=found.step,
            port=found.port,
            exit=left,
            told_to_end_at=found.told_to_end_at,
            is_told_to_drain=is_told,
            is_empty=not world.traffic.is_open(found, world.now) and not world.traffic.in_flight(token, world.now),
        )

    async def last_words(self, _service_id: str, _token: str) -> str:
        return ""

    async def revoke(self, service_id: str, token: str) -> None:
        world = self._world
        await Boundary("before revoke")
        world.check_folder()
        folder = world.slurm.folder(token)
        world.judge_revoke(token)
        world.reach("revoke lost" if folder.claim is not None else "revoke won")
        if folder.claim is None:
            folder.claim, folder.claim_at = REVOKED, world.now
        await Boundary("after revoke")

    async def say_closed(self, service_id: str, token: str) -> None:
        """Simulated jobs take every TERM for somebody else's: they live longer, which is worse."""

    async def tell_door(self, service_id: str, token: str, *, drains: bool) -> None:
        world = self._world
        await Boundary("before tell a door")
        world.check_folder()
        folder = world.slurm.folder(token)
        world.reach("door told to drain" if drains else "door opened again")
        folder.told_at = (folder.told_at or world.now) if drains else None
        await Boundary("after tell a door")

    async def clear(self, service_id: str, token: str) -> None:
        """Nothing secret lies in a simulated folder."""


class SimProbes:
    """What probing the engines tells this controller."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._latest: dict[str, Probe] = {}
        self.watched: dict[str, Attempt] = {}

    def watch(self, attempt: Attempt, spec: ProbeSpec) -> None:
        self.watched[attempt.token] = attempt

    def forget(self, token: str) -> None:
        self.watched.pop(token, None)
        self._latest.pop(token, None)

    def latest(self, token: str) -> Probe | None:
        return self._latest.get(token)

    @staticmethod
    def believes(listener: Listener | None, token: str) -> bool:
        """Whether what listens there is well, knows the attempt's secret, and serves its model."""
        return listener is not None and listener.healthy and (listener.secret, listener.model) == (token, MODEL)

    def probe_all(self) -> list[str]:
        """Probe once; return the services whose health changed."""
        changed = []
        for token, attempt in self.watched.items():
            before = self._latest.get(token)
            found = self._world.listener(attempt.host, attempt.port)
            ready = self.believes(found, token)
            failures = 0 if ready else (before.failures if before else 0) + 1
            is_own = ready and self._world.slurm.engines_prove_themselves
            is_quiet = attempt.draining_since is not None and found is not None and found.is_quiet
            now = self._clock.now()
            quiet_since = (before and before.quiet_since) or now
            self._latest[token] = Probe(
                at=now,
                ready=ready,
                failures=failures,
                is_own=is_own,
                quiet_since=quiet_since if is_quiet else None,
            )
            if before is None or before.ready != ready or not ready:
                changed.append(attempt.service_id)
        return changed


KEY = "key"
"""The id of the one key under which doors are made."""


class SimKeys:
    """The secret of an attempt is its token, and so is all that its door shows."""

    @staticmethod
    def door(token: str, key: str) -> Door | None:
        return Door(certificate=token, key=token, authority=token, id=key) if key == KEY else None

    @staticmethod
    def secret(token: str) -> str:
        return token


class SimClock:
    """The clock of one controller's host, which may be wrong."""

    def __init__(self, world: World, controller: SimController) -> None:
        self._world = world
        self._controller = controller

    def now(self) -> float:
        return self._world.now + self._controller.clock_offset


def _claim(said: int) -> Claim:
    return Revoked() if said == REVOKED else Held(job_id=said)

"""The ports of one simulated controller. Every call has a boundary before and after its effect: there it can die."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from typing import TYPE_CHECKING

from api.contract.launch import LaunchSpec
from controller.core.model import Attempt, Claim, Job, JobExit, JobFiles, Plan, Probe, SendOutcome, Sent
from controller.ports import JobFolder, Listing, Record, Term, Tracked, UnreadableError
from tests.simulation.database import INSTALLATION

if TYPE_CHECKING:
    from tests.simulation.controller import SimController
    from tests.simulation.world import World

OURS = f"af-{INSTALLATION}-"
REVOKED = -1


class Boundary:
    """Where a coroutine gives itself into the driver's hands."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __await__(self) -> Generator[Boundary, None, None]:
        yield self


class SimStore:
    """The store, on a database that is busy at times, and whose commits' answers get lost."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def keys(self) -> tuple[str, ...]:
        await Boundary("keys")
        self._world.check_database()
        return await self._world.store.keys()

    async def changed(self, since: int) -> tuple[int, tuple[str, ...]]:
        self._world.check_database()
        return await self._world.store.changed(since)

    async def load(self, key: str) -> Record | None:
        await Boundary("load")
        self._world.check_database()
        return await self._world.store.load(key)

    async def record(self, term: Term, record: Record, plan: Plan, now: float) -> None:
        await Boundary("before record")
        self._world.check_database()
        self._world.show(record, plan)
        await self._world.store.record(term, record, plan, now)
        self._world.judge_write(term)
        await Boundary("after record")
        self._world.maybe_lose_the_answer()

    async def note(self, term: Term, token: str, sent: Sent, now: float) -> None:
        await Boundary("before note")
        self._world.check_database()
        await self._world.store.note(term, token, sent, now)
        await Boundary("after note")

    async def tracked(self) -> tuple[Tracked, ...]:
        await Boundary("tracked")
        self._world.check_database()
        return await self._world.store.tracked()

    async def known(self, tokens: Collection[str]) -> Mapping[str, bool]:
        await Boundary("known")
        self._world.check_database()
        return await self._world.store.known(tokens)


class SimScheduler:
    """Slurm's commands: they fail, hang, and are carried out after they have given up."""

    def __init__(self, world: World, controller: SimController) -> None:
        self._world = world
        self._controller = controller
        self._number = 0

    def next_sequence(self) -> int:
        self._number += 1
        return self._number

    async def list_jobs(self) -> Listing:
        await Boundary("before squeue")
        world = self._world
        if world.now < world.slurm.silent_until:
            await Boundary("squeue hangs")
            raise UnreadableError("SlurmUnreachable", "Unable to contact slurm controller (connect failure)")
        jobs = [j.seen() for j in world.slurm.listing(world.now) if j.name.startswith(OURS)]
        await Boundary("after squeue")
        return Listing(jobs=tuple(jobs))

    async def ended_jobs(self, job_ids: Collection[int]) -> Mapping[int, Job] | None:
        await Boundary("before sacct")
        world = self._world
        if not world.slurm.has_accounting:
            return None
        if world.now < world.slurm.accounting_down_until:
            raise UnreadableError("AccountingUnreachable", "Problem talking to the database: Connection refused")
        rows = {i: row.seen() for i in job_ids if (row := world.slurm.ended(i, world.now)) is not None}
        live = {j.job_id: j.seen() for j in world.slurm.jobs.values() if j.alive and j.job_id in job_ids}
        await Boundary("after sacct")
        return live | rows

    async def addresses(self) -> Mapping[str, str]:
        return {}

    async def submit(self, token: str, script: str, arguments: tuple[str, ...], options: tuple[str, ...]) -> Sent:
        world = self._world
        world.reach("sbatch")
        await Boundary("before sbatch")
        fate = world.fate_of_sbatch()
        job_id = None
        if fate in ("accepted", "killed after"):
            job_id = world.slurm.create(token, world.now)
        elif fate == "late":
            world.slurm.underway.append((world.now + world.rng.choice((1.0, 20.0, 100.0)), token))
        elif fate == "doubled":
            job_id = world.slurm.create(token, world.now)
            world.slurm.create(token, world.now)
        await Boundary("after sbatch")
        if fate == "accepted":
            return Sent(outcome=SendOutcome.ACCEPTED, sequence=self.next_sequence(), job_id=job_id)
        if fate == "deferred":
            return Sent(outcome=SendOutcome.DEFERRED, sequence=self.next_sequence(), message="QOSMaxSubmitJobPerUser")
        return Sent(outcome=SendOutcome.UNKNOWN, sequence=self.next_sequence(), message="Socket timed out")

    async def cancel(self, token: str, job_id: int) -> None:
        await Boundary("before scancel")
        world = self._world
        if world.now < world.slurm.silent_until:
            raise UnreadableError("SlurmUnreachable", "Unable to contact slurm controller")
        job = world.slurm.jobs.get(job_id)
        if job is not None and job.name == token and job.alive:
            world.judge_cancel(job)
            world.slurm.cancel(job, world.now)
        await Boundary("after scancel")


class SimRunDirs:
    """The shared folder: it can be away, and what jobs wrote may come late."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def prepare(self, service_id: str, token: str, parameters: bytes) -> JobFolder:
        await Boundary("before prepare")
        self._world.check_folder()
        self._world.slurm.folder(token)
        await Boundary("after prepare")
        return JobFolder(path=f"/run/{token}", launch_script="/run/launch.sh", wrapper="/run/wrapper.pyz")

    async def read(self, service_id: str, tokens: Collection[str]) -> Mapping[str, JobFiles]:
        return {token: self.files(token) for token in tokens}

    def files(self, token: str) -> JobFiles:
        """Return what of a job's files is seen."""
        world = self._world
        found = world.slurm.folders.get(token)
        if found is None or world.now < world.folder_fails_until:
            return JobFiles()
        late = world.now < world.files_late_until
        claim_hidden = late and world.now - found.claim_at < 30 and found.claim != REVOKED
        claim = None if found.claim is None or claim_hidden else Claim(job_id=None if found.claim < 0 else found.claim)
        if late and world.now - found.written_at < 30:
            return JobFiles(claim=claim)
        left = JobExit(code=found.exit[0], reason=found.exit[1], message="") if found.exit else None
        return JobFiles(claim=claim, step=found.step, port=found.port, exit=left)

    async def revoke(self, service_id: str, token: str) -> None:
        world = self._world
        await Boundary("before revoke")
        world.check_folder()
        folder = world.slurm.folder(token)
        world.reach("revoke lost" if folder.claim is not None else "revoke won")
        if folder.claim is None:
            folder.claim, folder.claim_at = REVOKED, world.now
        await Boundary("after revoke")


class SimProbes:
    """What probing the engines tells this controller."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._latest: dict[str, Probe] = {}
        self.watched: dict[str, Attempt] = {}

    def watch(self, attempt: Attempt, spec: LaunchSpec) -> None:
        self.watched[attempt.token] = attempt

    def forget(self, token: str) -> None:
        self.watched.pop(token, None)
        self._latest.pop(token, None)

    def latest(self, token: str) -> Probe | None:
        return self._latest.get(token)

    def probe_all(self) -> list[str]:
        """Probe once; return the services whose health changed."""
        changed = []
        for token, attempt in self.watched.items():
            before = self._latest.get(token)
            ready = self._world.answers(token)
            failures = 0 if ready else (before.failures if before else 0) + 1
            self._latest[token] = Probe(at=self._world.now, ready=ready, failures=failures)
            if before is None or before.ready != ready or not ready:
                changed.append(attempt.service_id)
        return changed


class SimClock:
    """Virtual time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.now

"""The protocols between the pass and the world. Adapters implement them; tests may put simulations behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from api.contract.job.parameters import Door, Image
from api.contract.launch import Resources, Submission
from controller.core.attempt import Attempt, Probe, ProbeSpec, Sent
from controller.core.desired import Desired
from controller.core.job_files import JobFiles
from controller.core.jobs import Job, Maintenance
from controller.core.lead import Way
from controller.core.plan import Plan
from controller.core.published import Endpoint, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """The right to act: a lease held under an ever-growing epoch."""

    epoch: int
    began_at: float


class UsedTokenError(OSError):
    """The job folder of a token that is to be submitted is claimed already: the token was given out before."""


class DeposedError(Exception):
    """Another controller holds the lease, or nobody does: whoever sees this stops acting at once."""


SLURM_TIMEOUT = "SlurmTimeout"
"""The reason of those that have taken all the time that a command has (`slurm.command_timeout`)."""


class UnreadableError(Exception):
    """A reading of the cluster failed: there is no snapshot. Never to be taken for an empty one."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one squeue says of our jobs."""

    jobs: tuple[Job, ...]


class Scheduler(Protocol):
    """The cluster. Calls raise `UnreadableError` when it does not answer; none of them retries."""

    async def list_jobs(self) -> Listing:
        """List all jobs of this user that bear a token of this installation, ended ones that are still listed too."""
        ...

    async def ended_jobs(self, job_ids: Collection[int]) -> Mapping[int, Job] | None:
        """Ask accounting about jobs that left the listing; unknown ids are absent. `None`: the site has none."""
        ...

    async def addresses(self) -> Mapping[str, str]:
        """Return every node's address (NodeAddr)."""
        ...

    async def leaving(self, nodes: Collection[str]) -> Mapping[str, str]:
        """Return those of the nodes that are being taken out of service, with their states."""
        ...

    async def maintenances(self) -> tuple[Maintenance, ...]:
        """Return the maintenance that goes on or is to come, as far as this user may see it."""
        ...

    async def submit(self, submission: Submission) -> Sent:
        """Run sbatch once. The sequence of what is returned is taken after it returned. Never raises for Slurm's no."""
        ...

    async def cancel(self, token: str, job_id: int) -> None:
        """Cancel the job of that name and that id; a job that is gone, or has another name, is left alone."""
        ...

    async def shorten(self, token: str, minutes: int) -> None:
        """Set the time limit of the jobs of that name that have not ended. That there is none is a failure, too."""
        ...

    def next_sequence(self) -> int:
        """Take the next number of the counter that orders readings and returned submissions within a term."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFolder:
    """Where an attempt's job finds its things, as absolute paths on the shared file system."""

    path: str
    launch_script: str
    """The fixed batch script."""
    wrapper: str
    """The supervisor that it starts."""

    def arguments(self, python: str) -> tuple[str, str, str]:
        """Return what the script is called with, if this Python is to run the supervisor."""
        return self.path, self.wrapper, python

    def submission(
        self,
        token: str,
        resources: Resources,
        *,
        python: str,
        comment: str,
        warning: int,
        after: int | str | None = None,
    ) -> Submission:
        """Return the submission of the job that finds its things here; `python` runs its wrapper."""
        return Submission(
            token=token,
            resources=resources,
            folder=self.path,
            script=self.launch_script,
            arguments=self.arguments(python),
            comment=comment,
            warning=warning,
            after=after,
        )


class RunDirs(Protocol):
    """The job folders on the shared file system. Calls raise `OSError` when it can't be used."""

    async def prepare(
        self, service_id: str, token: str, parameters: bytes, probe: ProbeSpec | None = None
    ) -> JobFolder:
        """Create the folder (0700) of an attempt, with its parameters and how its engine is probed (0600)."""
        ...

    async def launched(self, service_id: str, token: str) -> ProbeSpec | None:
        """Return how the engine of an attempt is probed, as `prepare` noted it; `None`: it did not, or it is lost."""
        ...

    async def read(self, service_id: str, tokens: Collection[str]) -> Mapping[str, JobFiles]:
        """Read what each of these jobs has written; files that are absent or garbled are `None`.

        What could not be looked at is neither: it raises.
        """
        ...

    async def last_words(self, service_id: str, token: str) -> str:
        """Return the last lines that a job which has ended left in its standard error; "" if there are none."""
        ...

    async def revoke(self, service_id: str, token: str) -> None:
        """Link the claim as revoked, if nobody has it. Who has it is found by the next `read`."""
        ...

    async def say_closed(self, service_id: str, token: str) -> None:
        """Tell the job of a closed attempt that it is the controller who ends it; raises `OSError` if that can't be."""
        ...

    async def tell_door(self, service_id: str, token: str, *, drains: bool) -> None:
        """Have an attempt's door let nobody new in, or let them in again. Of a folder that is gone nothing is told."""
        ...

    async def clear(self, service_id: str, token: str) -> None:
        """Remove the parameters of an attempt that is gone, if they are there still: they hold its secret."""
        ...


class JobKeys(Protocol):
    """What jobs prove themselves by, and know their clients by."""

    def door(self, token: str, key: str) -> Door | None:
        """Return what a job needs to open its door, made under that key; `None`: the key is not there any more."""
        ...

    def secret(self, token: str) -> str | None:
        """Return the secret of an attempt without a door; `None`: there is no key."""
        ...


class LostKeyError(Exception):
    """The key is not there under which the door of an attempt was to be made."""


class ImageMakers(Protocol):
    """Jobs that make images for the jobs of services."""

    async def awaited(self, image: Image | None) -> int | None:
        """Return the job that makes an image which is not there yet, submitting one if need be; `None`: there is none.

        It raises nothing: what can't be made beforehand is made by the job of the service.
        """
        ...


class Probes(Protocol):
    """The readiness and liveness of engines, kept up to date in the background."""

    def watch(self, attempt: Attempt, spec: ProbeSpec) -> None:
        """Probe this attempt from now on, under its secret; a change of its health wakes its service."""
        ...

    def forget(self, token: str) -> None:
        """Stop probing it."""
        ...

    def latest(self, token: str) -> Probe | None:
        """Return the latest result, if there is one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPorts:
    """The ways to one cluster."""

    scheduler: Scheduler
    run_dirs: RunDirs
    probes: Probes
    images: ImageMakers | None = None
    """`None`: each job makes its image itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the database holds about one service."""

    desired: Desired
    status: Status
    endpoints: tuple[Endpoint, ...]
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """One attempt that is not gone yet, as those who read the cluster need to know it."""

    service_id: str
    token: str
    job_id: int | None
    open: bool
    started: bool
    settled: bool = False
    """Whether it is as it should be: nothing is expected to change soon."""
    gpus: int = 0
    """That its job asks for."""

    @classmethod
    def of(cls, attempt: Attempt) -> Tracked:
        """Return what is tracked of an attempt."""
        return cls(
            service_id=attempt.service_id,
            token=attempt.token,
            job_id=attempt.job_id,
            open=attempt.open,
            started=attempt.started_at is not None,
            settled=attempt.ready,
            gpus=attempt.gpus,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway, in its own words."""

    id: str
    applied: int
    """Up to which number of the feed it has heard all."""
    signs: int
    """How many signs of life it has given: whether that changes says whether it lives."""


class Store(Protocol):
    """The database as the controller uses it. Every write is fenced by the term."""

    async def keys(self) -> tuple[str, ...]:
        """Return the ids of all services that are not purged."""
        ...

    async def changed(self, since: int) -> tuple[int, tuple[str, ...]]:
        """Return the feed's position and the services changed by people after `since`."""
        ...

    def wakeups(self) -> AsyncIterator[None]:
        """Wake up whenever people may have changed something. Losing one costs a resync, no more."""
        ...

    async def load(self, key: str) -> Record | None:
        """Read one service: what is wanted, its status, its attempts."""
        ...

    async def record(self, term: Term, record: Record, plan: Plan, now: float) -> None:
        """Write the plan in one immediate transaction under the term; raises `DeposedError`."""
        ...

    async def note(self, term: Term, token: str, sent: Sent, now: float) -> None:
        """Write what sbatch answered; best effort, looking repairs it."""
        ...

    async def tracked(self) -> tuple[Tracked, ...]:
        """Return all attempts that are not gone."""
        ...

    async def known(self, tokens: Collection[str]) -> Mapping[str, bool]:
        """Return, for those of the tokens that the database has ever heard of, whether their attempt is closed."""
        ...

    async def placed(self, since: float) -> Sequence[Attempt]:
        """Return the newest attempts that had a node and were not closed before `since`."""
        ...

    async def ways(self, since: float) -> Sequence[tuple[str, Way]]:
        """Return the newest jobs that began, of those wanted after `since`, each with the digest of its launch."""
        ...

    async def gateways(self) -> tuple[Gateway, ...]:
        """Return all gateways that have ever said that they live, and were not forgotten."""
        ...

    async def forget_gateways(self, ids: Collection[str]) -> None:
        """Remove gateways that have long given no sign of life; one that lives after all says so again."""
        ...


class Witness(Protocol):
    """Whoever counts what goes on, for the metrics. It must cost nothing worth mentioning."""

    def passing(self) -> AbstractContextManager[None]:
        """Stand by one pass: how long it takes, and by what it raises how it ends."""
        ...

    def has_read(self, *, well: bool) -> None:
        """Take note of one reading of the cluster."""
        ...


class Clock(Protocol):
    """Time from outside."""

    def now(self) -> float:
        """Return Unix seconds."""
        ...

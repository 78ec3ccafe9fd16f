"""act: carry out a plan's actions, after it was recorded. Nothing here decides, and nothing is sent twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from api.contract.job.own_trouble import is_own_trouble
from api.contract.log import about
from controller.cluster.cluster import Cluster
from controller.core.attempt import Attempt, ProbeSpec
from controller.core.jobs import JobPhase
from controller.core.plan import Action, Cancel, Drain, Reopen, Revoke, Shorten, Submit
from controller.core.script import Site, parameters
from controller.failpoints import reach
from controller.observe import probe_spec
from controller.ports import (
    SLURM_TIMEOUT,
    Clock,
    DeposedError,
    JobFolder,
    JobKeys,
    LostKeyError,
    Record,
    Store,
    Term,
    UnreadableError,
    UsedTokenError,
)

log = logging.getLogger(__name__)


@contextmanager
def kept(failures: list[Exception]) -> Iterator[None]:
    """Keep what fails, and let the rest go on; that the term is over is raised."""
    try:
        yield
    except DeposedError:
        raise
    except Exception as error:
        log.warning("an action failed, and the others go on", extra={"error": f"{type(error).__name__}: {error}"})
        failures.append(error)


def _is_silence(failure: Exception) -> bool:
    return isinstance(failure, UnreadableError) and failure.reason == SLURM_TIMEOUT


class ActionExecutor:
    """Acts on a cluster for one term."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        clock: Clock,
        site: Site,
        keys: JobKeys,
        may_act: Callable[[], bool],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._clock = clock
        self._site = site
        self._keys = keys
        self._may_act = may_act
        self._probed_as: dict[str, ProbeSpec] = {}

    async def act(self, term: Term, record: Record, attempts: tuple[Attempt, ...], actions: tuple[Action, ...]) -> None:
        """Carry out the actions in their order; one that fails stops no other.

        Raises the first failure once all is done: what the cluster, the database or the file system raise; and
        DeposedError, at once.
        """
        by_token = {a.token: a for a in attempts}
        was_there = {a.token for a in record.attempts if a.gone_at is None}
        failures: list[Exception] = []
        for action in actions:
            if not self._may_act():
                raise DeposedError("The lease was not renewed in time.")
            attempt = by_token[action.token]
            if isinstance(action, Cancel | Shorten) and any(map(_is_silence, failures)):
                continue  # each would wait for as long again
            with about(token=action.token, job_id=attempt.job_id), kept(failures):
                await self._carry_out(term, record, action, attempt)
        for attempt in attempts:
            with about(token=attempt.token, job_id=attempt.job_id), kept(failures):
                if attempt.gone_at is not None and attempt.token in was_there:
                    # Nothing secret is to lie in its folder: a job that never ran has not removed it.
                    await self._cluster.run_dirs.clear(attempt.service_id, attempt.token)
                await self._keep_probing(record, attempt)
        if failures:
            raise failures[0]

    async def _carry_out(self, term: Term, record: Record, action: Action, attempt: Attempt) -> None:
        if isinstance(action, Submit):
            await self._submit(term, record, attempt, action.exclude)
        elif isinstance(action, Cancel):
            await self._cancel(action, attempt)
        elif isinstance(action, Drain | Reopen):
            await self._tell_door(action, attempt)
        elif isinstance(action, Shorten):
            await self._shorten(action)
        else:
            await self._revoke(action, attempt)

    async def _keep_probing(self, record: Record, attempt: Attempt) -> None:
        """Probe what may serve, closed or not: an engine that answers is not gone, whatever the listing says."""
        if attempt.gone_at is not None:
            self._cluster.forget(attempt.token)
            self._probed_as.pop(attempt.token, None)
        elif self._is_suspended(attempt):
            # What an engine did not answer while it was stopped counts nothing once it goes on.
            self._cluster.probes.forget(attempt.token)
        elif attempt.serving_at is not None:
            known = self._probed_as.get(attempt.token)
            spec = known or await probe_spec(record, attempt, self._cluster.run_dirs)
            if spec is not None:
                self._probed_as[attempt.token] = spec
                self._cluster.probes.watch(attempt, spec)

    def _is_suspended(self, attempt: Attempt) -> bool:
        snapshot = self._cluster.snapshots.latest
        jobs = snapshot.jobs.get(attempt.token, ()) if snapshot is not None else ()
        return any(j.job_id == attempt.job_id and j.phase is JobPhase.SUSPENDED for j in jobs)

    async def _submit(self, term: Term, record: Record, attempt: Attempt, exclude: tuple[str, ...]) -> None:
        cluster, sends = self._cluster, self._cluster.sends
        if attempt.token in sends.sent or record.desired.spec is None:
            return
        try:
            folder = await self._prepare(record, attempt)
        except UsedTokenError:
            message = "Its token was used before this database was restored; the next one is tried."
            sends.put_off(attempt.token, message)
            return
        except LostKeyError:
            message = "The key of its door is not in the key file any more; the next attempt takes the newest one."
            sends.put_off(attempt.token, message)
            return
        except OSError as error:
            is_own = is_own_trouble(error)
            remedy = "See ulimit -a on this host." if is_own else "Free space there or mend its permissions."
            message = f"The job folder in RUN_DIR can't be written: {error}. {remedy}"
            sends.put_off(attempt.token, message)
            return
        after = await cluster.images.awaited(record.desired.spec.image) if cluster.images is not None else None
        if not self._may_act():  # a slow file system may have taken longer than the lease lasts
            raise DeposedError("The lease was not renewed in time.")
        submission = folder.submission(
            attempt.token,
            record.desired.spec.resources,
            python=self._site.python,
            comment=record.desired.name,
            warning=self._site.time_warning,
            after=after,
        )
        sent = await sends.submit(replace(submission, exclude=exclude))
        log.info("sbatch returned", extra={"job_id": sent.job_id, "outcome": sent.outcome, "answer": sent.message})
        await self._store.note(term, attempt.token, sent, self._clock.now())

    async def _prepare(self, record: Record, attempt: Attempt) -> JobFolder:
        spec = record.desired.spec
        assert spec is not None
        door = self._keys.door(attempt.token, attempt.door) if attempt.door is not None else None
        if door is None and spec.has_door:
            raise LostKeyError
        told = parameters(spec, attempt, self._keys.secret(attempt.token), self._site, door)
        reach("before prepare")
        content, probe = told.to_json().encode(), ProbeSpec.of(spec)
        folder = await self._cluster.run_dirs.prepare(attempt.service_id, attempt.token, content, probe)
        reach("after prepare")
        return folder

    async def _cancel(self, action: Cancel, attempt: Attempt) -> None:
        if not attempt.open:  # else it is a second job of its token that is cancelled
            try:
                await self._cluster.run_dirs.say_closed(attempt.service_id, action.token)
            except OSError as error:
                log.warning("the job can't be told who ends it, and takes its time", extra={"error": str(error)})
        await self._cluster.sends.cancel(action.token, action.job_id)
        log.info("scancel returned", extra={"job_id": action.job_id})

    async def _shorten(self, action: Shorten) -> None:
        sends = self._cluster.sends
        await sends.shorten(action)
        trouble = sends.shortened[action.token].trouble
        log.info("scontrol returned", extra={"time_limit_minutes": action.minutes, "trouble": trouble})

    async def _revoke(self, action: Revoke, attempt: Attempt) -> None:
        reach("before revoke")
        await self._cluster.run_dirs.revoke(attempt.service_id, action.token)
        reach("after revoke")
        log.info("the claim is revoked, unless a job has it")

    async def _tell_door(self, action: Drain | Reopen, attempt: Attempt) -> None:
        reach("before tell a door")
        await self._cluster.run_dirs.tell_door(attempt.service_id, action.token, drains=isinstance(action, Drain))
        reach("after tell a door")
        log.info("its door is told", extra={"drains": isinstance(action, Drain)})

"""act: carry out a plan's actions, after it was recorded. Nothing here decides, and nothing is sent twice."""

from __future__ import annotations

import logging
from collections.abc import Callable

from api.contract.job.own_trouble import is_own_trouble
from api.contract.log import about
from controller.cluster.cluster import Cluster
from controller.core.attempt import Attempt, ProbeSpec
from controller.core.jobs import JobPhase
from controller.core.plan import Action, Cancel, Revoke, Submit
from controller.core.script import Site, parameters
from controller.failpoints import reach
from controller.observe import probe_spec
from controller.ports import (
    Clock,
    DeposedError,
    JobFolder,
    JobKeys,
    LostKeyError,
    Record,
    Store,
    Term,
    UsedTokenError,
)

log = logging.getLogger(__name__)


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
        time_warning: int,
        may_act: Callable[[], bool],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._clock = clock
        self._site = site
        self._keys = keys
        self._time_warning = time_warning
        self._may_act = may_act
        self._probed_as: dict[str, ProbeSpec] = {}

    async def act(self, term: Term, record: Record, attempts: tuple[Attempt, ...], actions: tuple[Action, ...]) -> None:
        """Carry out the actions in their order; raises what the cluster or the file system raises, and DeposedError."""
        by_token = {a.token: a for a in attempts}
        for action in actions:
            if not self._may_act():
                raise DeposedError("The lease was not renewed in time.")
            attempt = by_token[action.token]
            with about(token=action.token, job_id=attempt.job_id):
                if isinstance(action, Submit):
                    await self._submit(term, record, attempt)
                elif isinstance(action, Cancel):
                    await self._cancel(action)
                else:
                    await self._revoke(action, attempt)
        await self._clear(record, attempts)
        await self._keep_probing(record, attempts)

    async def _clear(self, record: Record, attempts: tuple[Attempt, ...]) -> None:
        """Have nothing secret lie in the folders of what is gone now: a job that never ran has not removed it."""
        before = {a.token for a in record.attempts if a.gone_at is None}
        for attempt in attempts:
            if attempt.gone_at is not None and attempt.token in before:
                await self._cluster.run_dirs.clear(attempt.service_id, attempt.token)

    async def _keep_probing(self, record: Record, attempts: tuple[Attempt, ...]) -> None:
        """Probe whatever may serve, closed ones too: an engine that answers is not gone, whatever the listing says."""
        for attempt in attempts:
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

    async def _submit(self, term: Term, record: Record, attempt: Attempt) -> None:
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
            warning=self._time_warning,
            after=after,
        )
        sent = await sends.submit(submission)
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

    async def _cancel(self, action: Cancel) -> None:
        await self._cluster.sends.cancel(action.token, action.job_id)
        log.info("scancel returned", extra={"job_id": action.job_id})

    async def _revoke(self, action: Revoke, attempt: Attempt) -> None:
        reach("before revoke")
        await self._cluster.run_dirs.revoke(attempt.service_id, action.token)
        reach("after revoke")
        log.info("the claim is revoked, unless a job has it")

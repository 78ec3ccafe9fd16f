"""act: carry out a plan's actions, after it was recorded. Nothing here decides, and nothing is sent twice."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from api.contract.log import about
from controller.core.model import Action, Attempt, Cancel, ProbeSpec, Revoke, SendOutcome, Sent, Submit
from controller.core.script import Site, parameters
from controller.failpoints import reach
from controller.observe import probe_spec
from controller.ports import (
    Clock,
    DeposedError,
    ImageMakers,
    JobFolder,
    Probes,
    Record,
    RunDirs,
    Scheduler,
    Store,
    Submission,
    Term,
    UsedTokenError,
)

log = logging.getLogger(__name__)


class ActionExecutor:
    """Acts on the cluster for one term, and remembers what it sent."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        run_dirs: RunDirs,
        probes: Probes,
        store: Store,
        clock: Clock,
        site: Site,
        secret: Callable[[str], str],
        time_warning: int,
        may_act: Callable[[], bool],
        images: ImageMakers | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._run_dirs = run_dirs
        self._probes = probes
        self._store = store
        self._clock = clock
        self._site = site
        self._secret = secret
        self._time_warning = time_warning
        self._may_act = may_act
        self._images = images
        self.sent: dict[str, Sent] = {}
        self.cancelled: dict[str, float] = {}
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
        await self._keep_probing(record, attempts)

    async def _keep_probing(self, record: Record, attempts: tuple[Attempt, ...]) -> None:
        """Probe whatever may serve, closed ones too: an engine that answers is not gone, whatever the listing says."""
        for attempt in attempts:
            if attempt.gone_at is not None:
                self._probes.forget(attempt.token)
                self.sent.pop(attempt.token, None)
                self.cancelled.pop(attempt.token, None)
                self._probed_as.pop(attempt.token, None)
            elif attempt.serving_at is not None:
                known = self._probed_as.get(attempt.token)
                spec = known or await probe_spec(record, attempt, self._run_dirs)
                if spec is not None:
                    self._probed_as[attempt.token] = spec
                    self._probes.watch(attempt, spec)

    async def _submit(self, term: Term, record: Record, attempt: Attempt) -> None:
        if attempt.token in self.sent or record.desired.spec is None:
            return
        try:
            folder = await self._prepare(record, attempt)
        except UsedTokenError:
            self._put_off(attempt, "Its token was used before this database was restored; the next one is tried.")
            return
        except OSError as error:
            message = f"The job folder in RUN_DIR can't be written: {error}. Free space there or mend its permissions."
            self._put_off(attempt, message)
            return
        after = await self._images.awaited(record.desired.spec.image) if self._images is not None else None
        if not self._may_act():  # a slow file system may have taken longer than the lease lasts
            raise DeposedError("The lease was not renewed in time.")
        submission = Submission(
            token=attempt.token,
            resources=record.desired.spec.resources,
            folder=folder.path,
            script=folder.launch_script,
            arguments=folder.arguments(self._site.python),
            comment=record.desired.name,
            warning=self._time_warning,
            after=after,
        )
        self._leave_open(attempt.token)
        reach("before sbatch")
        try:
            sent = await self._scheduler.submit(submission)
        except BaseException:
            self._leave_open(attempt.token)
            raise
        reach("after sbatch")
        self.sent[attempt.token] = sent
        log.info("sbatch returned", extra={"job_id": sent.job_id, "outcome": sent.outcome, "answer": sent.message})
        await self._store.note(term, attempt.token, sent, self._clock.now())

    def _leave_open(self, token: str) -> None:
        """Note that nobody knows what came of an sbatch: what it did, it did before now, and looking settles it."""
        self.sent[token] = Sent(outcome=SendOutcome.UNKNOWN, sequence=self._scheduler.next_sequence())

    def _put_off(self, attempt: Attempt, message: str) -> None:
        """Note that nothing was sent, and why."""
        sequence = self._scheduler.next_sequence()
        self.sent[attempt.token] = Sent(outcome=SendOutcome.DEFERRED, sequence=sequence, message=message)

    async def _prepare(self, record: Record, attempt: Attempt) -> JobFolder:
        assert record.desired.spec is not None
        values = parameters(record.desired.spec, attempt.token, attempt.digest, self._secret(attempt.token), self._site)
        reach("before prepare")
        encoded, probe = msgspec.json.encode(values), ProbeSpec.of(record.desired.spec)
        folder = await self._run_dirs.prepare(attempt.service_id, attempt.token, encoded, probe)
        reach("after prepare")
        return folder

    async def _cancel(self, action: Cancel) -> None:
        reach("before scancel")
        await self._scheduler.cancel(action.token, action.job_id)
        self.cancelled[action.token] = self._clock.now()
        reach("after scancel")
        log.info("scancel returned", extra={"job_id": action.job_id})

    async def _revoke(self, action: Revoke, attempt: Attempt) -> None:
        reach("before revoke")
        await self._run_dirs.revoke(attempt.service_id, action.token)
        reach("after revoke")
        log.info("the claim is revoked, unless a job has it")

"""What this term has sent to the cluster: submissions, each token's once, cancellations and changed time limits.

A submission that has not returned is UNKNOWN, and so is one that was broken off: what it did, it did before it ended,
and looking settles it.
"""

from __future__ import annotations

from api.contract.launch import Submission
from controller.core.attempt import SendOutcome, Sent, Shortening
from controller.core.plan import Shorten
from controller.failpoints import reach
from controller.ports import Clock, Scheduler, UnreadableError


class Sends:
    """Sends to the cluster, and remembers it until the attempt is gone."""

    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self.sent: dict[str, Sent] = {}
        """By token, what sbatch answered."""
        self.cancelled: dict[str, float] = {}
        """By token, when a job of it was last cancelled."""
        self.shortened: dict[str, Shortening] = {}
        """By token, what was last done to the time limit of its job."""

    async def submit(self, submission: Submission) -> Sent:
        """Run sbatch; raises whatever broke it off."""
        token = submission.token
        self._leave_open(token)
        reach("before sbatch")
        try:
            sent = await self._scheduler.submit(submission)
        except BaseException:
            self._leave_open(token)
            raise
        reach("after sbatch")
        self.sent[token] = sent
        return sent

    def put_off(self, token: str, message: str) -> None:
        """Note that nothing was sent, and why."""
        sequence = self._scheduler.next_sequence()
        self.sent[token] = Sent(outcome=SendOutcome.DEFERRED, sequence=sequence, message=message)

    async def cancel(self, token: str, job_id: int) -> None:
        """Run scancel. One that failed counts as none: it raises `UnreadableError`."""
        reach("before scancel")
        await self._scheduler.cancel(token, job_id)
        self.cancelled[token] = self._clock.now()
        reach("after scancel")

    async def shorten(self, wish: Shorten) -> None:
        """Lower the time limit of a queued job. What failed is noted with why, and is no verdict on anything."""
        reach("before shorten")
        trouble = ""
        try:
            await self._scheduler.shorten(wish.token, wish.minutes)
        except UnreadableError as error:
            trouble = error.message
        self.shortened[wish.token] = Shortening(
            at=self._clock.now(), minutes=wish.minutes, before=wish.before, trouble=trouble
        )
        reach("after shorten")

    def forget(self, token: str) -> None:
        """Forget what was sent for an attempt that is gone."""
        self.sent.pop(token, None)
        self.cancelled.pop(token, None)
        self.shortened.pop(token, None)

    def _leave_open(self, token: str) -> None:
        self.sent[token] = Sent(outcome=SendOutcome.UNKNOWN, sequence=self._scheduler.next_sequence())

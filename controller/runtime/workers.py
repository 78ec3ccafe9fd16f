"""The workers of a term: they take the services that are due from the queue, and make a pass over each."""

from __future__ import annotations

import itertools
import logging

from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import cause
from api.contract.log import about
from controller.ports import DeposedError, UnreadableError, Witness
from controller.queue import KeyedQueue
from controller.reconciler import Reconciler
from controller.runtime.held_term import HeldTerm

log = logging.getLogger(__name__)


class Workers:
    """Makes passes; numbers them within the term."""

    def __init__(self, held: HeldTerm, reconciler: Reconciler, queue: KeyedQueue, witness: Witness) -> None:
        self._held = held
        self._reconciler = reconciler
        self._queue = queue
        self._witness = witness
        self._passes = itertools.count(1)

    async def work_on(self) -> None:
        """Be one worker, until the queue is closed."""
        while (key := await self._queue.get()) is not None:
            await self.work(key)

    async def work(self, key: str) -> None:
        """Make one pass over a key that was taken from the queue, and give it back."""
        epoch = self._held.term.epoch
        with about(service=key, epoch=epoch, pass_id=f"{epoch}.{next(self._passes)}"):
            await self._work(key)

    async def _work(self, key: str) -> None:
        try:
            with self._witness.passing():
                again_at = await self._reconciler.reconcile(key)
        except DeposedError as error:
            self._held.lose(error)
            self._queue.done(key)
        except (UnreadableError, SQLAlchemyError, OSError) as error:
            pause = self._queue.retry(key)
            log.warning("a pass came to nothing", extra={"again_in": round(pause, 1), "error": cause(error)})
        except Exception:
            pause = self._queue.retry(key)
            log.exception("a pass failed", extra={"again_in": round(pause, 1)})
        else:
            self._queue.done(key, again_at)

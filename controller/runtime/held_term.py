"""One term as this process holds it: renewed while it can be, and over once it is another's."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import cause
from controller.lease import Lease
from controller.ports import DeposedError, Term

log = logging.getLogger(__name__)


class HeldTerm:
    """A term, the lease under which it is held, and whether it was lost."""

    def __init__(self, term: Term, lease: Lease) -> None:
        self.term = term
        self._lease = lease
        self.lost = asyncio.Event()

    async def renew(self) -> None:
        """Renew the lease; notice if it is another's."""
        try:
            await self._lease.renew(self.term)
        except DeposedError as error:
            self.lose(error)
        except (SQLAlchemyError, OSError) as error:
            log.warning("the lease could not be renewed", extra={"error": cause(error)})

    def lose(self, error: DeposedError) -> None:
        """Take note that the term is over."""
        log.warning("deposed", extra={"error": error})
        self.lost.set()

    async def give_up(self) -> None:
        """Release the lease, if it is still ours, so that a successor need not wait."""
        if not self.lost.is_set():
            with contextlib.suppress(DeposedError, SQLAlchemyError, OSError):
                await self._lease.release(self.term)

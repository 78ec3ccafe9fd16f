"""Gateways: which live, and up to where all of them have heard what changed.

Whether one lives is judged by signs that change, counted by this process's monotonic clock: a gateway's clock may be
wrong, and so may the database's be after a jump, which would make all dead, or the dead alive, at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from controller.ports import Store
from controller.signs import Signs

LIVES = 10.0
"""Seconds after its last sign for which a gateway counts as living; it gives one every 3 s, or nearly."""
FORGOTTEN_AFTER = 60.0
"""Seconds after which its row is removed."""
_ALL = "gateways"


class Gateways:
    """All gateways of an installation, as they are seen in one term."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic, *, lives: float = LIVES) -> None:
        """`lives`: seconds after its last sign for which one counts as living."""
        self._store = store
        self._lives = lives
        self._signs = Signs(monotonic)

    async def heard(self) -> int | None:
        """Return the number of the feed up to which all that live have heard; `None`: none lives.

        One that is seen for the first time lives. Raises what the database raises.
        """
        gateways = await self._store.gateways()
        silent_for = {
            id_: seconds or 0.0 for id_, seconds in self._signs.take(_ALL, {g.id: g.signs for g in gateways}).items()
        }
        gone = [id_ for id_, seconds in silent_for.items() if seconds > FORGOTTEN_AFTER]
        if gone:
            await self._store.forget_gateways(gone)
        return min((g.applied for g in gateways if silent_for[g.id] <= self._lives), default=None)

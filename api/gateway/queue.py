"""Requests that wait until their service can take them: a bounded queue for each, in which keys take turns.

Of one key who came first goes first; after it the next key has its turn, so that who asks little does not wait for who
asks much. No key may have more than half of a queue, so that nobody can keep all others out of it.

What wakes them is a new routing table, and the end of a request of the same service; besides, the first of each queue
looks by itself now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from api.gateway.leaving import Leaving
from api.gateway.models import NotNowError
from api.gateway.refusals import GatewayError
from api.web.bell import rung

LOOK_SECONDS = 0.5


class Queued(Protocol):
    """What is asked, in whose queue a request waits."""

    @property
    def queue(self) -> str:
        """The service's id."""


Found = TypeVar("Found", bound=Queued)


@dataclass(eq=False, slots=True)
class WaitingRequest:
    """A request in a queue."""

    caller: str
    bell: asyncio.Event = field(default_factory=asyncio.Event)


class FairQueue:
    """Who waits for one service. The first stays so until it is removed, whoever comes."""

    def __init__(self) -> None:
        self._by_caller: dict[str, list[WaitingRequest]] = {}
        """In the order of their turns."""

    def __len__(self) -> int:
        return sum(map(len, self._by_caller.values()))

    def of(self, caller: str) -> int:
        """Return how many of a caller's wait."""
        return len(self._by_caller.get(caller, ()))

    @property
    def first(self) -> WaitingRequest:
        """Whose turn it is; there must be somebody."""
        return next(iter(self._by_caller.values()))[0]

    def add(self, place: WaitingRequest) -> None:
        """Let one wait behind its caller's, or a new caller behind all others."""
        self._by_caller.setdefault(place.caller, []).append(place)

    def remove(self, place: WaitingRequest, *, had_turn: bool) -> None:
        """Take one out. Where it had its turn, all other callers have theirs before its caller has the next."""
        waiting = self._by_caller[place.caller]
        waiting.remove(place)
        if had_turn or not waiting:
            del self._by_caller[place.caller]
        if had_turn and waiting:
            self._by_caller[place.caller] = waiting


class Queues:
    """The queues, by service."""

    def __init__(self, length: int, seconds: float) -> None:
        """`length`: so many requests may wait for a service; `seconds`: for so long each."""
        self._length = length
        self._seconds = seconds
        self._waiting: dict[str, FairQueue] = {}

    async def turn(self, look: Callable[[], Found], leaving: Leaving, caller: str = "") -> Found:
        """Return what `look` finds, once it is this request's turn; raises `GatewayError`, at the latest in time.

        `caller` is who asks: the id of a key; without one, an operator, whom nothing holds back.
        """
        try:
            found = look()
            service = found.queue
            if service not in self._waiting:
                return found
            self._check_room(service, caller, f"{len(self._waiting[service])} requests wait for this model.")
        except NotNowError as error:
            service = error.service
            self._check_room(service, caller, error.message, None if error.is_load else error)
        return await self._wait(service, look, leaving, WaitingRequest(caller))

    def ring(self) -> None:
        """Have the first of each look."""
        for waiting in self._waiting.values():
            waiting.first.bell.set()

    def _check_room(self, service: str, caller: str, why: str, otherwise: GatewayError | None = None) -> None:
        """Raise what a caller is told for whom the queue has no room: that, or `otherwise`."""
        waiting = self._waiting.get(service, FairQueue())
        if len(waiting) >= self._length:
            raise otherwise or _full(f"{why} The queue is full (gateway.queue_length).")
        mine = waiting.of(caller) if caller else 0
        if mine >= max(1, self._length // 2):
            message = f"{why} {mine} of those that wait are this key's: no more may, so that others find room."
            raise otherwise or _full(message)

    async def _wait(self, service: str, look: Callable[[], Found], leaving: Leaving, place: WaitingRequest) -> Found:
        waiting = self._waiting.setdefault(service, FairQueue())
        waiting.add(place)
        had_turn = False
        leaving.then(place.bell.set)
        ends = asyncio.get_running_loop().time() + self._seconds
        try:
            while not leaving.is_gone:
                place.bell.clear()
                left = ends - asyncio.get_running_loop().time()
                if waiting.first is place or left <= 0:
                    try:
                        found = look()
                        had_turn = True
                        return found
                    except NotNowError:
                        if left <= 0:
                            raise
                await rung(place.bell, min(left, LOOK_SECONDS) if waiting.first is place else left)
            raise GatewayError(499, "The client left before its turn.")
        finally:
            waiting.remove(place, had_turn=had_turn)
            if waiting:
                waiting.first.bell.set()
            else:
                del self._waiting[service]


def _full(why: str) -> GatewayError:
    return GatewayError(429, why, code="queue_full", retry_after=2)

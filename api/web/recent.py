"""The newest of what is numbered, in memory: who has come to a number takes what is newer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

MOST = 2000


class Numbered(Protocol):
    """What has a number, which grows."""

    @property
    def seq(self) -> int:
        """The number."""


Item = TypeVar("Item", bound=Numbered)


class Recent(Generic[Item]):
    """All after a floor, up to the position; so many items, and so much weight, at most."""

    def __init__(self, *, weigh: Callable[[Item], int] = lambda _: 0, heaviest: int = 0) -> None:
        self._items: deque[Item] = deque()
        self._floor = 0
        self._weigh = weigh
        self._weight = 0
        self._heaviest = heaviest
        self.position = 0

    def begin(self, position: int) -> None:
        """Forget all: nothing is known of what came before a position."""
        self._items.clear()
        self._weight = 0
        self._floor = self.position = position

    def add(self, item: Item) -> None:
        """Add the newest."""
        self._items.append(item)
        self._weight += self._weigh(item)
        while len(self._items) > MOST or self._weight > self._heaviest:
            oldest = self._items.popleft()
            self._floor = oldest.seq
            self._weight -= self._weigh(oldest)

    def since(self, position: int) -> list[Item] | None:
        """Return what came after a position; `None` if not all of it is here."""
        if not self._floor <= position <= self.position:
            return None
        found: list[Item] = []
        for item in reversed(self._items):
            if item.seq <= position:
                break
            found.append(item)
        return found[::-1]

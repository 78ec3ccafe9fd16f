"""The replicas that may be asked: what is known of each, which one is asked next, and why one could not be."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from api.contract.asking import NotConnectedError
from api.contract.doors import base_url, is_of_another
from api.contract.job.own_trouble import is_own_trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReplica:
    """A replica that is ready, and where."""

    token: str
    name: str
    """For people: service id and number."""
    models: tuple[str, ...]
    host: str
    port: int
    door: str | None
    """Under which of the installation's keys its door is made; `None`: it has none."""

    @classmethod
    def of(cls, row: Any) -> Self:
        """Make it of a row that has a service's id and all of an endpoint."""
        return cls(
            token=row.token,
            name=f"{row.id}-{row.replica}",
            models=tuple(row.models),
            host=row.host,
            port=row.port,
            door=row.door,
        )

    @property
    def endpoint(self) -> str:
        """Its base URL."""
        return base_url(self.host, self.port, has_door=self.door is not None)


def choose(replicas: Sequence[ReadyReplica], in_flight: Mapping[str, int], draw: random.Random) -> ReadyReplica:
    """Draw two replicas and take the one with less in flight: nearly as even as asking all, without herding."""
    drawn = draw.sample(replicas, min(2, len(replicas)))
    return min(drawn, key=lambda replica: in_flight.get(replica.token, 0))


class InFlight:
    """What is in flight on each replica, and so which one is asked next."""

    def __init__(self, draw: random.Random | None = None) -> None:
        self._draw = draw or random.Random()  # noqa: S311 - it opens nothing
        self._counts: Counter[str] = Counter()

    def choose(self, replicas: Sequence[ReadyReplica]) -> ReadyReplica:
        """Return the one to ask."""
        return choose(replicas, self._counts, self._draw)

    def with_room(self, replicas: Sequence[ReadyReplica], most: int) -> Sequence[ReadyReplica]:
        """Return those with less in flight than `most`; 0: all."""
        return [replica for replica in replicas if self._counts.get(replica.token, 0) < most] if most else replicas

    def begin(self, replica: ReadyReplica) -> None:
        """Count a request that is in flight from now on."""
        self._counts[replica.token] += 1

    def end(self, replica: ReadyReplica) -> None:
        """Count it no more."""
        self._counts[replica.token] -= 1
        if not self._counts[replica.token]:
            del self._counts[replica.token]


def why_not_connected(replica: ReadyReplica, error: NotConnectedError) -> str:
    """Say why there is no connection."""
    if is_of_another(error):
        return f"another program listens there: it can't prove that it is {replica.token}"
    if is_own_trouble(error):
        return f"it was not asked, since the API's own host is short of connections ({error})"
    return str(error)

"""Who routes requests: gateways that hear late which attempts are ready, or not at all, and keep their engines busy."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from controller.core.attempt import Attempt
from tests.simulation.slurm import JobFolder, SimSlurm

RATE = 0.05
"""How likely a gateway asks each attempt in each step of time."""
HEARS_AFTER: tuple[float, ...] = (0.2, 1.0, 5.0)
SHORT_ANSWERS: tuple[float, ...] = (0.3, 1.0, 3.0)
LONG_ANSWERS: tuple[float, ...] = (3.0, 10.0, 60.0)
"""Seconds until an answer is whole; one of both all the while."""
TROUBLE = 0.02
"""How likely something happens to one of them in each step of time."""
TROUBLE_LASTS: tuple[float, ...] = (3.0, 15.0, 60.0)
SIGNS_EVERY = 1.0
LIVES = 4.0
"""Seconds after its last sign for which the controllers take a gateway for living."""
DOOR_LOOKS = 1.0
"""Seconds until a door does what its file says."""


class Heard(Protocol):
    """What gateways read in the database, and write there."""

    @property
    def position(self) -> int: ...

    @property
    def routed(self) -> tuple[str, ...]: ...

    def sign(self, gateway: str, applied: int) -> None: ...


@dataclass
class SimGateway:
    """One gateway. It may be stopped, or without the database: then it routes as it last heard."""

    id: str
    routed: tuple[str, ...] = ()
    applied: int = 0
    stopped_until: float = 0.0
    cut_off_until: float = 0.0
    hears_at: float = 0.0
    signed_at: float = float("-inf")
    living_since: float = 0.0
    """Since when its signs have never been further apart than the controllers allow."""

    def follow(self, database: Heard, now: float, hears_after: float) -> None:
        """Hear what is ready, and say so, each in its time."""
        if now >= self.hears_at:
            self.routed, self.applied = database.routed, database.position
            self.hears_at = now + hears_after
        if now >= self.signed_at + SIGNS_EVERY:
            database.sign(self.id, self.applied)
            self.living_since = self.living_since if now - self.signed_at <= LIVES else now
            self.signed_at = now

    def has_lived_since(self, then: float, now: float) -> bool:
        """Whether it has given signs of life all the while."""
        return self.living_since <= then and now - self.signed_at <= LIVES

    def forget(self) -> None:
        """Begin anew, as a program that was started again."""
        self.routed, self.applied, self.hears_at, self.signed_at = (), 0, 0.0, float("-inf")


class Traffic:
    """The gateways, and those who ask them."""

    def __init__(self, rng: random.Random, slurm: SimSlurm, reach: Callable[[str], None]) -> None:
        self._rng = rng
        self._slurm = slurm
        self._reach = reach
        self.rate, self.hears_after, self.trouble = RATE, HEARS_AFTER, TROUBLE
        self.answers_in = rng.choice((SHORT_ANSWERS, LONG_ANSWERS, LONG_ANSWERS))
        self.turned_away: list[tuple[SimGateway, str]] = []
        """Who met which attempt's closed door, until somebody asks."""
        self.gateways = [SimGateway("g1"), SimGateway("g2")]

    def advance(self, database: Heard, now: float, *, can_be_asked: bool) -> list[str]:
        """Have gateways hear and route, where the database can be asked; return the attempts that let requests in."""
        if self._rng.random() < self.trouble:
            self._trouble(now)
        asked: list[str] = []
        for gateway in [g for g in self.gateways if now >= g.stopped_until]:
            if can_be_asked and now >= gateway.cut_off_until:
                gateway.follow(database, now, self._rng.choice(self.hears_after))
            asked += self._route(gateway, now)
        return asked

    def _trouble(self, now: float) -> None:
        gateway, until = self._rng.choice(self.gateways), now + self._rng.choice(TROUBLE_LASTS)
        if self._rng.random() < 0.5:
            self._reach("gateway stopped")
            gateway.stopped_until = until
        else:
            self._reach("gateway without the database")
            gateway.cut_off_until = until

    def _route(self, gateway: SimGateway, now: float) -> Iterable[str]:
        """Send requests. Who meets a closed door, or none, goes elsewhere."""
        asked = [token for token in gateway.routed if self._rng.random() < self.rate]
        for job in [j for j in self._slurm.jobs.values() if j.name in asked and j.stage == "ready"]:
            if not self.is_open(self._slurm.folder(job.name), now):
                self._reach("request met a closed door")
                self.turned_away.append((gateway, job.name))
                continue
            job.busy_until = max(job.busy_until, now + self._rng.choice(self.answers_in))
            yield job.name

    @staticmethod
    def is_open(folder: JobFolder, now: float) -> bool:
        """Whether the door of a job with this folder lets anybody new in."""
        is_shut = folder.told_at is not None and now >= folder.told_at + DOOR_LOOKS
        return not is_shut and folder.told_to_end_at is None

    def in_flight(self, token: str, now: float) -> bool:
        """Whether something is in flight on an attempt's engine."""
        return any(job.name == token and job.has_engine and now < job.busy_until for job in self._slurm.jobs.values())

    def who_routes_to(self, attempt: Attempt, now: float) -> list[str]:
        """Return the gateways that have lived since an attempt began to drain, and still route to it."""
        since = attempt.draining_since or now
        return [g.id for g in self.gateways if attempt.token in g.routed and g.has_lived_since(since, now)]

    def begin_anew(self) -> None:
        """Have all gateways started again."""
        for gateway in self.gateways:
            gateway.forget()

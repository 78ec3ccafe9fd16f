"""Who reads squeue twice a second: which jobs there are of each replica, and for how long two at once."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.system import System

INTERVAL = 0.5
"""Seconds from one reading to the next."""
HOLDS = {"RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING"}
"""States in which a job has an allocation."""


@dataclass(frozen=True)
class Reading:
    """The jobs of an installation at one moment."""

    at: float
    """Unix seconds."""
    seconds: float
    """Since the reading before."""
    jobs: Mapping[str, str]
    """State by token."""


@dataclass(frozen=True)
class HandOver:
    """One attempt took over from another; seconds."""

    service: str
    token: str
    reason: str
    done_at: float
    """When the older one was closed, Unix time."""
    start_up: float
    """From the successor's start to its first answer."""
    drain: float
    """From its being preferred until the older one was closed."""
    together: float
    """For how long both jobs had their allocation."""


class SqueueWatch:
    """Reads in a thread of its own while it is entered."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read_on)
        self.readings: list[Reading] = []
        self.missed = 0

    def __enter__(self) -> SqueueWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _read_on(self) -> None:
        before = time.time()
        while not self._over.wait(INTERVAL):
            try:
                jobs = {job["name"]: job["state"] for job in self._system.jobs()}
            except subprocess.SubprocessError:
                self.missed += 1
                continue
            now = time.time()
            self.readings.append(Reading(now, now - before, jobs))
            before = now


def without_reason(readings: Iterable[Reading], attempts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what was more than was promised: a second job of a replica whose row says no reason for it, or a third.

    `attempts` are the rows by token.
    """
    found: dict[str, None] = {}
    for reading in readings:
        for older, newer in _pairs(reading.jobs):
            row = attempts[newer]
            if row["beside"] is None or row["lane"] == attempts[older]["lane"]:
                found.setdefault(f"{newer} was beside {older}")
    return list(found)


def most_beside(readings: Iterable[Reading], attempts: Mapping[str, Mapping[str, Any]], reason: str) -> int:
    """Return how many replicas had two jobs at once, at most, of which the newer was opened for this reason."""
    pairs = (_pairs(reading.jobs) for reading in readings)
    return max((sum(attempts[newer]["beside"] == reason for _, newer in each) for each in pairs), default=0)


def most_at_once(readings: Iterable[Reading]) -> int:
    """Return how many jobs there were at most."""
    return max((len(reading.jobs) for reading in readings), default=0)


def hand_overs(readings: Iterable[Reading], rows: Iterable[Mapping[str, Any]]) -> list[HandOver]:
    """Return the hand-overs that are done; `rows` are the attempts of a service in order."""
    together: dict[tuple[str, str], float] = defaultdict(float)
    for reading in readings:
        for pair in _pairs({token: state for token, state in reading.jobs.items() if state in HOLDS}):
            together[pair] += reading.seconds
    found: list[HandOver] = []
    older: Mapping[str, Any] | None = None
    for row in rows:
        is_successor = older is not None and older["replica"] == row["replica"] and row["beside"] and row["ready_at"]
        if older is not None and is_successor and older["outcome"] == "Superseded":
            found.append(_hand_over(older, row, together[older["token"], row["token"]]))
        older = row
    return found


def _hand_over(older: Mapping[str, Any], newer: Mapping[str, Any], together: float) -> HandOver:
    return HandOver(
        service=newer["service_id"],
        token=newer["token"],
        reason=newer["beside"],
        done_at=older["closed_at"],
        start_up=newer["ready_at"] - newer["started_at"],
        drain=older["closed_at"] - older["draining_since"],
        together=together,
    )


def _pairs(tokens: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Return every two jobs of one replica, the older first."""
    replicas: dict[str, list[str]] = defaultdict(list)
    for token in tokens:
        replicas[token.rpartition("-")[0]].append(token)
    for each in replicas.values():
        yield from itertools.combinations(sorted(each, key=lambda token: int(token.rpartition("-")[2])), 2)

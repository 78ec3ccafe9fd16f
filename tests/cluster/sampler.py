"""Who looks on from outside: which engines live is read from /proc once a second, and kept in a file.

It knows nothing of the database, of Slurm, nor of what the product believes. Two engines of one replica that work in
the same second are a double, but for what the design allows: a hand-over whose reason is recorded (`beside.py`); and
(docs/design.md, "Exactly once", 4) a job that was suspended looks for its slot when it is resumed, within 5 s, and then
takes 5 s at most to end its engine.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.beside import MayLive, none_may
from tests.cluster.processes import LivingEngine, engines

INTERVAL = 1.0
"""Seconds from one look to the next."""

AFTER_RESUMING = 5.0 + 5.0
"""Seconds that an engine may work beside its successor after its job was resumed: to look, and to kill."""


@dataclass(frozen=True)
class Sample:
    """The engines that lived at one moment, oldest first."""

    at: float
    """Unix seconds."""
    engines: tuple[LivingEngine, ...]


@dataclass(frozen=True)
class Overlap:
    """Two engines of one replica that worked at once when they must not."""

    older: LivingEngine
    newer: LivingEngine
    first: float
    last: float

    def __str__(self) -> str:
        begins = time.strftime("%H:%M:%S", time.localtime(self.first))
        seconds = self.last - self.first + INTERVAL
        pids = f"{self.older.pid} and {self.newer.pid}"
        return f"{self.newer.token} worked beside {self.older.token} for {seconds:.0f} s from {begins} on (pids {pids})"


def overlaps(samples: Iterable[Sample], may_live: MayLive = none_may) -> list[Overlap]:
    """Return each pair of engines of a replica that worked in the same second, but for what the design allows."""
    found: dict[tuple[int, ...], Overlap] = {}
    stopped: dict[tuple[int, int], float] = {}
    for sample in samples:
        stopped |= {(e.pid, e.born): sample.at for e in sample.engines if not e.works}
        for older, newer in pairs(sample.engines):
            if may_live(older.token, newer.token) or is_resumed(sample.at, stopped.get((older.pid, older.born))):
                continue
            key = older.pid, older.born, newer.pid, newer.born
            first = found[key].first if key in found else sample.at
            found[key] = Overlap(older, newer, first, sample.at)
    return list(found.values())


def pairs(alive: Iterable[LivingEngine]) -> Iterator[tuple[LivingEngine, LivingEngine]]:
    """Return every two engines of one replica that work, the older first."""
    replicas: dict[str, list[LivingEngine]] = defaultdict(list)
    for engine in alive:
        if engine.works:
            replicas[engine.replica].append(engine)
    for each in replicas.values():
        yield from itertools.combinations(each, 2)


def is_resumed(at: float, stopped: float | None) -> bool:
    """Whether an engine that was last seen suspended at `stopped` may still work beside its successor."""
    return stopped is not None and 0 <= at - stopped <= INTERVAL + AFTER_RESUMING


def amiss(alive: Iterable[LivingEngine], wanted: Mapping[str, int], may_live: MayLive = none_may) -> list[str]:
    """Return what is wrong once all is calm: replicas that have no engine, or several, and engines of no replica.

    `wanted` are the replicas by service. Two that hand over are one.
    """
    at_work: dict[str, list[str]] = {f"{service}-{n}": [] for service, count in wanted.items() for n in range(count)}
    found = []
    for engine in alive:
        replica = engine.replica.split("-", 2)[2]
        if replica not in at_work:
            found.append(f"the engine {engine.pid} of {engine.token} has no owner")
        elif engine.works:
            at_work[replica].append(engine.token)
    for replica, tokens in at_work.items():
        if len(tokens) != 1 and not (len(tokens) == 2 and may_live(*tokens)):
            found.append(f"{replica} has {len(tokens)} engines at work")
    return found


class Sampler:
    """Looks once a second, in a thread of its own, from its making until `close`."""

    def __init__(self, run_dir: Path, file: Path) -> None:
        self._run_dir = run_dir
        self._file = file
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def samples(self) -> list[Sample]:
        """Return what was seen so far."""
        try:
            lines = self._file.read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []
        told = map(json.loads, lines)
        return [Sample(each["at"], tuple(LivingEngine(**engine) for engine in each["engines"])) for each in told]

    def had_just_resumed(self, token: str, at: float) -> bool:
        """Whether an engine of that token was suspended so shortly before that it may still work."""
        return any(
            is_resumed(at, sample.at)
            for sample in self.samples()
            for engine in sample.engines
            if engine.token == token and not engine.works
        )

    def _run(self) -> None:
        with self._file.open("a", buffering=1) as file:
            while not self._over.wait(INTERVAL - time.time() % INTERVAL):
                seen = [asdict(engine) for engine in engines(self._run_dir)]
                file.write(json.dumps({"at": round(time.time(), 3), "engines": seen}) + "\n")

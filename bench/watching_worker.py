"""Watches so many doors as a controller does, until all close: `python -m bench.watching_worker DOORS PORT…`.

The ports are those of `stub_engine`. It prints the figures as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

from api.contract.certificates import Authority
from api.contract.descriptors import limit, raise_limit
from api.contract.doors import Way
from api.contract.job.tls import WATCH, client_context, server_name
from bench.observed import Moment
from bench.scale_worker import memory
from bench.stub_engine import tell
from controller.clock import SystemClock
from controller.cluster.rhythm import Rhythm
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.cluster.watches import Watches
from controller.core.jobs import Snapshot
from controller.ports import Term
from controller.queue import KeyedQueue
from controller.runtime.reader import AFTER_ENDS, ClusterReader
from controller.runtime.waker import Waker

PATIENCE = 500.0
REST = 3.0
SPARE = 200
"""Descriptors for all else."""


class Stall:
    """The longest that the event loop was kept busy, in seconds of this thread's own time: others' load is none."""

    longest = 0.0

    async def watch(self) -> None:
        """Look, again and again."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.thread_time() - before)


class Course:
    """One process's watches, and what it reads when they close."""

    def __init__(self, doors: int, ports: Sequence[int]) -> None:
        key = os.urandom(32)
        authority = Authority(key)
        context = client_context(authority.client("controller"), authority.certificate, WATCH)
        self.phases: dict[str, tuple[float, float, str]] = {}
        self.readings: list[float] = []
        self.closed: set[str] = set()
        self._ends = asyncio.Event()
        self.watches = Watches(self._heard, doors)
        self._key = key
        self._ports = {f"af-z42chr-7f96e9xf-{number}-1": ports[number % len(ports)] for number in range(doors)}
        self._ways = {
            token: Way(host="127.0.0.1", port=port, name=server_name(token), watch=context)
            for token, port in self._ports.items()
        }

    async def run(self) -> None:
        """Open all, rest, and have all close at once; count the readings until none follows."""
        doors = len(self._ways)
        reading = asyncio.create_task(self._reader().read_after_ends())
        try:
            await self._tell("LIVE", f" {self._key.hex()}")
            before, began = memory("VmRSS"), Moment.now()
            for token, way in self._ways.items():
                self.watches.watch(token, way)
            await _until(lambda: self.watches.held == doors)
            used = memory("VmRSS") - before
            self._note("until all are watched", began, f"{used} MB, {used * 1024 / doors:.0f} kB each")
            began = Moment.now()
            await asyncio.sleep(REST)
            self._note("rest", began, "")
            began = Moment.now()
            await self._tell("DEAD", "")
            await _until(lambda: len(self.closed) == doors)
            self._note("until all closings are heard", began, "")
            await _until(lambda: len(self.readings) >= len(AFTER_ENDS) and not self._ends.is_set())
            since = [f"{at - began.wall:.2f}" for at in self.readings]
            self._note("until all is read", began, f"readings {', '.join(since)} s after")
        finally:
            reading.cancel()
            await self.watches.close()

    async def _tell(self, word: str, more: str) -> None:
        """Tell each of the stubs of its doors, all at once."""
        lines = {port: [f"{word} {token}{more}" for token, at in self._ports.items() if at == port]
                 for port in set(self._ports.values())}  # fmt: skip
        await asyncio.gather(*(asyncio.to_thread(tell, port, *those) for port, those in lines.items()))

    def _heard(self, token: str, has_closed: bool) -> None:
        if has_closed:
            self.closed.add(token)
            self._ends.set()

    def _note(self, name: str, began: Moment, more: str) -> None:
        took = Moment.now() - began
        self.phases[name] = (took.wall, took.cpu, more)

    def _reader(self) -> ClusterReader:
        """Return the project's own, of a cluster without jobs."""

        async def take() -> Snapshot:
            self.readings.append(time.perf_counter())
            return nothing

        async def sweep(*_: object) -> None: ...

        nothing = Snapshot(sequence=0, began_at=0.0, jobs={})
        cluster = SimpleNamespace(
            snapshots=SimpleNamespace(latest=nothing, failure=None, take=take),
            tracked=TrackedAttempts(),
            rhythm=Rhythm(2, 15),
            clock=SystemClock(),
            orphans=SimpleNamespace(sweep=sweep),
            ends=self._ends,
        )
        nobody = SimpleNamespace(has_read=lambda **_: None)
        waker = Waker(cast(Any, None), KeyedQueue(time.monotonic))
        return ClusterReader(Term(epoch=1, began_at=0.0), cast(Any, cluster), waker, cast(Any, nobody))


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not reached():
            await asyncio.sleep(0.005)


async def main(doors: int, ports: Sequence[int]) -> None:
    """Run the course."""
    raise_limit()
    course, stall = Course(min(doors, limit() - SPARE), ports), Stall()
    watching = asyncio.create_task(stall.watch())
    await course.run()
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    found = {"doors": len(course.closed), "limit": limit(), "stall": stall.longest, "readings": len(course.readings)}
    print(json.dumps(found | {"phases": course.phases}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))

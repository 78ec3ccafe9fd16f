"""Clients of followed logs and watches that come back whenever they are cut off: `python -m bench.streams_clients`.

It reads a line of JSON that says whom to follow, prints one once all have begun, reads one that says what everybody
must have by now, and prints the figures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import uvloop

RETRY = 0.2
"""Seconds until who was cut off tries again."""
PATIENCE = 60.0
"""Seconds for everybody to have come to the end."""
QUIET = 1.0
"""Seconds in which nothing more may come then."""


class Client(ABC):
    """One stream, and how far it has come."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self._last_id = ""
        self.is_new = asyncio.Event()
        """Set once it was heard."""
        self.connections = 0
        self.refused = 0
        self.received = self.lost = self.doubled = 0
        self.connected_at = 0.0

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                async for fields in self._events():
                    self.is_new.set()
                    self._last_id = fields.get("id") or self._last_id
                    if "data" in fields:
                        self.take(fields)
            except (OSError, EOFError):
                pass
            await asyncio.sleep(RETRY)

    async def _events(self) -> AsyncIterator[dict[str, str]]:
        """Connect, and yield the fields of each whole event until the stream ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            lines = [f"GET {self._path} HTTP/1.1", "Host: 127.0.0.1"]
            lines += [f"Last-Event-ID: {self._last_id}"] if self._last_id else []
            writer.write("\r\n".join((*lines, "", "")).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                self.refused += 1
                return
            self.connections += 1
            self.connected_at = time.monotonic()
            rest = ""
            while length := int(await reader.readline() or b"0", 16):
                rest += (await reader.readexactly(length)).decode()
                await reader.readline()
                *blocks, rest = rest.split("\n\n")
                for block in blocks:
                    yield dict(line.partition(": ")[::2] for line in block.split("\n") if not line.startswith(":"))
        finally:
            writer.close()

    @abstractmethod
    def take(self, fields: Mapping[str, str]) -> None:
        """Take an event."""


class Follower(Client):
    """Follows the log of a service, whose lines are `NUMBER TIME …`, the numbers of each file growing by one."""

    def __init__(self, port: int, service: str, delays: list[float]) -> None:
        super().__init__(port, f"/api/v1/services/{service}/logs?follow=true")
        self.service = service
        self.next = {"stdout": 0, "stderr": 0}
        self._delays = delays
        self.torn = 0

    def take(self, fields: Mapping[str, str]) -> None:
        now = time.monotonic()
        if fields["event"] != "log":
            return
        told = json.loads(fields["data"])
        for line in told["text"].splitlines():
            try:
                number, written_at = int(line.split()[0]), float(line.split()[1])
            except (ValueError, IndexError):
                self.torn += 1
                continue
            expected = self.next[told["stream"]]
            self.received += 1
            self.lost += max(0, number - expected)
            self.doubled += number < expected
            self.next[told["stream"]] = max(expected, number + 1)
            if written_at > self.connected_at:
                self._delays.append(now - written_at)

    def has_all(self, written: Mapping[str, Mapping[str, int]]) -> bool:
        """Whether it has come to the end."""
        return self.next == written[self.service]


class Watcher(Client):
    """Watches all services."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "/api/v1/watch?after=0")
        self.services: dict[str, Any] = {}
        self._seq = 0

    def take(self, fields: Mapping[str, str]) -> None:
        seq = int(fields.get("id") or 0)
        self.received += 1
        self.doubled += seq <= self._seq  # so is a `reset`, which has no id: nothing is removed here
        self._seq = max(seq, self._seq)
        told = json.loads(fields["data"])
        self.services[told.get("id", "")] = told

    def has_all(self, services: Mapping[str, Any]) -> bool:
        """Whether it knows each service as it is now."""
        return self.services == services


async def main() -> None:
    """Follow, watch, and tell."""
    asked = await _hear()
    delays: list[float] = []
    followers = [Follower(asked["port"], service, delays) for service in asked["follow"]]
    watchers = [Watcher(asked["port"]) for _ in range(asked["watchers"])]
    clients: Sequence[Client] = [*followers, *watchers]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    for client in clients:
        await client.is_new.wait()
    _say()
    ends = await _hear()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not all(
        [*(f.has_all(ends["written"]) for f in followers), *(w.has_all(ends["services"]) for w in watchers)]
    ):
        await asyncio.sleep(0.1)
    await asyncio.sleep(QUIET)
    broken = [task.exception() for task in tasks if task.done()]
    _say(
        lines=sum(follower.received for follower in followers),
        lost=sum(follower.lost + _missing(follower, ends["written"]) for follower in followers),
        doubled=sum(follower.doubled for follower in followers),
        torn=sum(follower.torn for follower in followers),
        changes=sum(watcher.received for watcher in watchers),
        out_of_order=sum(watcher.doubled for watcher in watchers),
        behind=sum(not watcher.has_all(ends["services"]) for watcher in watchers),
        reconnects=sum(client.connections - 1 for client in clients),
        refused=sum(client.refused for client in clients),
        broken=[repr(error) for error in broken],
        delays=delays,
    )


def _missing(follower: Follower, written: Mapping[str, Mapping[str, int]]) -> int:
    return sum(number - follower.next[stream] for stream, number in written[follower.service].items())


async def _hear() -> Any:
    return json.loads(await asyncio.to_thread(sys.stdin.readline))


def _say(**figures: object) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    uvloop.run(main())

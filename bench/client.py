"""A client that costs little: the same request again and again, on a few connections that are kept."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

CONNECTIONS = 8


@dataclass(slots=True)
class Load:
    """What came of it."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, load: Load, deadline: float) -> None:
        self._request = request
        self._load = load
        self._deadline = deadline
        self._received = b""
        self._missing = 0
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._received = b""
        self._load.latencies.append(time.perf_counter() - self._sent_at)
        self._load.failed += not head.startswith(b"HTTP/1.1 200")
        if time.perf_counter() < self._deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """Write a request."""
    lines = ("Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(body)}")
    return "\r\n".join((f"{method} {path} HTTP/1.1", *lines, "", "")).encode() + body


async def put_load(port: int, message: bytes, seconds: float) -> Load:
    """Send a request for so long on all connections."""
    loop = asyncio.get_running_loop()
    load, began = Load(), time.perf_counter()
    connections = [
        (await loop.create_connection(lambda: _Connection(message, load, began + seconds), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.gather(*(connection.done for connection in connections))
    load.seconds = time.perf_counter() - began
    return load

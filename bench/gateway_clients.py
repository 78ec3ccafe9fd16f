"""Clients of a gateway that cost little: `python -m bench.gateway_clients PLAN` says `begin` and `end`, then in a line
of JSON what came within that time.

The plan is JSON: `port`, `key`, `connections`, `stream`, `settle` and `seconds`. Each connection asks again once it has
its answer.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.gateway_engine import BEAT, CHUNKS

MESSAGES = [{"role": "user", "content": "Say in a few words what a gateway in front of language models does."}]
PATIENCE = 10.0
"""Seconds that all have for their first answer to begin, before it is measured."""
END = b"\r\n0\r\n\r\n"
"""Of an answer in chunks."""


@dataclass(slots=True)
class Came:
    """What came while it was measured."""

    requests: int = 0
    chunks: int = 0
    failed: int = 0
    first: list[float] = field(default_factory=list)
    """Seconds until an answer's first byte of its body."""
    problems: list[str] = field(default_factory=list)


class GatewayClient:
    """One connection."""

    def __init__(self, plan: dict[str, Any], came: Came) -> None:
        self._request = _request(plan)
        self._is_streamed = bool(plan["stream"])
        self._came = came
        self.has_begun = False
        """Whether an answer has ever begun."""
        self.own = socket.create_connection(("127.0.0.1", plan["port"]))
        self.own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.own.setblocking(False)

    def ask(self) -> None:
        """Send the request."""
        self._head = self._tail = b""
        self._chunks = 0
        self._left: int | None = None
        self._sent_at = time.monotonic()
        self.own.send(self._request)

    def read(self) -> bool:
        """Take what has come, and ask again where that was all; whether the connection goes on."""
        try:
            data = self.own.recv(65536)
        except BlockingIOError:
            return True
        except OSError as error:
            return self._fail(str(error))
        if not data:
            return self._fail("closed")
        return self._take(data)

    def _take(self, data: bytes) -> bool:
        if not self._tail:
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank or not data:
                return True
            if not head.startswith(b"HTTP/1.1 200"):
                return self._fail(self._head[:200].decode("latin-1"))
            self._came.first.append(time.monotonic() - self._sent_at)
            self.has_begun = True
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._left = int(length) if length else None
        seen = data.count(b"data: {")
        self._chunks += seen
        self._came.chunks += seen
        self._tail = (self._tail + data)[-len(END) :]
        if self._left is not None:
            self._left -= len(data)
        if self._left != 0 and self._tail != END:
            return True
        if self._is_streamed and self._chunks < CHUNKS:
            return self._fail(f"{self._chunks} chunks")
        self._came.requests += 1
        self.ask()
        return True

    def _fail(self, problem: str) -> bool:
        self._came.failed += 1
        if len(self._came.problems) < 3:
            self._came.problems.append(problem)
        return False


def _request(plan: dict[str, Any]) -> bytes:
    asked = {"model": "dummy", "messages": MESSAGES, "temperature": 0.5, "max_tokens": CHUNKS, "stream": plan["stream"]}
    body = json.dumps(asked).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: 127.0.0.1:{plan['port']}",
        f"authorization: Bearer {plan['key']}",
        "accept: application/json",
        "user-agent: OpenAI/Python",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def put(plan: dict[str, Any]) -> Came:
    """Ask on all connections, the first of a stream's time evenly one after another."""
    came = Came()
    poll = select.epoll()
    clients: dict[int, GatewayClient] = {}
    gap = CHUNKS * BEAT / plan["connections"] if plan["stream"] else 0.0
    began = time.monotonic()
    due, end = began + plan["settle"], 0.0
    while not end or time.monotonic() < end:
        now = time.monotonic()
        while len(clients) < plan["connections"] and now >= began + len(clients) * gap:
            client = GatewayClient(plan, came)
            clients[client.own.fileno()] = client
            poll.register(client.own, select.EPOLLIN)
            client.ask()
        if not end and now >= due and (now >= due + PATIENCE or all(client.has_begun for client in clients.values())):
            end = now + plan["seconds"]
            came.requests = came.chunks = 0
            came.first.clear()
            print("begin", flush=True)
        for descriptor, _ in poll.poll(0.001 if len(clients) < plan["connections"] else 0.02):
            if not clients[descriptor].read():
                poll.unregister(descriptor)
    print("end", flush=True)
    for client in clients.values():
        client.own.close()
    return came


if __name__ == "__main__":
    print(json.dumps(asdict(put(json.loads(sys.argv[1])))), flush=True)

"""An engine that stands for a thousand: prints its port, and answers health checks as vLLM would.

Each of the thousand has a secret of its own; `DEAD SECRET` says that one of them answers nobody any more.
"""

from __future__ import annotations

import asyncio
import os
from typing import cast

import uvloop

MODELS = b'{"object": "list", "data": [{"id": "dummy", "object": "model", "owned_by": "vllm"}]}'


DEAD = b"DEAD "
dead: set[bytes] = set()


def _answer(body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class Engine(asyncio.Protocol):
    """One connection, one answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        if data.startswith(DEAD):
            dead.add(data.removeprefix(DEAD))
        elif data.partition(b"Bearer ")[2].partition(b"\r")[0] not in dead:
            self._transport.write(_answer(MODELS if b"/v1/models" in data else b""))
        self._transport.close()


async def main() -> None:
    """Serve until the parent is gone."""
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1.0)


if __name__ == "__main__":
    uvloop.run(main())

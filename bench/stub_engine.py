"""An engine that stands for thousands, each behind a door of its own: answers health checks as vLLM would.

Prints the port of the doors. On the next one it is told who lives: `LIVE TOKEN KEY` and `DEAD TOKEN`, a line each; the
key is the installation's, in hex.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import defaultdict
from functools import cache
from typing import cast

import uvloop

from api.contract.certificates import Authority
from api.contract.job.tls import WATCH, server_context, server_name

MODELS = b'{"object": "list", "data": [{"id": "dummy", "object": "model", "owned_by": "vllm"}]}'

live: dict[str, tuple[str, bytes]] = {}
"""By the name of the door: token and key."""
watchers: defaultdict[str, set[asyncio.Transport]] = defaultdict(set)
names: dict[int, str] = {}
"""By the id of a TLS object: whom it asks for."""

authority = cache(Authority)


def main_context() -> ssl.SSLContext:
    """Return a context that becomes that of whichever door is asked for."""
    first = Authority(os.urandom(32))
    context = server_context(first.door("nobody"), first.certificate)

    def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        if name not in live:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        token, key = live[name]
        tls.context = server_context(authority(key).door(token), authority(key).certificate)
        names[id(tls)] = name
        return None

    context.sni_callback = choose
    return context


def _answer(body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class Engine(asyncio.Protocol):
    """One connection: a question and its answer, or a watch."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
        tls = transport.get_extra_info("ssl_object")
        self._name = names.pop(id(tls), "")
        if tls.selected_alpn_protocol() == WATCH:
            watchers[self._name].add(self._transport)
            self._transport.write(b"1")

    def data_received(self, data: bytes) -> None:
        self._transport.write(_answer(MODELS if b"/v1/models" in data else b""))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        watchers[self._name].discard(self._transport)


class Told(asyncio.Protocol):
    """Who lives, and who does not any more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, token, *key = line.decode().split(" ")
            if word == "LIVE":
                live[server_name(token)] = token, bytes.fromhex(key[0])
            else:
                live.pop(server_name(token), None)
                for watcher in watchers.pop(server_name(token), ()):
                    watcher.abort()

    def eof_received(self) -> None:
        self._transport.write(b"done")


def tell(port: int, *lines: str) -> None:
    """Tell the stub whose doors are at this port who lives, and wait until it knows."""
    with socket.create_connection(("127.0.0.1", port + 1)) as stub:
        stub.sendall("".join(f"{line}\n" for line in lines).encode())
        stub.shutdown(socket.SHUT_WR)
        stub.recv(4)


async def main() -> None:
    """Serve until the parent is gone."""
    loop = asyncio.get_running_loop()
    while True:
        doors = await loop.create_server(Engine, "127.0.0.1", 0, backlog=4096, ssl=main_context())
        port = doors.sockets[0].getsockname()[1]
        try:
            await loop.create_server(Told, "127.0.0.1", port + 1)
        except OSError:
            doors.close()
            continue
        break
    print(port, flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1.0)


if __name__ == "__main__":
    uvloop.run(main())

"""A gateway over engines that answer in any pieces, and clients of it that leave at any moment. One loop holds all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from api.contract.doors import Doors
from api.contract.settings import GatewaySettings
from api.gateway.admission import Limiter
from api.gateway.app import Gateway
from api.gateway.engines import Engines
from api.gateway.forward import Forwarder
from api.gateway.ledger import Ledger
from api.gateway.pool import Pool
from api.gateway.queue import Queues
from api.gateway.table import ServedModel, routing_table
from api.web.belonging import Access, Belonging
from api.web.principal import OPERATOR
from api.web.replicas import ReadyReplica
from tests.doors import door_context, key_id, keyring_of

TOKEN = "af-inst22-model-0-1"
STORE = "/services/store/any/path?of=it"
FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
JSON = b'{"model": "m"}'


@dataclass
class Talker:
    """An engine that says the same to whatever it is asked, piece by piece."""

    pieces: Sequence[bytes] = ()
    holds: asyncio.Event | None = None
    """After its pieces it waits for this, or for the end of the connection."""
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no connection is open."""
    heads: list[bytes] = field(default_factory=list)
    """Of the requests that came."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        self.closed.clear()
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    await self._answer(reader, writer)
        finally:
            self.open.discard(writer)
            writer.transport.abort()
            if not self.open:
                self.closed.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        length = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(sum(length))
        for piece in self.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if self.holds is not None:
            if await reader.read(1):
                raise AssertionError("it was asked twice at once")
            raise asyncio.IncompleteReadError(b"", 1)
        said = b"".join(self.pieces).partition(b"\r\n\r\n")[0]  # a body may hold these words too
        if b"content-length" not in said and b"chunked" not in said:
            raise asyncio.IncompleteReadError(b"", 1)


class Caller:
    """A client, as the server hands it to the gateway."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.left = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.said = b""
        self.is_whole = False

    async def receive(self) -> dict[str, Any]:
        if self._body is not None and not self.left.is_set():
            sent, self._body = self._body, None
            return {"type": "http.request", "body": sent, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if not self.reads.is_set():  # what a server's back-pressure does, until the client is gone
            waits = [asyncio.ensure_future(event.wait()) for event in (self.reads, self.left)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if self.left.is_set():
            return
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.said += message["body"]
            self.is_whole = not message["more_body"]


@dataclass
class GatewayWorld:
    """A gateway that knows one model and one service, both of one engine."""

    gateway: Gateway
    forwarder: Forwarder
    pool: Pool
    engine: Talker
    replicas: tuple[ReadyReplica, ...]

    @property
    def engines(self) -> Engines:
        return Engines(self.forwarder)

    async def ask(self, path: str, caller: Caller) -> None:
        """Serve a request of a client's."""
        where, _, query = path.partition("?")
        content_type = b"multipart/form-data; boundary=b" if "transcri" in path or "transl" in path else b"text/plain"
        scope: Any = {
            "type": "http",
            "method": "POST",
            "path": where,
            "raw_path": where.encode(),
            "query_string": query.encode(),
            "headers": [(b"content-type", content_type)],
            "state": {"principal": OPERATOR},
        }
        serve = self.gateway.serve_service if path == STORE else self.gateway.serve
        await serve(scope, cast(Any, caller.receive), cast(Any, caller.send))

    def in_flight(self) -> int:
        return sum(self.forwarder._in_flight._counts.values())


@asynccontextmanager
async def gateway_over(engine: Talker, folder: Path, *, has_door: bool = False) -> AsyncIterator[GatewayWorld]:
    """Serve the engine on a port, and give a gateway that knows it."""
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, ssl=door_context(TOKEN) if has_door else None)
    there = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "token": TOKEN}
    replicas = (ReadyReplica(name="m-0", models=("m",), door=key_id() if has_door else None, **there),)
    shared: dict[str, Any] = {"created_at": 1.0, "status": "running", "message": "", "replicas": replicas}
    shared["belonging"] = Belonging(None, None, Access.EVERYONE)
    model = ServedModel(id="1", name="model", models=("m",), **shared)
    table = routing_table((model, ServedModel(id="2", name="store", models=(), **shared)))
    pool = Pool(Doors(keyring_of(folder / "key"), "api"))
    forwarder = Forwarder(pool)
    limiter = Limiter(Ledger(folder / "limits"))
    gateway = Gateway(cast(Any, SimpleNamespace(table=table)), forwarder, limiter, Queues(0, 0.0), GatewaySettings())
    try:
        yield GatewayWorld(gateway, forwarder, pool, engine, replicas)
    finally:
        pool.close()
        server.close()
        async with asyncio.timeout(60):
            while engine.open:
                await asyncio.sleep(0)


def body_of(path: str) -> bytes:
    """Return what a path is asked with."""
    return FORM if path.startswith("/v1/audio/trans") else JSON

"""Doors as a job has them, in front of what a test serves."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from api.contract.certificates import Authority
from api.contract.job.tls import WATCH, server_context
from api.contract.keyring import Keyring

KEY, NEWER_KEY, STRANGE_KEY = b"k" * 32, b"n" * 32, b"s" * 32
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def key_id(key: bytes = KEY) -> str:
    """Return what an attempt records of a key."""
    return Authority(key).id


def door_context(token: str, key: bytes = KEY) -> ssl.SSLContext:
    """Return what the door of that attempt listens with."""
    authority = Authority(key)
    return server_context(authority.door(token), authority.certificate)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Have both talk until each has said all; return the client's side. Raises `ssl.SSLError`, whoever refuses."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(to_client, to_server, server_hostname=name)
    answers = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (asks, answers):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    with contextlib.suppress(ssl.SSLWantReadError):
        asks.read(1)  # what the other has said against our certificate (TLS 1.3)
    return asks


def keyring_of(path: Path, *keys: bytes) -> Keyring:
    """Write a key file, and read it."""
    write_keys(path, *keys)
    keyring = Keyring(path)
    keyring.load()
    return keyring


def write_keys(path: Path, *keys: bytes) -> None:
    """Put a key file in its place, as a program does that changes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_bytes(b"".join(keys or (KEY,)))
    draft.replace(path)


@asynccontextmanager
async def listening(
    serve: Serve, door: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[int]:
    """Serve on a port, behind a door if there is one; at the end all connections are ended too.

    Who only watches is told at once that the engine accepts.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                if is_watching(writer):
                    writer.write(b"1")
                    await reader.read()
                else:
                    await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(connected, host, port, ssl=door)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_watching(writer: asyncio.StreamWriter) -> bool:
    """Whether this client talks to the door itself."""
    tls = writer.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == WATCH

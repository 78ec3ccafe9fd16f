"""Both ends of a door for `doors.py`: `engine SOCKET` streams as vLLM does; `client PLAN` asks, and what it met stands
in PLAN.answer at its end.

Clocks are one: every chunk carries the time at which it was sent.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

CHUNK = 200
"""Bytes of a chunk."""
BEAT = 0.02
"""Seconds between two chunks of a stream."""
GAP = 20e-6
"""Seconds between the chunks of one step: FastAPI, uvicorn and uvloop took 1.3 ms for 64 of vLLM's own, measured."""
ASK = b"GET / HTTP/1.1\r\nHost: engine\r\n\r\n"
ASK_PACED = b"GET /paced HTTP/1.1\r\nHost: engine\r\n\r\n"
CLOCK = struct.Struct("d")
READ = 65536


def chunk() -> bytes:
    """Return a chunk that is sent now."""
    return CLOCK.pack(time.monotonic()).ljust(CHUNK, b".")


class Steps:
    """Streams that all get a chunk in each step, so many seconds after one another."""

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self._writers: dict[asyncio.StreamWriter, None] = {}

    async def take_part(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stream until the other end closes."""
        self._writers[writer] = None
        try:
            await reader.read()
        finally:
            del self._writers[writer]

    async def run(self) -> None:
        """Step for ever."""
        due = time.monotonic()
        while True:
            for writer in list(self._writers):
                began = time.monotonic()
                with suppress(OSError, RuntimeError):  # uvloop: the handler is closed
                    writer.write(chunk())
                if self._gap:
                    await asyncio.sleep(0)  # it leaves
                    while time.monotonic() < began + self._gap:  # the server is at work on the next one
                        pass
            due = max(due + BEAT, time.monotonic())
            await asyncio.sleep(due - time.monotonic())


async def engine(path: str) -> None:
    """Stream to whoever asks, until the parent closes our input."""
    steps = {ASK: Steps(0.0), ASK_PACED: Steps(GAP)}

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await reader.readuntil(b"\r\n\r\n")
            writer.write(chunk())
            await steps[asked].take_part(reader, writer)
        except (OSError, RuntimeError, asyncio.IncompleteReadError):  # uvloop: the handler is closed
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(stream, path, backlog=4096)
    stepping = [asyncio.create_task(each.run()) for each in steps.values()]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    for task in stepping:
        task.cancel()


def tls(plan: dict[str, Any]) -> ssl.SSLContext | None:
    """Return the client's side of the door; `None` where there is none."""
    if not plan["name"]:
        return None
    from api.contract.job.tls import Credentials, client_context  # noqa: PLC0415

    return client_context(Credentials(plan["certificate"], plan["key"]), plan["authority"])


async def reach(
    plan: dict[str, Any], context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the door, or to the engine itself."""
    if plan["port"] is None:
        return await asyncio.open_unix_connection(plan["socket"])
    return await asyncio.open_connection("127.0.0.1", plan["port"], ssl=context, server_hostname=plan["name"] or None)


def connected(plan: dict[str, Any], context: ssl.SSLContext | None) -> socket.socket:
    """Connect to the door, or to the engine itself, without a loop."""
    if context is None:
        own = socket.socket(socket.AF_UNIX)
        own.connect(plan["socket"])
        return own
    return context.wrap_socket(socket.create_connection(("127.0.0.1", plan["port"])), server_hostname=plan["name"])


async def client(plan: dict[str, Any]) -> dict[str, Any]:
    """Do what the plan says."""
    context = tls(plan)
    if plan["what"] == "connections":
        return await _connections(plan, context)
    return await _streams(plan, context)


async def _streams(plan: dict[str, Any], context: ssl.SSLContext | None) -> dict[str, Any]:
    """Take streams for some seconds; tell how long chunks were under way."""
    delays: list[float] = []
    begin = time.monotonic() + plan["settle"]
    end = begin + plan["seconds"]

    async def take() -> None:
        reader, writer = await reach(plan, context)
        writer.write(ASK_PACED if plan["paced"] else ASK)
        while True:
            came = await reader.readexactly(CHUNK)
            now = time.monotonic()
            if now >= end:
                break
            if now >= begin:
                delays.append(now - CLOCK.unpack_from(came)[0])
        writer.transport.abort()

    def take_alone() -> None:
        """Take the only stream by system calls: what a loop and its tasks add would count as the door's."""
        with connected(plan, context) as own:
            own.sendall(ASK)
            while (came := own.recv(CHUNK, socket.MSG_WAITALL if context is None else 0)) and time.monotonic() < end:
                if len(came) == CHUNK and (now := time.monotonic()) >= begin:
                    delays.append(now - CLOCK.unpack_from(came)[0])

    if plan["streams"] == 1:
        tasks = [asyncio.create_task(asyncio.to_thread(take_alone))]
    else:
        tasks = [asyncio.create_task(take()) for _ in range(plan["streams"])]
    await asyncio.sleep(max(0.0, begin - time.monotonic()))
    print("begin", flush=True)
    await asyncio.sleep(plan["seconds"])
    print("end", flush=True)
    await asyncio.wait(tasks, timeout=5)
    return {"delays": delays}


async def _connections(plan: dict[str, Any], context: ssl.SSLContext | None) -> dict[str, Any]:
    """Open connections one after another on eight lanes, each until its first chunk; hold the last ones."""
    print("begin", flush=True)
    deadline = time.monotonic() + plan["seconds"]
    made = 0

    async def lane() -> None:
        nonlocal made
        while time.monotonic() < deadline:
            reader, writer = await reach(plan, context)
            writer.write(ASK)
            await reader.readexactly(CHUNK)
            writer.transport.abort()
            made += 1

    await asyncio.gather(*(lane() for _ in range(8)))
    print("end", flush=True)
    held = [await reach(plan, context) for _ in range(plan["hold"])]
    print("held", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for _, writer in held:
        writer.transport.abort()
    return {"made": made, "seconds": plan["seconds"]}


def main(role: str, argument: str) -> None:
    """Be one end."""
    if role == "engine":
        uvloop.run(engine(argument))
    else:
        Path(f"{argument}.answer").write_text(json.dumps(uvloop.run(client(json.loads(Path(argument).read_text())))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

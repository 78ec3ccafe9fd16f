"""Event streams: server-sent events (html.spec.whatwg.org) as we write them, and as engines write theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import MappingProxyType

from litestar.response import Stream

from api.contract.asking import AskingError

HEARTBEAT_SECONDS = 15.0
HEARTBEAT = b": \n\n"
"""Says nothing: a connection that carries it is there."""
LONGEST_LINE = 256 * 1024
"""Bytes of a line that an engine streams."""
MOST_LINES = 500_000
"""That an engine streams: more than `LARGEST_STREAM` holds of vLLM's. Each costs the event loop time, be it empty."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Nobody on the way may keep or gather what is streamed."""


def event(name: str, data: bytes = b"{}", place: str | int | None = None) -> bytes:
    """Write an event. The `place` is its id, from which a client goes on that comes back; data is one line."""
    here = "" if place is None else f"id: {place}\n"
    return b"%bevent: %b\ndata: %b\n\n" % (here.encode(), name.encode(), data)


def head(comment: str, place: str | int) -> bytes:
    """Write how a stream begins: who is cut off before the first event comes back to this place."""
    return f": {comment}\nid: {place}\n\n".encode()


def event_stream(
    events: AsyncIterator[bytes], seconds: float | None = None, headers: Mapping[str, str] = MappingProxyType({})
) -> Stream:
    """Return the answer that sends these events, for at most so many seconds; with further headers."""
    content = events if seconds is None else _limited(events, seconds)
    return Stream(content, media_type="text/event-stream", headers={**HEADERS, **headers})


async def read_data(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of a stream's events line by line, as it comes; raises `AskingError` at long or many lines."""
    rest, left = b"", MOST_LINES
    async for received in stream:
        *lines, rest = (rest + received).split(b"\n")
        left -= len(lines)
        if left < 0:
            raise AskingError(f"its answer has more than {MOST_LINES:,} lines")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:")
        if len(rest) > LONGEST_LINE:
            raise AskingError(f"a line of its answer is longer than {LONGEST_LINE:,} bytes")


async def _limited(events: AsyncIterator[bytes], seconds: float) -> AsyncGenerator[bytes]:
    ends = asyncio.get_running_loop().time() + seconds
    try:
        while True:
            async with asyncio.timeout_at(ends):
                following = await anext(events)
            yield following
    except (TimeoutError, StopAsyncIteration):
        return

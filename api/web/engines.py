"""Talking to engines: under which secret, and what counts as no answer."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from api.contract.asking import AskingError, Bounds, NotConnectedError, Question, Reply, asked
from api.contract.doors import Doors, UnknownKeyError
from api.web.replicas import InFlight, ReadyReplica, why_not_connected

READ_SECONDS = 600.0
"""How long a generation may take, or be silent where it is streamed."""
STREAM_SECONDS = 3600.0
GET_SECONDS = 10.0
LARGEST_ANSWER = 4 * 1024 * 1024
MOST_VALUES = 200_000
"""Of JSON: brackets and commas that are decoded, which takes many times their size, and the event loop's time."""
LARGEST_STREAM = 32 * 1024 * 1024
"""Bytes: about 130,000 of vLLM's tokens."""


class UnreachableError(Exception):
    """No replica answered, or none as it should; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replica answered."""

    replica: ReadyReplica
    status: int
    body: Any
    """JSON decoded, or text where it is none."""


class Engines:
    """Sends requests to replicas and counts what is in flight on each."""

    def __init__(self, doors: Doors, draw: random.Random | None = None) -> None:
        self._doors = doors
        self._in_flight = InFlight(draw)

    async def get(self, replicas: Sequence[ReadyReplica], path: str, size: int = LARGEST_ANSWER) -> Answer:
        """Ask one of the replicas for at most so many bytes; raises `UnreachableError`."""
        bounds = Bounds(seconds=GET_SECONDS, silence=GET_SECONDS, size=size)
        async with self._asked(replicas, path, None, bounds) as (replica, reply):
            return await _answer(replica, reply)

    async def post(self, replicas: Sequence[ReadyReplica], path: str, content: Mapping[str, Any]) -> Answer:
        """Send JSON to one of the replicas; raises `UnreachableError`."""
        bounds = Bounds(seconds=READ_SECONDS, silence=READ_SECONDS, size=LARGEST_ANSWER)
        async with self._asked(replicas, path, content, bounds) as (replica, reply):
            return await _answer(replica, reply)

    @asynccontextmanager
    async def stream(
        self, replicas: Sequence[ReadyReplica], path: str, content: Mapping[str, Any]
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """Send JSON to one of the replicas, and take its answer bit by bit; raises `UnreachableError`.

        A refusal is read at once, and then nothing follows; of any other answer the body is left to what follows.
        """
        bounds = Bounds(seconds=STREAM_SECONDS, silence=READ_SECONDS, size=LARGEST_STREAM)
        async with self._asked(replicas, path, content, bounds) as (replica, reply):
            is_refused = reply.status != 200
            answer = await _answer(replica, reply) if is_refused else Answer(replica, reply.status, None)
            yield answer, reply.pieces()

    @asynccontextmanager
    async def _asked(
        self, replicas: Sequence[ReadyReplica], path: str, content: Mapping[str, Any] | None, bounds: Bounds
    ) -> AsyncIterator[tuple[ReadyReplica, Reply]]:
        """Try another replica as long as none has taken the connection; once one has, its answer or failure counts."""
        body = None if content is None else msgspec.json.encode(content)
        left = list(replicas)
        refused: list[str] = []
        while left:
            replica = self._in_flight.choose(left)
            try:
                with self._in_flight.counted(replica):
                    async with asked(self._question(replica, path, body), bounds) as reply:
                        yield replica, reply
                        return
            except NotConnectedError as error:
                refused.append(f"{replica.endpoint}: {why_not_connected(replica, error)}")
                left.remove(replica)
            except AskingError as error:
                raise UnreachableError(f"{replica.endpoint}: {error}") from error
        raise UnreachableError("; ".join(refused))

    def _question(self, replica: ReadyReplica, path: str, body: bytes | None) -> Question:
        """Return what is asked of a replica. Raises `NotConnectedError` where there is no way to it."""
        try:
            way = self._doors.way(replica.host, replica.port, replica.token, replica.door)
        except UnknownKeyError as error:
            raise NotConnectedError(str(error)) from error
        return Question(way=way, path=path, secret=way.secret, content=body)


async def _answer(replica: ReadyReplica, reply: Reply) -> Answer:
    """Read all that comes."""
    body = await reply.read()
    if sum(map(body.count, (b"[", b"{", b","))) > MOST_VALUES:
        return Answer(replica, reply.status, body.decode("utf-8", "replace"))
    try:
        return Answer(replica, reply.status, msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Answer(replica, reply.status, body.decode("utf-8", "replace"))

"""An answer's head leaves with the first of its body, and never later than the loop's turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from api.web.corking import CorkedTransport


class Sent(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.calls.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.calls.append(b"".join(list_of_data))

    def close(self) -> None:
        self.calls.append(b"closed")


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


async def test_head_and_body_are_one_call() -> None:
    sent = Sent()
    corked = CorkedTransport(sent)
    for body in (b"one", b"two"):
        corked.write(HEAD)
        corked.write(body)
        corked.write(b"more")
    await asyncio.sleep(0)
    assert sent.calls == [HEAD + b"one", b"more", HEAD + b"two", b"more"]


async def test_a_head_alone_leaves_at_the_end_of_the_turn() -> None:
    sent = Sent()
    CorkedTransport(sent).write(HEAD)
    assert sent.calls == []
    await asyncio.sleep(0)
    assert sent.calls == [HEAD]


async def test_what_is_written_whole_goes_behind_a_head_that_waits() -> None:
    sent = Sent()
    corked = CorkedTransport(sent)
    corked.write(HEAD)
    corked.writelines((HEAD, b"one"))
    await asyncio.sleep(0)
    assert sent.calls == [HEAD, HEAD + b"one"]


async def test_what_is_closed_has_been_written() -> None:
    sent = Sent()
    corked = CorkedTransport(sent)
    corked.write(HEAD)
    corked.close()
    await asyncio.sleep(0)
    assert sent.calls == [HEAD, b"closed"]

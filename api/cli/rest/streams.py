"""Server-sent events (html.spec.whatwg.org), followed across breaks: where the API restarts, they go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from api.cli.errors import CliError
from api.cli.rest.client import Client, RefusedError
from api.contract.exits import Exit

PAUSE_FIRST = 0.3
PAUSE_MOST = 5.0
"""Seconds between two tries to come back."""


class ServerEvent(NamedTuple):
    """One event; `id` says where to go on after it."""

    name: str
    id: str
    data: str


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield whole lines. Only a line feed ends one: text may hold what else counts as a line's end in Unicode."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


def parse(text: Iterable[str], last_id: str = "") -> Iterator[ServerEvent]:
    """Read the lines of a stream. An id without data is told as an event without a name: it is a place to go on.

    What is not ended by an empty line has not come.
    """
    name, data, here = "message", None, last_id
    for line in text:
        if line == "":
            if data is not None or here != last_id:
                last_id = here
                yield ServerEvent("" if data is None else name, here, data or "")
            name, data = "message", None
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data = value if data is None else f"{data}\n{value}"
        elif field == "event":
            name = value
        elif field == "id":
            here = value


def follow(
    client: Client, path: str, query: Mapping[str, Any], tell: Callable[[str], None], ends: float | None = None
) -> Iterator[ServerEvent]:
    """Yield the events of a stream; where it breaks, come back and go on after the last one.

    `tell` hears of breaks. Ends at `ends` (of the monotonic clock), or where whoever reads it leaves. Raises `CliError`
    where the first try fails, and where the API refuses to go on.
    """
    last_id, pause, is_first, is_away = "", PAUSE_FIRST, True, False
    while ends is None or time.monotonic() < ends:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        left = {} if ends is None else {"timeout": max(0.0, ends - time.monotonic())}
        try:
            with client.stream("GET", path, query={**query, **left}, headers=headers) as answer:
                if is_away:
                    tell("The API is back.")
                is_first, is_away, pause = False, False, PAUSE_FIRST
                for event in parse(lines(answer.iter_bytes()), last_id):
                    last_id = event.id
                    if event.name:
                        yield event
        except CliError as error:
            if is_first or not _may_come_back(error):
                raise
            if not is_away:
                tell(f"{error} Waiting until it is back; Ctrl-C ends this.")
                is_away = True
        time.sleep(pause if ends is None else max(0.0, min(pause, ends - time.monotonic())))
        pause = min(2 * pause, PAUSE_MOST)


def _may_come_back(error: CliError) -> bool:
    return error.code is Exit.UNREACHABLE or (isinstance(error, RefusedError) and error.status >= 500)

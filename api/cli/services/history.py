"""`ai-factory services events` and `history`: what happened to a service, and its attempts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import MOST_LINES, Client, connect
from api.cli.terminal.table import Column
from api.cli.terminal.text import duration
from api.contract.exits import Exit

POLL_SECONDS = 1.0
_STEPS = ("intent", "submitted", "claimed", "started", "launched", "serving", "ready", "closed", "gone")
_STATES = {"ready": "green", "ended": "dim"}

_EVENTS = (
    Column("TIME"),
    Column("TYPE", colour=lambda word: "yellow" if word == "Warning" else "dim"),
    Column("REASON"),
    Column("TIMES"),
    Column("MESSAGE", flexible=True, below=True),
)
_ATTEMPTS = (
    Column("REPLICA"),
    Column("ATTEMPT"),
    Column("STATE", colour=lambda word: _STATES.get(word, "yellow")),
    Column("JOB"),
    Column("NODE", flexible=True),
    Column("BEGAN"),
    Column("LASTED"),
    Column("OUTCOME"),
    Column("MESSAGE", flexible=True, below=True),
)
_WIDE = (
    *_ATTEMPTS[:5],
    *(Column(step.upper()) for step in _STEPS),
    Column("OUTCOME"),
    Column("EXIT"),
    Column("TOKEN"),
    Column("MESSAGE"),
)


def events(context: Context) -> Exit:
    """Print events; with --follow, what comes as well."""
    arguments = context.arguments
    tail = _tail(arguments.tail)
    with connect(context) as client:
        key = str(client.service(arguments.service)["id"])
        found = client.events(key, tail)
        if not arguments.follow:
            _write_events(context, found)
            return Exit.OK
        known = _write_new(context, found, {})
        while True:
            time.sleep(POLL_SECONDS)
            known = _write_new(context, _asked(client, key), known)


def history(context: Context) -> Exit:
    """List attempts."""
    tail = _tail(context.arguments.tail)
    with connect(context) as client:
        attempts = client.attempts(str(client.service(context.arguments.service)["id"]), tail)
    if context.output == "json":
        context.console.json(attempts)
    elif not attempts:
        context.console.note("No attempts yet: no job was submitted.")
    else:
        wide = context.output == "wide"
        rows = [_wide(one) if wide else _row(one) for one in attempts]
        context.console.table(_WIDE if wide else _ATTEMPTS, rows, full=wide)
    return Exit.OK


def _tail(number: int) -> int:
    if not 1 <= number <= MOST_LINES:
        raise CliError(f"--tail takes a number from 1 to {MOST_LINES}, not {number}.", Exit.USAGE)
    return number


def _asked(client: Client, key: str) -> list[dict[str, Any]]:
    """Return the last events; none while the API is away."""
    try:
        return client.events(key, 100)
    except CliError as error:
        if error.code is not Exit.UNREACHABLE:
            raise
        return []


def _write_events(context: Context, found: Sequence[Mapping[str, Any]]) -> None:
    if context.output == "json":
        context.console.json(found)
    elif not found:
        context.console.note("No events yet.")
    else:
        context.console.table(_EVENTS, [_event(one) for one in found])


def _write_new(
    context: Context, found: Sequence[Mapping[str, Any]], known: Mapping[tuple[str, ...], int]
) -> dict[tuple[str, ...], int]:
    """Write the events that are new, or have happened again, a line each; return all that are known now."""
    now = dict(known)
    for one in found:
        key = tuple(str(one[part]) for part in ("source", "first_at", "reason", "message"))
        if now.get(key) == one["count"]:
            continue
        now[key] = one["count"]
        if context.output == "json":
            context.console.line(json.dumps(one, ensure_ascii=False))
        else:
            at, kind, reason, times, message = _event(one)
            again = f" ({times} times)" if times != "1" else ""
            colour = "yellow" if kind == "Warning" else ""
            context.console.line(f"{at}  {context.console.paint(reason, colour)}  {message}{again}")
    return now


def _event(one: Mapping[str, Any]) -> list[str]:
    return [local(one["last_at"]), str(one["type"]), str(one["reason"]), str(one["count"]), str(one["message"])]


def _row(one: Mapping[str, Any]) -> list[str]:
    return [*_head(one), local(one["intent_at"]), _lasted(one), *_texts(one, "outcome", "message")]


def _wide(one: Mapping[str, Any]) -> list[str]:
    times = [local(one.get(f"{step}_at")) for step in _STEPS]
    return [*_head(one), *times, *_texts(one, "outcome", "exit_code", "token", "message")]


def _head(one: Mapping[str, Any]) -> list[str]:
    return _texts(one, "replica", "attempt", "state", "job_id", "node")


def _texts(one: Mapping[str, Any], *keys: str) -> list[str]:
    return ["" if one.get(key) is None else str(one[key]) for key in keys]


def _lasted(one: Mapping[str, Any]) -> str:
    """Return how long its job has run; "" before it does."""
    if one["started_at"] is None:
        return ""
    end = time.time() if one["closed_at"] is None else datetime.fromisoformat(one["closed_at"]).timestamp()
    return duration(end - datetime.fromisoformat(one["started_at"]).timestamp())


def local(at: str | None) -> str:
    """Return a time of the API as this host's clocks show it, to the second; "" for none."""
    return "" if at is None else datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")

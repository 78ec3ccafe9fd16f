"""`ai-factory services describe`: everything the API tells about one service, laid out for people."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api.cli.context import Context
from api.cli.rest.client import RefusedError, connect
from api.cli.services.rows import Service, age, ready, status_colour, status_of
from api.cli.services.standing import STANDING, standing_rows
from api.cli.terminal.console import Console, entries
from api.cli.terminal.table import Column
from api.cli.terminal.text import duration, one_line
from api.contract.exits import Exit

MOST = 10
"""Ended attempts and events are shown: the last ones. `services history` and `events` show all."""

_CONDITION = (
    Column("TYPE"),
    Column("STATUS", colour=lambda s: {"True": "green", "False": "red"}.get(s, "yellow")),
    Column("REASON"),
    Column("SINCE"),
    Column("MESSAGE", flexible=True, below=True, whole=True),
)
_ATTEMPT = (
    Column("REPLICA"),
    Column("ATTEMPT"),
    Column("LANE"),
    Column("JOB"),
    Column("STATE", colour=status_colour),
    Column("NODE", flexible=True),
    Column("ENDED"),
    Column("MESSAGE", flexible=True, below=True),
)
_EVENT = (
    Column("LAST"),
    Column("TIMES"),
    Column("TYPE", colour=lambda s: "yellow" if s == "Warning" else ""),
    Column("REASON"),
    Column("MESSAGE", flexible=True, below=True),
)


def describe(context: Context) -> Exit:
    """Tell all about one service."""
    with connect(context) as client:
        service = client.service(context.arguments.service)
        key = str(service["id"])
        with contextlib.suppress(RefusedError):  # by an API that gives the contract alone
            service = {**service, "attempts": client.attempts(key, MOST), "events": client.events(key, MOST)}
            service = {**service, "rollout": client.rollout(key)}
    if context.output == "json":
        context.console.json(service)
    else:
        write(context.console, service, time.time())
    return Exit.OK


def write(console: Console, service: Service, now: float) -> None:
    """Write what there is; what the API does not say is left out."""
    entries(console, _facts(service, now))
    _section(console, "Config", [f"{key}: {_value(value)}" for key, value in (service.get("config") or {}).items()])
    _section(console, "Warnings", _warnings(service))
    _table(console, "Conditions", _CONDITION, [_condition(c, now) for c in _items(service, "conditions")])
    standing = _items(service.get("rollout") or {}, "attempts")
    _table(console, "Replicas", STANDING, standing_rows(standing, now))
    tokens = {one["token"] for one in standing}
    before = [_attempt(a, now) for a in _items(service, "attempts") if a.get("token") not in tokens]
    _table(console, "Attempts before" if standing else "Attempts", _ATTEMPT, before)
    _table(console, "Events", _EVENT, [_event(e, now) for e in _items(service, "events")])


def _facts(service: Service, now: float) -> dict[str, str]:
    unseen = int(service.get("generation") or 0) > int(service.get("observed_generation") or 0)
    facts = {
        "Name": str(service.get("name") or ""),
        "Id": str(service.get("id") or ""),
        "Recipe": str(service.get("recipe_name") or ""),
        "Status": status_of(service),
        "Ready": ready(service),
        "Endpoint": str(service.get("endpoint") or ""),
        "Generation": f"{service.get('generation') or ''}{' (not looked at yet)' if unseen else ''}",
        "Created": f"{service.get('created_at') or ''} ({age(service, now)} ago)",
        "Message": str(service.get("message") or ""),
        "Rollout": _rollout(service),
    }
    return {name: value for name, value in facts.items() if value}


def _rollout(service: Service) -> str:
    """Say how far the last change is; "" where the API does not. What to do about it says a condition."""
    rollout = service.get("rollout")
    if not rollout:
        return ""
    return f"{rollout['state']}, {rollout['updated_replicas']} of {rollout['replicas']} replicas run what is wanted"


def _warnings(service: Service) -> list[str]:
    """Return what the controller finds to be probably not meant, in full: a table would cut it short."""
    said = [c for c in _items(service, "conditions") if c.get("reason") == "ValidWithWarnings"]
    return [one_line(str(c["message"])) for c in said if c.get("message")]


def _condition(condition: Mapping[str, Any], now: float) -> list[str]:
    keys = ("type", "status", "reason")
    return [*_texts(condition, keys), _ago(condition.get("since"), now), *_texts(condition, ("message",))]


def _attempt(attempt: Mapping[str, Any], now: float) -> list[str]:
    state = attempt.get("outcome") or attempt.get("state") or ""
    node = attempt.get("node") or attempt.get("host") or ""
    return [
        *_texts(attempt, ("replica", "attempt", "lane", "job_id")),
        str(state),
        str(node),
        _ago(attempt.get("closed_at"), now),
        *_texts(attempt, ("message",)),
    ]


def _event(event: Mapping[str, Any], now: float) -> list[str]:
    last = event.get("last_at") or event.get("at")
    times = str(event.get("count") or 1)
    reason = event.get("reason") or event.get("action") or ""
    return [_ago(last, now), times, str(event.get("type") or "Normal"), str(reason), *_texts(event, ("message",))]


def _items(service: Service, key: str) -> list[Mapping[str, Any]]:
    found = service.get(key)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, Sequence) else []


def _table(console: Console, title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        console.line()
        console.line(f"{title}:")
        console.table(columns, rows)


def _section(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.line()
        console.line(f"{title}:")
        for line in lines:
            console.line(f"  {line}")


def _texts(item: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return ["" if item.get(key) is None else str(item[key]) for key in keys]


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _ago(at: object, now: float) -> str:
    """Return how long ago a time was, given in Unix seconds or ISO 8601."""
    if isinstance(at, str):
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            return at
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return duration(now - at) if isinstance(at, int | float) else ""

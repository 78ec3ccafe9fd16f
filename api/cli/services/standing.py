"""The attempts that stand for a service's replicas, as rows of a table: two of a replica in a hand-over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from api.cli.terminal.table import Column
from api.cli.terminal.text import duration

_STATES = {"ready": "green", "draining": "dim"}

STANDING = (
    Column("REPLICA"),
    Column("ATTEMPT"),
    Column("LANE"),
    Column("JOB"),
    Column("NODE", flexible=True),
    Column("STATE", colour=lambda word: _STATES.get(word.partition(" ")[0], "yellow")),
    Column("RUNS", colour=lambda word: "" if word == "wanted" else "yellow"),
    Column("ENDS"),
    Column("THEN", flexible=True, below=True),
)


def standing_rows(attempts: Iterable[Mapping[str, Any]], now: float) -> list[list[str]]:
    """Return the cells of attempts as the API tells them in a rollout, at a time in Unix seconds."""
    return [
        [
            *(_text(one, key) for key in ("replica", "attempt", "lane", "job_id", "node")),
            _state(one, now),
            "wanted" if one["is_updated"] else f"generation {one['generation']}",
            _in(one["ends_at"], now),
            str(one["then"]),
        ]
        for one in attempts
    ]


def _state(one: Mapping[str, Any], now: float) -> str:
    """Say how far an attempt is, why it was opened beside another, and since when it drains."""
    if one["draining_since"] is not None:
        return f"draining {duration(now - _seconds(one['draining_since']))}"
    return (
        f"{one['state']} ({one['beside']})" if one["beside"] is not None and one["state"] != "ready" else one["state"]
    )


def _in(at: str | None, now: float) -> str:
    if at is None:
        return ""
    left = _seconds(at) - now
    return f"in {duration(left)}" if left > 0 else f"{duration(-left)} ago"


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _text(one: Mapping[str, Any], key: str) -> str:
    return "" if one.get(key) is None else str(one[key])

"""Which two attempts of a replica may live at once: those of a hand-over, whose reason is recorded."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster.system import System

MayLive = Callable[[str, str], bool]
"""Whether the attempt of the second token may live beside that of the first, which is older."""


def none_may(_older: str, _newer: str) -> bool:
    """For who knows of no hand-over."""
    return False


def by_their_rows(system: System) -> MayLive:
    """Say it by the rows as they are now: the newer one says why, and stands in the other lane."""
    rows = {row["token"]: row for row in system.sql("SELECT token, lane, beside FROM attempts")}

    def may_live(older: str, newer: str) -> bool:
        if older not in rows or newer not in rows:
            return False
        return rows[newer]["beside"] is not None and rows[newer]["lane"] != rows[older]["lane"]

    return may_live

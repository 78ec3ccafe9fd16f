"""Who uses the system while it is broken: services are created, changed, scaled, stopped, started and deleted."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx

from tests.cluster.engines import RECIPE
from tests.cluster.system import System

LEAST_SERVICES, MOST_SERVICES = 5, 10
MOST_REPLICAS = 3
SHORT_LIVED = 0.2
"""Share of the services whose jobs end after a minute."""
STEADY = 2
"""The first services, which nobody touches; their jobs end after a minute, so they are handed over again and again."""


class RefusedError(Exception):
    """The API said no."""


class Users:
    """Move by move, by REST and SQL; what was acknowledged is remembered."""

    def __init__(self, system: System, drawn: random.Random, changes: Counter[str]) -> None:
        self._system = system
        self._drawn = drawn
        self._changes = changes
        self._acknowledged: dict[str, int] = {}
        """Replicas by service: 0 if it is stopped, -1 if it is deleted."""
        self._doubtful: set[str] = set()

    def pause(self) -> float:
        """Return the seconds until the next move."""
        return self._drawn.uniform(0.2, 4.0)

    def move(self) -> None:
        """Do something to one of the services."""
        alive = [key for key, replicas in self._acknowledged.items() if replicas >= 0]
        touched = alive[STEADY:]
        moves = [self.change, self._scale, self._stop_or_start, self._delete]
        move = self._create if len(alive) < LEAST_SERVICES else self._drawn.choice([self._create, *moves])
        if move == self._create and len(alive) >= MOST_SERVICES:
            move = self._delete
        key = self._drawn.choice(touched) if touched else ""
        try:
            move(key)
        except (httpx.HTTPError, sqlite3.Error, RefusedError):
            self._changes["refused or unanswered"] += 1
            self._doubtful.add(key)

    def change(self, key: str) -> None:
        """Have it replaced by one of another model."""
        model = f"model-{self._drawn.randint(1, 99)}"
        self._system.sql("UPDATE services SET config = json_set(config, '$.model', ?) WHERE id = ?", model, key)
        self._changes["changed"] += 1

    def wanted(self) -> dict[str, int]:
        """Return the replicas that the table asks for, by service; 0 for one that is stopped or deleted."""
        query = "SELECT id, replicas, desired_state, deletion_requested_at FROM services"
        wanted = {}
        for row in self._system.sql(query):
            ended = row["deletion_requested_at"] is not None or row["desired_state"] != "running"
            wanted[row["id"]] = 0 if ended else row["replicas"] or 1
        return wanted

    def forgotten(self, wanted: Mapping[str, int]) -> list[str]:
        """Return what was acknowledged and is not wanted by the table."""
        return [
            f"{key}: {replicas} replicas were acknowledged, {wanted.get(key)} are wanted"
            for key, replicas in self._acknowledged.items()
            if key not in self._doubtful and max(replicas, 0) != wanted.get(key, 0)
        ]

    def _create(self, _: str) -> None:
        replicas = self._drawn.randint(1, MOST_REPLICAS)
        config: dict[str, Any] = {"startup_delay": self._drawn.choice((0, 0, 1)), "replicas": replicas}
        if len(self._acknowledged) < STEADY or self._drawn.random() < SHORT_LIVED:
            config["resources"] = {"time_limit": 1}
            self._changes["created, with jobs of a minute"] += 1
        body = {"recipe_name": RECIPE, "config": config}
        answer = self._system.client.post("/api/v1/services", json=body)
        _check(answer)
        self._acknowledged[str(answer.json()["id"])] = replicas
        self._changes["created"] += 1

    def _scale(self, key: str) -> None:
        replicas = self._drawn.randint(1, MOST_REPLICAS)
        self._system.sql("UPDATE services SET replicas = ? WHERE id = ?", replicas, key)
        if self._acknowledged[key] > 0:
            self._acknowledged[key] = replicas
        self._changes["scaled"] += 1

    def _stop_or_start(self, key: str) -> None:
        stopped = self._acknowledged[key] == 0
        word = "running" if stopped else "stopped"
        self._system.sql("UPDATE services SET desired_state = ? WHERE id = ?", word, key)
        replicas = self._system.sql("SELECT replicas FROM services WHERE id = ?", key)[0][0]
        self._acknowledged[key] = replicas if stopped else 0
        self._changes["started again" if stopped else "stopped"] += 1

    def _delete(self, key: str) -> None:
        if self._drawn.random() < 0.5:
            self._system.sql("DELETE FROM services WHERE id = ?", key)
        else:
            _check(self._system.client.delete(f"/api/v1/services/{key}"))
        self._acknowledged[key] = -1
        self._changes["deleted"] += 1


def _check(answer: httpx.Response) -> None:
    if answer.status_code != 200:
        raise RefusedError(answer.text)

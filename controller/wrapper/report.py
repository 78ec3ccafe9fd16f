"""What the job tells the controller: `state.json` while it runs, `exit.json` at its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from api.contract.job.folder import EXIT, STATE
from api.contract.job.words import ExitReason, Lane, Step
from controller.wrapper.files import replace, say

MESSAGE_LIMIT = 2000
"""Characters of an exit's message."""

DETAIL_INTERVAL = 1.0
"""Seconds between two writings that differ in nothing but the detail."""

SIGN_INTERVAL = 5.0
"""Seconds between two signs of life: new times of `state.json`'s last change."""


@dataclass(frozen=True)
class HealthVerdict:
    """What the health checks of kind `command` say."""

    ok: bool
    failures: int
    """In a row."""
    message: str


@dataclass(frozen=True)
class Ending:
    """How it ended: the exit code, one word, and what tells people why."""

    code: int
    reason: ExitReason
    message: str


class FailedError(Exception):
    """The job ends here, for a reason of its own rather than the engine's."""

    def __init__(self, reason: ExitReason, message: str) -> None:
        super().__init__(message)
        self.ending = Ending(1, reason, message)


class Report:
    """The two files. What can't be written is said once on stderr, and is no reason to stop an engine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._step: Step | None = None
        self._port: int | None = None
        self.digest: str | None = None
        """What identifies the launch spec; `ai-factory adopt` reads it back."""
        self.lane = Lane.MAIN
        """Of its replica; `ai-factory adopt` reads it back."""
        self.door: str | None = None
        """Under which of the installation's keys its door was made; `ai-factory adopt` reads it back."""
        self.image: str | None = None
        """The key of its image in the cache; empty: it uses none of those."""
        self.network_refusal: str | None = None
        """Why its node gives it no network of its own, where it is to have one."""
        self.told_to_end_at: float | None = None
        """When somebody else than the controller told the job to end, Unix seconds by this node's clock."""
        self._is_empty = False
        self._detail = ""
        self._health: HealthVerdict | None = None
        self._written: tuple[Step | None, int | None, str, HealthVerdict | None, bool] | None = None
        self._written_at = 0.0
        self._signed_at = 0.0
        self._complained = False

    def step(self, step: Step, detail: str = "", port: int | None = None) -> None:
        """Enter a step. A port, once known, stays until another is given."""
        self._step, self._detail = step, detail
        self._port = port if port is not None else self._port
        self._write()

    def detail(self, detail: str, at_once: bool = False) -> None:
        """Say more about the step; written at most once a second unless `at_once`, the newest wins."""
        self._detail = detail
        if at_once:
            self._write()
        self.catch_up()

    def health(self, verdict: HealthVerdict | None) -> None:
        """Say what the health checks say, once it is something else than before."""
        if verdict != self._health:
            self._health = verdict
            self._write()

    def empty(self, is_empty: bool) -> None:
        """Say whether the door drains and nobody has anything open, once that is otherwise than before."""
        if is_empty != self._is_empty:
            self._is_empty = is_empty
            self._write()

    def catch_up(self) -> None:
        """Write a detail that was held back, once its time has come."""
        if time.monotonic() - self._written_at >= DETAIL_INTERVAL:
            self._write()

    def sign(self) -> None:
        """Give a sign of life, if it is time: whoever sees none while Slurm lists no job takes us for dead."""
        now = time.monotonic()
        if now - self._signed_at >= SIGN_INTERVAL:
            self._signed_at = now
            with contextlib.suppress(OSError):  # what can't be written is said where there is something to say
                os.utime(self._folder / STATE)

    def end(self, ending: Ending) -> None:
        """Write the last word."""
        message = clean(ending.message)[:MESSAGE_LIMIT]
        self._put(EXIT, {"code": ending.code, "reason": ending.reason, "message": message})

    def _write(self) -> None:
        now = (self._step, self._port, self._detail, self._health, self._is_empty)
        if now == self._written:
            return
        self._written, self._written_at = now, time.monotonic()
        content: dict[str, object] = {"step": self._step, "port": self._port, "detail": clean(self._detail)}
        content["sign_interval"] = SIGN_INTERVAL
        if self.digest:
            content["digest"] = self.digest
        if self.lane is not Lane.MAIN:
            content["lane"] = self.lane
        if self.door is not None:
            content["door"] = self.door
        if self.image is not None:
            content["image"] = self.image
        if self.network_refusal is not None:
            content["network_refusal"] = self.network_refusal
        if self.told_to_end_at is not None:
            content["told_to_end_at"] = self.told_to_end_at
        if self._is_empty:
            content["empty"] = True
        if self._health is not None:
            told = {"ok": self._health.ok, "failures": self._health.failures, "message": clean(self._health.message)}
            content["health"] = told
        self._put(STATE, content)

    def _put(self, name: str, content: dict[str, object]) -> None:
        try:
            replace(self._folder / name, json.dumps({**content, "at": time.time()}))
        except OSError as error:
            self._written = None
            if not self._complained:
                say(f"cannot write {name}: {error}")
            self._complained = True


def clean(text: str) -> str:
    """Drop control characters, which neither JSON's readers nor databases welcome."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", "", text)

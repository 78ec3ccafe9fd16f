"""Probes: is the engine well, and is it ours? Kept up to date in the background.

One task gives the engines their turns; each has one of its own only while it is asked, so that many cost little.

A probe that calls a vLLM engine ready proves that it talks to the right process: it serves the model's name under the
attempt's secret. Others are asked over HTTP, or only connected to; or the job itself makes the check, and its files
tell the verdict. Deciding sees no difference.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from api.contract.asking import AskingError, Bounds, Question, asked, base_url
from api.contract.launch import Health
from controller.core.attempt import Attempt, Probe, ProbeSpec
from controller.core.job_files import Verdict
from controller.ports import Clock
from controller.queue import KeyedQueue

log = logging.getLogger(__name__)

STARTING_INTERVAL = 0.5
"""Seconds between probes of an engine that has never answered."""
MOST_PER_SECOND = 500
MOST_AT_ONCE = 300
"""Probes; with more engines than can be asked in their intervals, each is asked less often. Each probe under way holds
a connection, and a process may often have no more than 1,024 files open."""
OLD_VERDICT = 20.0
"""Seconds after which the verdict of a job's own health checks no longer stands for its engine; they sign every 5 s."""
LARGEST_ANSWER = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked of one engine."""

    service_id: str
    token: str
    host: str
    port: int
    health: Health
    secret: str | None
    """Set for engines that speak vLLM's API."""
    model: str | None

    @property
    def address(self) -> str:
        """Its base URL."""
        return base_url(self.host, self.port)


class Verdicts(Protocol):
    """Where jobs tell what their own checks say."""

    async def verdict(self, service_id: str, token: str) -> Verdict | None:
        """Read the latest one; `None` if there is none yet."""
        ...


@dataclass(slots=True, kw_only=True)
class _Watched:
    """One engine, and what is known of it."""

    service_id: str
    target: Target
    known: bool | None
    """Whether it was ready when it was last heard of; `None` if it never was."""
    ever_ready: bool
    latest: Probe | None = None
    missed: bool = False
    """Whether its job is missed on the cluster: what it answers decides whether it is gone."""


class HttpProbes:
    """Probes, most of them over HTTP. `wake` is called with the service's id when an attempt's health changed."""

    def __init__(
        self, clock: Clock, secret: Callable[[str], str], wake: Callable[[str], None], verdicts: Verdicts
    ) -> None:
        self._clock = clock
        self._secret = secret
        self._wake = wake
        self._verdicts = verdicts
        self._watched: dict[str, _Watched] = {}
        self._queue = KeyedQueue(time.monotonic)
        self._turns: asyncio.Task[None] | None = None
        self._asking: dict[str, asyncio.Task[float]] = {}
        self._free = asyncio.Semaphore(MOST_AT_ONCE)

    def watch(self, attempt: Attempt, spec: ProbeSpec) -> None:
        """Probe this attempt from now on; nothing happens if it is watched already."""
        target = self._target(attempt, spec)
        if target is None:
            return
        current = self._watched.get(attempt.token)
        if current is not None and current.target == target:
            self._hurry(attempt, current)
            return
        self.forget(attempt.token)
        # That one which was ready before our term is ready still is no news: there may be thousands of them.
        self._watched[attempt.token] = _Watched(
            service_id=attempt.service_id,
            target=target,
            known=attempt.ready or None,
            ever_ready=attempt.ready_at is not None,
            missed=attempt.absent_since is not None,
        )
        self._queue.add(attempt.token)
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns())

    def _hurry(self, attempt: Attempt, watched: _Watched) -> None:
        """Ask an engine at once whose job has come to be missed."""
        was_missed, watched.missed = watched.missed, attempt.absent_since is not None
        if watched.missed and not was_missed:
            self._queue.add(attempt.token)

    async def once(self, attempt: Attempt, spec: ProbeSpec) -> Probe | None:
        """Probe this attempt now, and remember nothing; `None` if there is nothing to probe."""
        target = self._target(attempt, spec)
        if target is None:
            return None
        return await self._look(target, 0)

    def forget(self, token: str) -> None:
        """Stop probing it."""
        self._watched.pop(token, None)
        if token in self._asking:
            self._asking[token].cancel()

    def latest(self, token: str) -> Probe | None:
        """Return the latest result."""
        watched = self._watched.get(token)
        return watched.latest if watched is not None else None

    async def close(self) -> None:
        """Stop all probes."""
        tasks: list[asyncio.Task[Any]] = [*self._asking.values()]
        tasks += [self._turns] if self._turns is not None else []
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _target(self, attempt: Attempt, spec: ProbeSpec) -> Target | None:
        if spec.health is None or attempt.host is None or attempt.port is None:
            return None
        is_vllm = spec.engine == "vllm"
        return Target(
            service_id=attempt.service_id,
            token=attempt.token,
            host=attempt.host,
            port=attempt.port,
            health=spec.health,
            secret=self._secret(attempt.token) if is_vllm else None,
            model=spec.model if is_vllm else None,
        )

    async def _take_turns(self) -> None:
        """Ask whoever is due, evenly spread."""
        while (token := await self._queue.get()) is not None:
            watched = self._watched.get(token)
            if watched is None:
                self._queue.done(token)
                continue
            await self._free.acquire()
            asking = asyncio.create_task(self._probe(watched))
            self._asking[token] = asking
            asking.add_done_callback(partial(self._had_its_turn, token))
            await asyncio.sleep(1 / MOST_PER_SECOND)

    def _had_its_turn(self, token: str, asking: asyncio.Task[float]) -> None:
        del self._asking[token]
        self._free.release()
        pause = STARTING_INTERVAL
        if not asking.cancelled() and (error := asking.exception()) is not None:
            log.error("a probe failed", exc_info=error, extra={"token": token})
        elif not asking.cancelled():
            pause = asking.result()
        self._queue.done(token, time.monotonic() + pause if token in self._watched else None)

    async def _probe(self, watched: _Watched) -> float:
        """Ask an engine; return in how many seconds it is to be asked again."""
        target, before = watched.target, watched.latest
        watched.latest = await self._look(target, before.failures if before is not None else 0, missed=watched.missed)
        ready = watched.latest.ready
        if watched.known != ready or (watched.ever_ready and not ready):
            self._wake(watched.service_id)
        watched.known = ready
        watched.ever_ready = watched.ever_ready or ready
        if not watched.ever_ready:
            return STARTING_INTERVAL
        # Looked at more closely, so that a dead engine is found within a few intervals.
        is_suspect = watched.missed or not ready
        return min(target.health.interval, STARTING_INTERVAL * 2) if is_suspect else target.health.interval

    async def _outlives_its_checks(self, target: Target, told: Verdict) -> bool:
        """Whether something accepts connections there though whoever checked it has not been heard of for long."""
        is_old = told.age is None or told.age >= OLD_VERDICT
        return is_old and await _connect(target) is None

    async def _look(self, target: Target, failures: int, *, missed: bool = False) -> Probe:
        """Probe once, after so many failures in a row. `missed`: its job is, on the cluster."""
        if target.health.kind == "command":
            told = await self._verdicts.verdict(target.service_id, target.token)
            if told is not None:
                # Told by a file that stays when its writer is gone: it is as old as that one's last sign of life.
                at = self._clock.now() - told.age if told.age is not None else 0.0
                if missed and await self._outlives_its_checks(target, told):
                    return Probe(at=self._clock.now(), ready=True, failures=0)
                return Probe(at=at, ready=told.ok, failures=told.failures, message=told.message, is_own=True)
            trouble: str | None = "its job has made no health check yet"
        elif target.health.kind == "tcp":
            trouble = await _connect(target)
        else:
            trouble = await self._ask(target)
        ready = trouble is None
        return Probe(
            at=self._clock.now(),
            ready=ready,
            failures=0 if ready else failures + 1,
            message=trouble or "",
            is_own=ready and target.secret is not None and target.model is not None,
        )

    async def _ask(self, target: Target) -> str | None:
        """Ask over HTTP; return what is wrong, `None` if all is well."""
        try:
            status, _ = await self._get(target, target.health.path)
            if status >= 400:
                return f"{target.health.path} answered {status}"
            if target.model is None:
                return None
            status, body = await self._get(target, "/v1/models")
        except AskingError as error:
            return f"{target.address} does not answer ({error})"
        if status != 200:
            return f"/v1/models answered {status}: another program may be listening there"
        return None if target.model in _models(body) else f"the model {target.model!r} is not served there"

    @staticmethod
    async def _get(target: Target, path: str) -> tuple[int, bytes]:
        secret = target.secret if target.model else None
        question = Question(host=target.host, port=target.port, path=path, secret=secret)
        bounds = Bounds(seconds=target.health.timeout, silence=target.health.timeout, size=LARGEST_ANSWER)
        async with asked(question, bounds) as reply:
            return reply.status, await reply.read()


async def _connect(target: Target) -> str | None:
    """Open a connection and close it; return what is wrong, `None` if all is well."""
    try:
        async with asyncio.timeout(target.health.timeout):
            _, writer = await asyncio.open_connection(target.host, target.port)
    except (OSError, ValueError) as error:  # TimeoutError is one
        return f"nothing accepts connections at {target.host}:{target.port} ({type(error).__name__})"
    writer.transport.abort()
    return None


def _models(body: bytes) -> set[str]:
    try:
        listed = json.loads(body)["data"]
        return {model["id"] for model in listed}
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()

"""Probes: is the engine well, and is it ours? Kept up to date in the background.

One task gives the engines their turns; each has one of its own only while it is asked, so that many cost little.

A probe that calls a vLLM engine ready proves that it talks to the right process: it serves the model's name under the
attempt's secret.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from api.contract.launch import Health, LaunchSpec
from controller.core.model import Attempt, Probe
from controller.ports import Clock
from controller.runtime.queue import KeyedQueue

log = logging.getLogger(__name__)

STARTING_INTERVAL = 0.5
"""Seconds between probes of an engine that has never answered."""
MOST_PER_SECOND = 500
MOST_AT_ONCE = 300
"""Probes; with more engines than can be asked in their intervals, each is asked less often. Each probe under way holds
a connection, and a process may often have no more than 1,024 files open."""
LARGEST_ANSWER = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked of one engine."""

    address: str
    health: Health
    secret: str | None
    """Set for engines that speak vLLM's API."""
    model: str | None


@dataclass(slots=True, kw_only=True)
class _Watched:
    """One engine, and what is known of it."""

    service_id: str
    target: Target
    known: bool | None
    """Whether it was ready when it was last heard of; `None` if it never was."""
    ever_ready: bool
    latest: Probe | None = None


class HttpProbes:
    """Probes over HTTP. `wake` is called with the service's id when an attempt's health changed."""

    def __init__(self, clock: Clock, secret: Callable[[str], str], wake: Callable[[str], None]) -> None:
        self._clock = clock
        self._secret = secret
        self._wake = wake
        self._session: aiohttp.ClientSession | None = None
        self._watched: dict[str, _Watched] = {}
        self._queue = KeyedQueue(time.monotonic)
        self._turns: asyncio.Task[None] | None = None
        self._asking: dict[str, asyncio.Task[float]] = {}
        self._free = asyncio.Semaphore(MOST_AT_ONCE)

    def watch(self, attempt: Attempt, spec: LaunchSpec) -> None:
        """Probe this attempt from now on; nothing happens if it is watched already."""
        target = self._target(attempt, spec)
        if target is None:
            return
        current = self._watched.get(attempt.token)
        if current is not None and current.target == target:
            return
        self.forget(attempt.token)
        # That one which was ready before our term is ready still is no news: there may be thousands of them.
        self._watched[attempt.token] = _Watched(
            service_id=attempt.service_id,
            target=target,
            known=attempt.ready or None,
            ever_ready=attempt.ready_at is not None,
        )
        self._queue.add(attempt.token)
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns())

    async def once(self, attempt: Attempt, spec: LaunchSpec) -> Probe | None:
        """Probe this attempt now, and remember nothing; `None` if there is nothing to probe."""
        target = self._target(attempt, spec)
        if target is None:
            return None
        trouble = await self._ask(target)
        return Probe(
            at=self._clock.now(), ready=trouble is None, failures=int(trouble is not None), message=trouble or ""
        )

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
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _target(self, attempt: Attempt, spec: LaunchSpec) -> Target | None:
        if spec.health is None or attempt.host is None or attempt.port is None:
            return None
        host = f"[{attempt.host}]" if ":" in attempt.host else attempt.host
        is_vllm = spec.engine == "vllm"
        return Target(
            address=f"http://{host}:{attempt.port}",
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
        trouble = await self._ask(target)
        ready = trouble is None
        failures = 0 if ready else (before.failures if before is not None else 0) + 1
        watched.latest = Probe(at=self._clock.now(), ready=ready, failures=failures, message=trouble or "")
        if watched.known != ready or (watched.ever_ready and not ready):
            self._wake(watched.service_id)
        watched.known = ready
        watched.ever_ready = watched.ever_ready or ready
        # A failure is looked at more closely, so that a dead engine is found within a few intervals.
        if not watched.ever_ready:
            return STARTING_INTERVAL
        return target.health.interval if ready else min(target.health.interval, STARTING_INTERVAL * 2)

    async def _ask(self, target: Target) -> str | None:
        """Probe once; return what is wrong, `None` if all is well."""
        try:
            status, _ = await self._get(target, target.health.path)
            if status >= 400:
                return f"{target.health.path} answered {status}"
            if target.model is None:
                return None
            status, body = await self._get(target, "/v1/models")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return f"{target.address} does not answer ({type(error).__name__})"
        if status != 200:
            return f"/v1/models answered {status}: another program may be listening there"
        return None if target.model in _models(body) else f"the model {target.model!r} is not served there"

    async def _get(self, target: Target, path: str) -> tuple[int, bytes]:
        if self._session is None:
            # Each probe on a connection of its own: that is what a client would meet.
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        headers = {"Authorization": f"Bearer {target.secret}"} if target.secret and target.model else {}
        timeout = aiohttp.ClientTimeout(total=target.health.timeout)
        request = self._session.get(target.address + path, headers=headers, timeout=timeout, allow_redirects=False)
        async with request as response:
            return response.status, await _body(response)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Read the whole answer, however many pieces it comes in, but not without end."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LARGEST_ANSWER:
            break
    return bytes(body)


def _models(body: bytes) -> set[str]:
    try:
        listed = json.loads(body)["data"]
        return {model["id"] for model in listed}
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()

"""Probes: is the engine well, and is it ours? Kept up to date in the background, one task an attempt.

A probe that calls a vLLM engine ready proves that it talks to the right process: it serves the model's name under the
attempt's secret. Others are asked over HTTP, or only connected to; or the job itself makes the check, and its files
tell the verdict. Deciding sees no difference.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from api.contract.launch import Health, LaunchSpec
from controller.core.model import Attempt, Probe, Verdict
from controller.ports import Clock

STARTING_INTERVAL = 0.5
"""Seconds between probes of an engine that has never answered."""
MOST_PER_SECOND = 500
"""Probes; with more engines than can be asked in their intervals, each is asked less often."""
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
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


class Verdicts(Protocol):
    """Where jobs tell what their own checks say."""

    async def verdict(self, service_id: str, token: str) -> Verdict | None:
        """Read the latest one; `None` if there is none yet."""
        ...


class HttpProbes:
    """Probes, most of them over HTTP. `wake` is called with the service's id when an attempt's health changed."""

    def __init__(
        self, clock: Clock, secret: Callable[[str], str], wake: Callable[[str], None], verdicts: Verdicts
    ) -> None:
        self._clock = clock
        self._secret = secret
        self._wake = wake
        self._verdicts = verdicts
        self._session: aiohttp.ClientSession | None = None
        self._tasks: dict[str, tuple[Target, asyncio.Task[None]]] = {}
        self._latest: dict[str, Probe] = {}

    def watch(self, attempt: Attempt, spec: LaunchSpec) -> None:
        """Probe this attempt from now on; nothing happens if it is watched already."""
        target = self._target(attempt, spec)
        if target is None:
            return
        current = self._tasks.get(attempt.token)
        if current is not None and current[0] == target:
            return
        self.forget(attempt.token)
        task = asyncio.create_task(self._follow(attempt, target))
        self._tasks[attempt.token] = target, task

    async def once(self, attempt: Attempt, spec: LaunchSpec) -> Probe | None:
        """Probe this attempt now, and remember nothing; `None` if there is nothing to probe."""
        target = self._target(attempt, spec)
        if target is None:
            return None
        return await self._look(target, 0)

    def forget(self, token: str) -> None:
        """Stop probing it."""
        self._latest.pop(token, None)
        current = self._tasks.pop(token, None)
        if current is not None:
            current[1].cancel()

    def latest(self, token: str) -> Probe | None:
        """Return the latest result."""
        return self._latest.get(token)

    async def close(self) -> None:
        """Stop all probes."""
        tasks = [task for _, task in self._tasks.values()]
        for token in list(self._tasks):
            self.forget(token)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _target(self, attempt: Attempt, spec: LaunchSpec) -> Target | None:
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

    async def _follow(self, attempt: Attempt, target: Target) -> None:
        token, ever_ready = attempt.token, attempt.ready_at is not None
        while True:
            before = self._latest.get(token)
            probe = await self._look(target, before.failures if before is not None else 0)
            self._latest[token] = probe
            # That one which was ready before our term is ready still is no news: there may be thousands of them.
            known = before.ready if before is not None else attempt.ready or None
            if known != probe.ready or (ever_ready and not probe.ready):
                self._wake(attempt.service_id)
            ever_ready = ever_ready or probe.ready
            # A failure is looked at more closely, so that a dead engine is found within a few intervals.
            pause = target.health.interval if probe.ready else min(target.health.interval, STARTING_INTERVAL * 2)
            pause = pause if ever_ready else STARTING_INTERVAL
            await asyncio.sleep(max(pause, len(self._tasks) / MOST_PER_SECOND))

    async def _look(self, target: Target, failures: int) -> Probe:
        """Probe once, after so many failures in a row."""
        if target.health.kind == "command":
            told = await self._verdicts.verdict(target.service_id, target.token)
            if told is not None:
                return Probe(at=self._clock.now(), ready=told.ok, failures=told.failures, message=told.message)
            trouble: str | None = "its job has made no health check yet"
        elif target.health.kind == "tcp":
            trouble = await _connect(target)
        else:
            trouble = await self._ask(target)
        ready = trouble is None
        return Probe(at=self._clock.now(), ready=ready, failures=0 if ready else failures + 1, message=trouble or "")

    async def _ask(self, target: Target) -> str | None:
        """Ask over HTTP; return what is wrong, `None` if all is well."""
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


async def _connect(target: Target) -> str | None:
    """Open a connection and close it; return what is wrong, `None` if all is well."""
    try:
        async with asyncio.timeout(target.health.timeout):
            _, writer = await asyncio.open_connection(target.host, target.port)
    except (OSError, ValueError) as error:  # TimeoutError is one
        return f"nothing accepts connections at {target.host}:{target.port} ({type(error).__name__})"
    writer.transport.abort()
    return None


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

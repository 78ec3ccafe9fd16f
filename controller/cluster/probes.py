"""Probes: is the engine well, and is it ours? Kept up to date in the background.

One task gives the engines their turns; each has one of its own only while it is asked, so that many cost little.

Doors that tell of an engine's beginning and end are watched, so that it is asked at once.

What answers through a door has proved to be its attempt's own. Without a door, a vLLM engine proves it by serving the
model's name under the attempt's secret. Others are asked over HTTP, or only connected to; or the job itself makes the
check, and its files tell the verdict. Deciding sees no difference.

Where this host lacks what it takes to ask, nobody was asked: what was known before stands, and it is tried again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from api.contract.asking import AskingError, Bounds, Question, asked
from api.contract.doors import Doors, UnknownKeyError, Way, is_of_another
from api.contract.job.own_trouble import is_own_trouble
from api.contract.launch import Health
from controller.cluster.in_flight import PATH, in_flight
from controller.cluster.reach import ProbeTrouble, is_reached, without_a_way
from controller.cluster.watches import Watches
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
    way: Way
    health: Health
    model: str | None
    """Set for engines that speak vLLM's API."""


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
    draining: bool = False
    """Whether it is waited for until nothing is in flight on it."""


class HttpProbes:
    """Probes, most of them over HTTP.

    `wake` is called with the service's id when an attempt's health changed, `ended` when engines may have ended;
    `watches`: how many doors are watched at most.
    """

    def __init__(
        self,
        clock: Clock,
        doors: Doors,
        wake: Callable[[str], None],
        verdicts: Verdicts,
        *,
        ended: Callable[[], None] = lambda: None,
        watches: int = 0,
    ) -> None:
        self._clock = clock
        self._doors = doors
        self._wake = wake
        self._verdicts = verdicts
        self._ended = ended
        self.watches = Watches(self._heard, watches)
        self._watched: dict[str, _Watched] = {}
        self._not_asked: dict[str, Probe] = {}
        self._queue = KeyedQueue(time.monotonic)
        self._turns: asyncio.Task[None] | None = None
        self._asking: dict[str, asyncio.Task[float]] = {}
        self._free = asyncio.Semaphore(MOST_AT_ONCE)

    def watch(self, attempt: Attempt, spec: ProbeSpec) -> None:
        """Probe this attempt from now on; nothing happens if it is watched already."""
        try:
            target = self._target(attempt, spec)
        except UnknownKeyError as error:
            self._give_up(attempt, error)
            return
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
            draining=attempt.draining_since is not None,
        )
        self._queue.add(attempt.token)
        if target.way.has_door:
            self.watches.watch(attempt.token, target.way)
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns())

    def _heard(self, token: str, has_closed: bool) -> None:
        """Ask an engine at once whose door has said something."""
        if token not in self._watched:
            return
        self._queue.add(token)
        if has_closed:
            self._wake(self._watched[token].service_id)
            self._ended()

    def _give_up(self, attempt: Attempt, error: UnknownKeyError) -> None:
        """Say of an attempt that nobody can ask it, once."""
        if attempt.token not in self._not_asked:
            self.forget(attempt.token)
            self._not_asked[attempt.token] = self._unable(error)
            self._wake(attempt.service_id)

    def _unable(self, error: UnknownKeyError) -> Probe:
        return Probe(at=self._clock.now(), ready=False, failures=0, message=str(error), asked=False)

    def _hurry(self, attempt: Attempt, watched: _Watched) -> None:
        """Ask an engine at once whose job has come to be missed, or which has come to drain."""
        before = watched.missed, watched.draining
        watched.missed, watched.draining = attempt.absent_since is not None, attempt.draining_since is not None
        if (watched.missed, watched.draining) > before:
            self._queue.add(attempt.token)

    async def once(self, attempt: Attempt, spec: ProbeSpec) -> Probe | None:
        """Probe this attempt now, and remember nothing; `None` if there is nothing to probe, or no way to."""
        try:
            target = self._target(attempt, spec)
            return await self._look(target, None) if target is not None else None
        except UnknownKeyError as error:
            return self._unable(error)
        except OSError:
            return None

    def forget(self, token: str) -> None:
        """Stop probing it."""
        self._watched.pop(token, None)
        self._not_asked.pop(token, None)
        self.watches.forget(token)
        if token in self._asking:
            self._asking[token].cancel()

    def latest(self, token: str) -> Probe | None:
        """Return the latest result."""
        watched = self._watched.get(token)
        return watched.latest if watched is not None else self._not_asked.get(token)

    async def close(self) -> None:
        """Stop all probes."""
        tasks: list[asyncio.Task[Any]] = [*self._asking.values()]
        tasks += [self._turns] if self._turns is not None else []
        self._watched.clear()
        await self.watches.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _target(self, attempt: Attempt, spec: ProbeSpec) -> Target | None:
        if spec.health is None or attempt.host is None or attempt.port is None:
            return None
        return Target(
            service_id=attempt.service_id,
            token=attempt.token,
            way=self._doors.way(attempt.host, attempt.port, attempt.token, attempt.door),
            health=spec.health,
            model=spec.model if spec.engine == "vllm" else None,
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
        error = None if asking.cancelled() else asking.exception()
        if error is not None and is_own_trouble(error):
            log.warning("this host can't ask an engine", extra={"token": token, "error": str(error)})
        elif error is not None:
            log.error("a probe failed", exc_info=error, extra={"token": token})
        elif not asking.cancelled():
            pause = asking.result()
        self._queue.done(token, time.monotonic() + pause if token in self._watched else None)

    async def _probe(self, watched: _Watched) -> float:
        """Ask an engine; return in how many seconds it is to be asked again."""
        target, before = watched.target, watched.latest
        found = await self._look(target, before, missed=watched.missed, served=watched.ever_ready)
        if watched.draining and found.ready:
            found = await self._with_quiet(target, found, before)
        watched.latest = found
        ready = found.ready
        if watched.known != ready or (watched.ever_ready and not ready):
            self._wake(watched.service_id)
        watched.known = ready
        watched.ever_ready = watched.ever_ready or ready
        if not watched.ever_ready:
            return STARTING_INTERVAL
        # Looked at more closely, so that a dead engine is found within a few intervals.
        is_looked_at = watched.missed or watched.draining or not ready
        return min(target.health.interval, STARTING_INTERVAL * 2) if is_looked_at else target.health.interval

    async def _with_quiet(self, target: Target, found: Probe, before: Probe | None) -> Probe:
        """Add since when nothing is in flight on an engine, as far as it says so."""
        try:
            _, metrics = await self._get(target, PATH) if target.model is not None else (0, b"")
        except AskingError as error:
            log.info("a draining engine did not say what is in flight", extra={"error": str(error)})
            return found
        if in_flight(metrics) != 0:
            return found
        return replace(found, quiet_since=(before.quiet_since if before is not None else None) or found.at)

    async def _outlives_its_checks(self, target: Target, told: Verdict) -> bool:
        """Whether something accepts connections there though whoever checked it has not been heard of for long."""
        is_old = told.age is None or told.age >= OLD_VERDICT
        return is_old and await _connect(target, served=True) is None

    async def _look(self, target: Target, before: Probe | None, *, missed: bool = False, served: bool = False) -> Probe:
        """Probe once, after what was found before.

        `missed`: its job is, on the cluster. `served`: it has been ready, and so was known to serve its model.

        Raises `OSError` if this host could not ask.
        """
        if target.health.kind == "command":
            told = await self._verdicts.verdict(target.service_id, target.token)
            if told is not None:
                # Told by a file that stays when its writer is gone: it is as old as that one's last sign of life.
                at = self._clock.now() - told.age if told.age is not None else 0.0
                if missed and await self._outlives_its_checks(target, told):
                    return Probe(at=self._clock.now(), ready=True, failures=0, is_own=target.way.has_door)
                return Probe(at=at, ready=told.ok, failures=told.failures, message=told.message, is_own=True)
            trouble: ProbeTrouble | None = ProbeTrouble(message="its job has made no health check yet")
        elif target.health.kind == "tcp":
            trouble = await _connect(target, served=served)
        else:
            trouble = await self._ask(target, served=served)
        ready = trouble is None
        failures, unreached_since = (before.failures, before.unreached_since) if before is not None else (0, None)
        return Probe(
            at=self._clock.now(),
            ready=ready,
            failures=failures + 1 if trouble is not None and trouble.counts else 0,
            message=trouble.message if trouble is not None else "",
            unreached_since=None if trouble is None or trouble.reached else unreached_since or self._clock.now(),
            is_own=ready and (target.way.has_door or target.model is not None),
        )

    async def _ask(self, target: Target, *, served: bool) -> ProbeTrouble | None:
        """Ask over HTTP; return what is wrong, `None` if all is well. Raises `OSError` if this host could not ask."""
        try:
            status, _ = await self._get(target, target.health.path)
            if status >= 400:
                return ProbeTrouble(message=f"{target.health.path} answered {status}")
            if target.model is None or (served and target.way.has_door):
                return None  # behind one door there is one engine all the while
            status, body = await self._get(target, "/v1/models")
        except AskingError as error:
            url = target.way.base_url
            if is_own_trouble(error):
                if not served and (trouble := without_a_way(error, url)) is not None:
                    return trouble
                raise OSError(f"{url} was not asked: {error}") from error
            message = _impostor(target, error) or f"{url} does not answer ({error})"
            return ProbeTrouble(message=message, reached=is_reached(error))
        if status != 200:
            doubt = "" if target.way.has_door else ": another program may be listening there"
            return ProbeTrouble(message=f"/v1/models answered {status}{doubt}")
        is_served = target.model in _models(body)
        return None if is_served else ProbeTrouble(message=f"the model {target.model!r} is not served there")

    @staticmethod
    async def _get(target: Target, path: str) -> tuple[int, bytes]:
        secret = target.way.secret if target.model is not None else None
        question = Question(way=target.way, path=path, secret=secret)
        bounds = Bounds(seconds=target.health.timeout, silence=target.health.timeout, size=LARGEST_ANSWER)
        async with asked(question, bounds) as reply:
            return reply.status, await reply.read()


async def _connect(target: Target, *, served: bool) -> ProbeTrouble | None:
    """Open a connection and close it; return what is wrong, `None` if all is well.

    Raises `OSError` if this host could not try.
    """
    way = target.way
    try:
        async with asyncio.timeout(target.health.timeout):
            await way.knock()
    except (OSError, ValueError) as error:  # TimeoutError is one
        where = f"{way.host}:{way.port}"
        if is_own_trouble(error):
            if not served and (trouble := without_a_way(error, where)) is not None:
                return trouble
            raise
        nobody = f"nothing accepts connections at {where} ({type(error).__name__})"
        # a door is silent until its engine serves
        reached = way.has_door if isinstance(error, TimeoutError) else is_reached(error)
        return ProbeTrouble(message=_impostor(target, error) or nobody, reached=reached)
    return None


def _impostor(target: Target, error: BaseException) -> str | None:
    """Say whether it is another program that listens there."""
    if not is_of_another(error):
        return None
    return f"another program listens at {target.way.base_url}: it can't prove that it is {target.token}"


def _models(body: bytes) -> set[str]:
    try:
        listed = json.loads(body)["data"]
        return {model["id"] for model in listed}
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()

"""`ai-factory services wait`, and the waiting of all commands that have --wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, connect, for_people
from api.cli.services.rows import ENDED, Service, progress, show
from api.cli.terminal.progress import LiveProgress
from api.contract.exits import Exit
from api.contract.status import Progress

POLL_FIRST = 0.3
POLL_MOST = 2.0
"""Seconds between two looks."""
TICK_SECONDS = 0.15

Judge = Callable[["Service | None"], bool]
"""Whether what was waited for has come; `None`: there is no such service any more. Raises `CliError` if it can't."""


def wait(context: Context) -> Exit:
    """Wait until all the services are as they should be."""
    arguments = context.arguments
    deadline = time.monotonic() + arguments.timeout
    found: list[Service] = []
    with connect(context) as client:
        for name in arguments.services:
            left = max(0.0, deadline - time.monotonic())
            final = {"ready": wait_ready, "deleted": wait_deleted, "completed": wait_completed}[arguments.what](
                context, client, name, left
            )
            found += [final] if final is not None else []
    if found:
        show(context, found, found if len(arguments.services) > 1 else found[0])
    return Exit.OK


def wait_running(context: Context, client: Client, name: str, seconds: float) -> Service:
    """Wait until a service answers, or its job has ended well. Raises `CliError` if it comes to neither."""

    def judge(service: Service | None) -> bool:
        living = _living(service, name)
        _raise_if(living, ("failed", "cancelled"))
        if living["status"] in ("running", "completed"):
            return True
        _raise_if_barred(living)
        return False

    return _living(_wait(context, client, name, judge, seconds), name)


def wait_ready(context: Context, client: Client, name: str, seconds: float) -> Service:
    """Wait until all replicas of what is wanted now answer. Raises `CliError` if they never will."""

    def judge(service: Service | None) -> bool:
        living = _living(service, name)
        if not _is_seen(living):
            return False
        if living["status"] == "completed":
            raise CliError(f"{living['name']} has ended, and answers nobody. To wait for that: --for completed")
        if living.get("replicas") == 0:
            raise CliError(f"{living['name']} is scaled to 0. See: ai-factory services scale {name} 1")
        _raise_if(living, ("failed", "cancelled"))
        _raise_if_barred(living)
        if progress(living) == Progress.ROLLOUT_FAILED:
            raise CliError(f"{living['name']} is {said(living).rstrip('.')}. See: ai-factory services describe {name}")
        return living["status"] == "running" and _all_ready(living) and progress(living) != Progress.ROLLING_OUT

    return _living(_wait(context, client, name, judge, seconds), name)


def wait_rolled_out(context: Context, client: Client, name: str, seconds: float) -> dict[str, Any]:
    """Wait until the last change of a service has reached all its replicas; return the rollout.

    One that is paused is waited for: somebody may resume it. Raises `CliError` if it has failed, or never will.
    """
    seen: dict[str, Any] = {}

    def judge(service: Service | None) -> bool:
        living = _living(service, name)
        seen.update(_rollout(client, str(living["id"])))
        state, message = seen.get("state"), for_people(str(seen.get("message")))
        if state in ("failed", "stopped"):
            what = f"The rollout of {living['name']} {'has failed' if state == 'failed' else 'goes no further'}"
            raise CliError(f"{what}: {message.rstrip('.')}. See: ai-factory services describe {name}")
        if state == "complete":
            return True
        _raise_if_barred(living)
        return False

    _wait(context, client, name, judge, seconds)
    return seen


def _rollout(client: Client, key: str) -> dict[str, Any]:
    """Look how far a rollout is; nothing is known while the API is away."""
    try:
        return client.rollout(key)
    except CliError as error:
        if error.code is not Exit.UNREACHABLE:
            raise
        return {"state": "unknown"}


def wait_completed(context: Context, client: Client, name: str, seconds: float) -> Service:
    """Wait until a service's job has ended well. Raises `CliError` if it has not."""

    def judge(service: Service | None) -> bool:
        living = _living(service, name)
        if _is_seen(living):
            _raise_if(living, ("failed", "cancelled"))
            _raise_if_barred(living)
        return _is_seen(living) and living["status"] == "completed"

    return _living(_wait(context, client, name, judge, seconds), name)


def wait_deleted(context: Context, client: Client, name: str, seconds: float) -> Service | None:
    """Wait until a service is deleted and none of its jobs is left. Returns it, as long as it can be seen."""

    def judge(service: Service | None) -> bool:
        return service is None or (_is_deleted(service) and _is_stopped(service))

    return _wait(context, client, name, judge, seconds)


def _wait(context: Context, client: Client, name: str, judge: Judge, seconds: float) -> Service | None:
    """Look until the judge is content, showing what is seen. Raises `CliError` (timed out, not found, failed).

    An API that is away is waited for, once it has answered.
    """
    deadline, pause = time.monotonic() + seconds, POLL_FIRST
    service = _first(client, name, judge)
    progress = LiveProgress(context.console, name if service is None else str(service["name"]))
    try:
        while True:
            try:
                is_done = judge(service)
            except CliError:
                progress.failed("is gone" if service is None else said(service))
                raise
            if is_done:
                progress.done("is gone" if service is None else _final(service))
                return service
            if service is not None:
                progress.step(said(service))
            if time.monotonic() >= deadline:
                raise _late(service, name, seconds)
            _rest(progress, min(time.monotonic() + pause, deadline))
            pause = min(pause * 1.5, POLL_MOST)
            service = _look(client, service, deadline)
    except KeyboardInterrupt:
        progress.over()
        context.console.note(f"{name} goes on; nothing was undone. To wait again: ai-factory services wait {name}")
        raise
    finally:
        progress.over()


def _first(client: Client, name: str, judge: Judge) -> Service | None:
    try:
        return client.service(name)
    except CliError as error:
        if error.code is Exit.NOT_FOUND and judge(None):
            return None
        raise


def _look(client: Client, before: Service | None, deadline: float) -> Service | None:
    """Look by the id: the name may be another's by now. While the API is away, what was seen last counts."""
    assert before is not None
    try:
        return client.service(str(before["id"]))
    except CliError as error:
        if error.code is Exit.NOT_FOUND:
            return None
        if error.code is not Exit.UNREACHABLE or time.monotonic() >= deadline:
            raise
        return before


def _rest(progress: LiveProgress, until: float) -> None:
    while (left := until - time.monotonic()) > 0:
        progress.tick()
        time.sleep(min(left, TICK_SECONDS))


def said(service: Service) -> str:
    """Return a service's status and what there is to say about it."""
    return f"{service['status']}: {service.get('message') or ''}".rstrip(": ")


def _final(service: Service) -> str:
    return "is deleted, no job is left" if _is_deleted(service) else f"is {service['status']}"


def _living(service: Service | None, name: str) -> Service:
    if service is None:
        raise CliError(f"The service {name} is gone: somebody removed it.", Exit.NOT_FOUND)
    return service


def _raise_if(service: Service, words: tuple[str, ...]) -> None:
    if service["status"] in words:
        what = f"{service['name']} is {said(service).rstrip('.')}"
        raise CliError(f"{what}. See: ai-factory services describe {service['id']}")


def _raise_if_barred(service: Service) -> None:
    """Raise `CliError` if a job of what is wanted now can never start as things are."""
    against: Mapping[str, Any] = next((c for c in service.get("conditions") or () if c.get("type") == "Startable"), {})
    if _is_seen(service) and against.get("status") == "False":
        raise CliError(
            f"{service['name']} can't start ({against.get('reason')}): {str(against.get('message')).rstrip('.')}. "
            f"It stays queued. See: ai-factory services describe {service['id']}",
            Exit.SETUP,
        )


def _late(service: Service | None, name: str, seconds: float) -> CliError:
    if service is not None and _is_deleted(service):
        return CliError(
            f"The jobs of {name} have not ended after {seconds:g} s. Does the controller run? See: ai-factory doctor",
            Exit.TIMED_OUT,
        )
    seen = "not gone" if service is None else said(service)
    return CliError(
        f"{name} is still {seen.rstrip('.')} ({seconds:g} s are over; it goes on). "
        f"See: ai-factory services describe {name}",
        Exit.TIMED_OUT,
    )


def _is_seen(service: Service) -> bool:
    """Whether the status speaks of what is wanted now."""
    return int(service.get("observed_generation") or 0) >= int(service.get("generation") or 0)


def _all_ready(service: Service) -> bool:
    wanted = service.get("replicas")
    return wanted is None or int(service.get("ready_replicas") or 0) >= int(wanted)


def _is_deleted(service: Service) -> bool:
    """An API that does not say since when can only say `cancelled`."""
    if "deleted_at" not in service:
        return bool(service["status"] == "cancelled")
    return service["deleted_at"] is not None


def _is_stopped(service: Service) -> bool:
    """Say whether nothing of a service runs any more; an API without conditions can only say `cancelled`."""
    if "conditions" not in service:
        return True
    return progress(service) in ENDED

"""Checks and their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class CheckFailedError(Exception):
    """What was checked is not well: what is the matter, and what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class WarnedError(CheckFailedError):
    """Services run all the same: what is not as well as it could be, and what to do about it."""


class SkippedError(Exception):
    """It could not, or need not, be checked; the message says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question. `ask` returns what it found; it raises `CheckFailedError`, `WarnedError` or `SkippedError`."""

    name: str
    ask: Callable[[], str]
    needs: tuple[str, ...] = ()
    """Checks, earlier ones, without which this one makes no sense."""
    repeats: tuple[str, ...] = ()
    """Checks, earlier ones, whose failure this one would only tell again, in other words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One answer."""

    name: str
    state: State
    message: str
    remedy: str = ""
    seconds: float


def results(checks: Sequence[Check]) -> Iterator[Result]:
    """Ask one after another; yield each answer as it comes."""
    well: set[str] = set()
    failed: set[str] = set()
    for check in checks:
        missing = [name for name in check.needs if name not in well]
        missing += [name for name in check.repeats if name in failed]
        if missing:
            yield Result(name=check.name, state=State.SKIPPED, message=f"needs: {', '.join(missing)}", seconds=0.0)
            continue
        result = _ask(check)
        if result.state in (State.OK, State.WARNING):
            well.add(check.name)
        if result.state is State.FAILED:
            failed.add(check.name)
        yield result


def _ask(check: Check) -> Result:
    began = time.monotonic()

    def result(state: State, message: str, remedy: str = "") -> Result:
        seconds = round(time.monotonic() - began, 3)
        return Result(name=check.name, state=state, message=message, remedy=remedy, seconds=seconds)

    try:
        return result(State.OK, check.ask())
    except WarnedError as error:
        return result(State.WARNING, str(error), error.remedy)
    except CheckFailedError as error:
        return result(State.FAILED, str(error), error.remedy)
    except SkippedError as error:
        return result(State.SKIPPED, str(error))
    except Exception as error:  # a check that breaks is itself a finding, and must not hide the others
        return result(State.FAILED, f"{type(error).__name__}: {error}", "This check itself failed: please report it.")

"""Decide again what was decided: is the plan the same?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from api.contract.exits import ExitError
from controller.core.codec import CodecError, Decision, decide_again, decode
from controller.core.compare import differences


class ReplayError(ExitError):
    """The file can't be read, or holds nothing of what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One line of the file, decided again."""

    line: int
    decision: Decision | None
    """`None`: the line is no decision of this version."""
    differences: tuple[str, ...]

    def text(self) -> str:
        """Tell how it came out, for people."""
        if self.decision is None:
            return f"line {self.line}: {self.differences[0]}"
        made = self.decision
        at = datetime.fromtimestamp(made.now, UTC).isoformat(sep=" ", timespec="milliseconds")
        what = f"{made.desired.name} ({made.desired.service_id}), generation {made.desired.generation}"
        head = f"line {self.line}: {at} pass {made.pass_id or '?'}: {what}: {'DIFFERS' if self.differences else 'same'}"
        return "\n".join([head, *(f"  {line}" for line in self.differences)])


def replay(file: Path, *, line: int | None = None, service: str | None = None) -> Iterator[Replayed]:
    """Decide the lines of a log of plans again: one, those of a service (id or name), or all. Raises `ReplayError`."""
    found = False
    try:
        with file.open("rb") as lines:
            for number, text in enumerate(lines, 1):
                if line is not None and number != line:
                    continue
                result = _again(number, text)
                if service is None or (result.decision is not None and _is_of(result.decision, service)):
                    found = True
                    yield result
    except OSError as error:
        raise ReplayError(f"{file} can't be read: {error.strerror}.") from error
    if not found:
        wanted = f"line {line}" if line is not None else f"plan of {service}" if service is not None else "plan"
        raise ReplayError(f"There is no {wanted} in {file}.")


def _again(number: int, text: bytes) -> Replayed:
    try:
        made = decode(text)
    except CodecError as error:
        return Replayed(line=number, decision=None, differences=(f"It is no plan of this version: {error}",))
    return Replayed(line=number, decision=made, differences=differences(made.plan, decide_again(made)))


def _is_of(made: Decision, service: str) -> bool:
    return service in (made.desired.service_id, made.desired.name)

"""Reading an engine's log: how far its start is, and which lines say why it ended.

An engine may write what it likes: each pattern takes time in proportion to the length of a line, whatever stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

LINES = 6
"""At most so many telling lines are kept, the last ones."""

LINE_LIMIT = 600
"""Characters of one of them."""

_PROGRESS = re.compile(
    r"Initializing a V\d LLM engine"
    r"|Starting to load model"
    r"|Loading [\w.-]+ checkpoint shards: +\d+%"
    r"|Loading weights took [\d.]+ seconds"
    r"|KV cache size: [\d,]+ tokens"
    r"|init engine \([^)]{0,200}\) took [\d.]+ s"
    r"|Starting vLLM server"
    r"|Application startup complete"
)

_PORT_TAKEN = re.compile(r"\[Errno 98\]|address already in use|EADDRINUSE", re.IGNORECASE)

_PREFIX = re.compile(
    r"^(?:\(\w[^)]*\) )?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\b[ \d:.,-]*(?:\[[^\]]*\] ?)?)?"
)
"""vLLM's and uvicorn's, e.g. `(EngineCore pid=806) ERROR 11-23 06:46:28 [core.py:133] `."""

_EXCEPTION = re.compile(r"^(?:\w+\.)*[A-Z]\w*(?:Error|Exception)(?:: .*)?$")
"""The last line of a Python traceback."""

_SYMPTOM = re.compile(
    r"\bFATAL\b|\bpanic: |\berror: |no space left|out of memory|exited unexpectedly|segmentation fault"
    r"|illegal instruction|no such file or directory|permission denied|command not found|cannot execute",
    re.IGNORECASE,
)

_CONSEQUENCE = re.compile(r"EngineDeadError|Engine core initialization failed|cannot schedule new futures")
"""What vLLM says after the fact: telling only where nothing else is."""


def progress(lines: Iterable[str]) -> str | None:
    """Return the newest sign of progress in these lines, in vLLM's words."""
    found = None
    for line in lines:
        match = _PROGRESS.search(line)
        if match:
            found = " ".join(match.group().split())
    return found


def port_was_taken(lines: Iterable[str]) -> bool:
    """Tell whether the engine complained that its port was in use."""
    return any(_PORT_TAKEN.search(line) for line in lines)


def reason(lines: Sequence[str]) -> str:
    """Return the lines that tell why it ended: errors rather than their consequences, else simply the last lines."""
    plain = [(match.group("level"), line[match.end() :]) for line in lines for match in [_PREFIX.match(line)] if match]
    errors = _errors(plain)
    causes = [error for error in errors if not _CONSEQUENCE.search(error)]
    return "\n".join((causes or errors or [line[:LINE_LIMIT] for line in lines])[-LINES:])


def _errors(lines: Sequence[tuple[str | None, str]]) -> list[str]:
    """Pick exceptions with what is indented below them, and symptoms with what their colon announces in the next line.

    Each once, where it stood last.
    """
    found: dict[str, None] = {}
    for index, (level, line) in enumerate(lines):
        if level in ("DEBUG", "INFO") or not line or line[0].isspace():
            continue
        if _EXCEPTION.match(line):
            text = "\n".join([line[:LINE_LIMIT], *_continuation(lines[index + 1 : index + 4])])
        elif _SYMPTOM.search(line) and not line.startswith(("Traceback", "During handling")):
            named = [text for _, text in lines[index + 1 : index + 2] if line.rstrip().endswith(":")]
            text = "\n".join(part[:LINE_LIMIT] for part in (line, *named))
        else:
            continue
        found.pop(text, None)
        found[text] = None
    return list(found)


def _continuation(lines: Sequence[tuple[str | None, str]]) -> list[str]:
    """Return those of the next lines that belong to a message: indented by two, as pydantic does it, no traceback."""
    following: list[str] = []
    for _, line in lines:
        if not re.match(r"  [^\s]", line) or line.startswith('  File "'):
            break
        following.append(line[:LINE_LIMIT])
    return following

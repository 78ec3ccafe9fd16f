"""`ai-factory logs` and `ai-factory prompt`."""

from __future__ import annotations

import re
import sys
from typing import Any

from api.cli.client import connect
from api.cli.context import Context
from api.cli.exits import CliError, Exit

_HEADING = re.compile(r"^=== SLURM STD(?:OUT|ERR) \(.*\) ===$")


def logs(context: Context) -> Exit:
    """Print what a service's jobs wrote."""
    name, tail = context.arguments.service, context.arguments.tail
    if tail is not None and tail < 0:
        raise CliError(f"--tail takes a number of lines, not {tail}.", Exit.USAGE)
    with connect(context) as client:
        service = client.service(name)  # the logs of an unknown id are an answer, not a failure
        text = client.logs(str(service["id"]))
    text = text if tail is None else last_lines(text, tail)
    if context.output == "json":
        context.console.json({"id": service["id"], "logs": text})
    else:
        context.console.text(text)
    return Exit.OK


def prompt(context: Context) -> Exit:
    """Ask a service's model and print its answer."""
    arguments = context.arguments
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    options = {"max_tokens": arguments.max_tokens, "temperature": arguments.temperature, "model": arguments.model}
    body = {"prompt": text} | {key: value for key, value in options.items() if value is not None}
    with connect(context) as client:
        answer = client.prompt(arguments.service, body, arguments.timeout)
    if context.output == "json":
        context.console.json(answer)
        return Exit.OK if answer.get("success") else Exit.FAILED
    if not answer.get("success"):
        raise CliError(failure(answer))
    context.console.text(str(answer.get("response", "")))
    return Exit.OK


def failure(answer: dict[str, Any]) -> str:
    """Put an answer without success into words: the error, its explanation, what the engine said."""
    parts = [answer.get(key) for key in ("error", "message", "technical_details", "body")]
    return " ".join(f"{str(part).rstrip('.')}." for part in parts if part) or "The service gave no answer."


def last_lines(text: str, number: int) -> str:
    """Return the headings of a log's files, each with only its last lines."""
    sections: list[tuple[list[str], list[str]]] = [([], [])]
    for line in text.splitlines():
        if _HEADING.match(line):
            sections.append(([line], []))
        else:
            sections[-1][1].append(line)
    kept: list[str] = []
    for heading, lines in sections:
        while len(sections) > 1 and lines and not lines[-1].strip():
            lines.pop()
        blank = [""] if kept and heading else []
        kept += [*blank, *heading, *(lines[-number:] if number else [])]
    return "\n".join(kept)

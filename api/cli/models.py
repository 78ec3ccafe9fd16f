"""`ai-factory prompt`."""

from __future__ import annotations

import sys
from typing import Any

from api.cli.client import connect
from api.cli.context import Context
from api.cli.exits import CliError, Exit


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

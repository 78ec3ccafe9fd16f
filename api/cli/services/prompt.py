"""`ai-factory prompt`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, connect, prompt_path
from api.cli.rest.streams import lines, parse
from api.contract.exits import Exit


def prompt(context: Context) -> Exit:
    """Ask a service's model and print its answer; with --stream, as it comes."""
    arguments = context.arguments
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    options = {"max_tokens": arguments.max_tokens, "temperature": arguments.temperature, "model": arguments.model}
    body = {"prompt": text} | {key: value for key, value in options.items() if value is not None}
    with connect(context) as client:
        if arguments.stream:
            return _streamed(context, client, body)
        answer = client.prompt(arguments.service, body, arguments.timeout)
    return _answered(context, answer, str(answer.get("response", "")))


def _streamed(context: Context, client: Client, body: Mapping[str, Any]) -> Exit:
    """Print the answer bit by bit. As JSON each event is a line."""
    console, arguments = context.console, context.arguments
    path, said = prompt_path(arguments.service), ""
    with client.stream("POST", path, body=body, query={"stream": "true"}, silence=arguments.timeout) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            answer.read()
            whole = answer.json()
            return _answered(context, whole, str(whole.get("response", "")))
        for event in parse(lines(answer.iter_bytes())):
            data = json.loads(event.data)
            if context.output == "json":
                console.line(json.dumps({"event": event.name, **data}, ensure_ascii=False))
            elif event.name == "delta":
                said += data["text"]
                console.piece(data["text"])
            if event.name == "done":
                if context.output == "json":
                    return Exit.OK if data.get("success") else Exit.FAILED
                if said and not said.endswith("\n"):
                    console.piece("\n")
                return _answered(context, data, "")
    raise CliError("The answer broke off: the API ended. Ask again.", Exit.UNREACHABLE)


def _answered(context: Context, answer: dict[str, Any], text: str) -> Exit:
    """Print what is left to print of an answer; raises `CliError` for one without success."""
    if context.output == "json":
        context.console.json(answer)
        return Exit.OK if answer.get("success") else Exit.FAILED
    if not answer.get("success"):
        raise CliError(failure(answer))
    if text or not context.arguments.stream:
        context.console.text(text)
    return Exit.OK


def failure(answer: dict[str, Any]) -> str:
    """Put an answer without success into words: the error, its explanation, what the engine said."""
    parts = [answer.get(key) for key in ("error", "message", "technical_details", "body")]
    return " ".join(f"{str(part).rstrip('.')}." for part in parts if part) or "The service gave no answer."

"""`ai-factory prompt`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, RefusedError, connect, prompt_path
from api.cli.rest.streams import lines, parse
from api.contract.exits import Exit

UNKNOWN = 500
"""What the API says of a service that there is not, where it is asked something."""


def prompt(context: Context) -> Exit:
    """Ask a service's model and print its answer; with --stream, as it comes."""
    arguments = context.arguments
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    named = ("system", "max_tokens", "temperature", "model")
    given = {name: value for name in named if (value := getattr(arguments, name)) is not None}
    body = {"prompt": text, **given}
    with connect(context) as client:
        if arguments.stream:
            return _streamed(context, client, body)
        with _known(client, arguments.service):
            answer = client.prompt(arguments.service, body, arguments.timeout)
    return _answered(context, answer, str(answer.get("response", "")))


@contextlib.contextmanager
def _known(client: Client, service: str) -> Iterator[None]:
    """Raise `CliError` (not found) where a prompt is refused because there is no such service: the API says 500."""
    try:
        yield
    except RefusedError as error:
        if error.status == UNKNOWN:
            client.service(service)
        raise


def _streamed(context: Context, client: Client, body: Mapping[str, Any]) -> Exit:
    """Print the answer bit by bit. As JSON each event is a line."""
    console, arguments = context.console, context.arguments
    path, said = prompt_path(arguments.service), ""
    with (
        _known(client, arguments.service),
        client.stream("POST", path, body=body, query={"stream": "true"}, silence=arguments.timeout) as answer,
    ):
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
                    return _exit_of(data)
                if said and not said.endswith("\n"):
                    console.piece("\n")
                return _answered(context, {**data, "response": said}, "")
    raise CliError("The answer broke off: the API ended. Ask again.", Exit.UNREACHABLE)


def _answered(context: Context, answer: dict[str, Any], text: str) -> Exit:
    """Print what is left to print of an answer; raises `CliError` for one without success."""
    if context.output == "json":
        context.console.json(answer)
        return _exit_of(answer)
    if _exit_of(answer) is not Exit.OK:
        raise CliError(failure(answer))
    if text:
        context.console.text(text)
    return Exit.OK


def _exit_of(answer: Mapping[str, Any]) -> Exit:
    """An answer without a word is none."""
    return Exit.OK if answer.get("success") and answer.get("response") else Exit.FAILED


def failure(answer: dict[str, Any]) -> str:
    """Put what is no answer into words: the error, its explanation, what the engine said; or why it has no text."""
    if answer.get("success"):
        return _why_empty(answer)
    parts = [answer.get(key) for key in ("error", "message", "technical_details", "body")]
    return " ".join(f"{str(part).rstrip('.')}." for part in parts if part) or "The service gave no answer."


def _why_empty(answer: Mapping[str, Any]) -> str:
    """Say why the model gave no text."""
    finish, tokens = answer.get("finish_reason"), (answer.get("usage") or {}).get("completion_tokens")
    spent = f"all of its {tokens} tokens" if tokens else "all of its tokens"
    if answer.get("reasoning"):
        if finish == "length":
            return f"The model spent {spent} on reasoning, and did not come to an answer. Give it more: --max-tokens N"
        return "The model reasoned, and gave no answer. What it reasoned: -o json"
    if finish == "length":
        return f"The model spent {spent} without a word of an answer. Give it more: --max-tokens N"
    return f"The model's answer is empty{f' ({finish})' if finish else ''}. All that it said: -o json"

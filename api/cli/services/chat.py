"""`ai-factory chat`: a conversation in the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, connect
from api.cli.rest.streams import lines, parse
from api.contract.exits import Exit

PATH = "/v1/chat/completions"
END = "[DONE]"
Message = dict[str, str]


def chat(context: Context) -> Exit:
    """Talk with a model, line by line, until standard input ends. It is sent the whole conversation each time."""
    arguments = context.arguments
    said: list[Message] = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        context.console.note("A line is a message. Ctrl-D ends the conversation, Ctrl-C an answer.")
    with connect(context) as client:
        for text in _typed(context, is_terminal):
            asked = [*said, {"role": "user", "content": text}]
            try:
                answer = _answer(context, client, asked)
            except CliError as error:
                if not is_terminal:
                    raise
                context.console.error(str(error))
                continue
            said = [*asked, {"role": "assistant", "content": answer}]
    return Exit.OK


def _typed(context: Context, is_terminal: bool) -> Iterator[str]:
    """Yield what is typed; without a terminal each line that comes."""
    while True:
        if is_terminal:
            context.console.aside(context.console.paint_note("> ", "bold"))
        line = sys.stdin.readline()
        if not line:
            if is_terminal:
                context.console.aside("\n")
            return
        if line.strip():
            yield line.strip()


def _answer(context: Context, client: Client, messages: Sequence[Message]) -> str:
    """Print an answer as it comes, and return it. Ctrl-C ends it early."""
    console, arguments = context.console, context.arguments
    options = {"max_tokens": arguments.max_tokens, "temperature": arguments.temperature}
    given = {name: value for name, value in options.items() if value is not None}
    body = {"model": arguments.service, "messages": messages, "stream": True, **given}
    said, why = "", ""
    try:
        for choice in _choices(client, body, arguments.timeout):
            delta = choice.get("delta") or {}
            if thought := delta.get("reasoning") or delta.get("reasoning_content"):
                console.aside(console.paint_note(thought, "dim"))
            if piece := delta.get("content"):
                said += piece
                console.piece(piece)
            why = choice.get("finish_reason") or why
    except KeyboardInterrupt:
        why = "interrupted"
    console.piece("\n")
    if why == "length":
        console.note("(cut: the answer has all the tokens that it may have; --max-tokens allows more)")
    return said


def _choices(client: Client, body: dict[str, Any], silence: float) -> Iterator[dict[str, Any]]:
    """Yield the first choice of each chunk; raises `CliError` for an answer that is refused, or breaks off."""
    with client.stream("POST", PATH, body=body, silence=silence) as answer:
        for event in parse(lines(answer.iter_bytes())):
            if event.data == END:
                return
            chunk = json.loads(event.data)
            if error := chunk.get("error"):
                raise CliError(str(error.get("message", error)))
            yield from chunk.get("choices", [])[:1]
    raise CliError("The answer broke off. Ask again.", Exit.UNREACHABLE)

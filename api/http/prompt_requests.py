"""What clients ask a service's model: a prompt, or a conversation. Nothing that is asked for is left out in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from api.gateway.model_request import inline_bytes, reserve_of
from api.gateway.token_count import Reserve
from api.web.bodies import read_object, string_type
from api.web.errors import ApiError, InvalidError, Problem

_IN_CHOICES = (
    "best_of", "echo", "function_call", "functions", "logprobs", "modalities", "prompt_logprobs", "return_token_ids",
    "return_tokens_as_token_ids", "tool_choice", "tools", "top_logprobs",
)  # fmt: skip
"""Options whose answer is more than a text: it stands in `choices`, as the engine says it."""


DEFAULTS: dict[str, Any] = {"max_tokens": 150, "temperature": 0.7}


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRequest:
    """A prompt, and the sampling fields that go with it to the engine."""

    messages: list[Any]
    """What a chat is sent."""
    prompt: str | None
    """What a model without a chat template is sent; `None`: it can't be asked this."""
    model: str | None
    options: dict[str, Any]
    is_streamed: bool = False
    """Whether the body asks for that."""
    shows_choices: bool = False
    """Whether the answer must hold all that the engine says."""
    size: int = 0
    """Bytes of the body."""

    def fields(self) -> dict[str, Any]:
        """Return what goes to the engine beside what it is asked."""
        return DEFAULTS | self.options

    def reserve(self) -> Reserve:
        """Return how many tokens it may take."""
        return reserve_of(self.fields(), self.size - inline_bytes({"messages": self.messages}))


def read_prompt_request(body: bytes) -> PromptRequest:
    """Read the body of a prompt; raises `ApiError` (400) without a prompt, `InvalidError` for what can't be done."""
    fields = read_object(body)
    prompt, messages, system, model = (fields.pop(key, None) for key in ("prompt", "messages", "system", "model"))
    is_streamed, of_stream = fields.pop("stream", None), fields.pop("stream_options", None)
    if prompt == "" or (prompt is None and messages in (None, [])):
        raise ApiError(400, "Prompt is required")
    problems = [
        *(
            string_type(("body", key), value)
            for key, value in (("prompt", prompt), ("system", system), ("model", model))
            if value is not None and not isinstance(value, str)
        ),
        *_message_problems(messages, prompt, system),
        *_stream_problems(is_streamed, of_stream),
        *_number_problems(fields.get("n")),
    ]
    if problems:
        raise InvalidError(*problems)
    said = [{"role": "user", "content": prompt}] if messages is None else messages
    return PromptRequest(
        messages=said if system is None else [{"role": "system", "content": system}, *said],
        prompt=prompt if messages is None and system is None else None,
        model=model or None,
        options=fields,
        is_streamed=bool(is_streamed),
        size=len(body),
        shows_choices=(fields.get("n") or 1) > 1 or any(fields.get(key) for key in _IN_CHOICES),
    )


def _message_problems(messages: Any, prompt: Any, system: Any) -> Iterator[Problem]:
    if messages is None:
        return
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        yield _problem("messages", "Input should be a list of messages, each an object with role and content", messages)
        return
    if prompt is not None:
        yield _problem("messages", "Send prompt or messages, not both: a prompt is the last message", UNSET)
    if system is not None and messages and messages[0].get("role") == "system":
        yield _problem("system", "The messages begin with one of the role system already; leave out one of them", UNSET)


def _stream_problems(is_streamed: Any, options: Any) -> Iterator[Problem]:
    if is_streamed is not None and not isinstance(is_streamed, bool):
        yield Problem(
            loc=("body", "stream"), msg="Input should be a valid boolean", type="bool_type", input=is_streamed
        )
    if not isinstance(options, dict | None) or (options or {}).keys() - {"include_usage"}:
        msg = "A prompt's stream has no options but include_usage; POST /v1/chat/completions takes the engine's"
        yield _problem("stream_options", msg, options)


def _number_problems(n: Any) -> Iterator[Problem]:
    if n is not None and (not isinstance(n, int) or isinstance(n, bool)):
        yield Problem(loc=("body", "n"), msg="Input should be a valid integer", type="int_type", input=n)


def _problem(key: str, msg: str, value: Any) -> Problem:
    return Problem(loc=("body", key), msg=msg, type="value_error", input=value)

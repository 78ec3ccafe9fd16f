"""A prompt: as a chat, or as plain completion where the model has no chat template; and what is answered.

The answers to clients are the contract's, to the byte: HTTP 200 with `success` false for what an engine can't do.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from api.gateway.engines import NOBODY, Answer, AskedBy, BadAnswerError, Engines
from api.gateway.entrance import AskedService
from api.http.prompt_requests import PromptRequest
from api.http.wire import service_url
from api.web.replicas import ReadyReplica
from api.web.sse import event, read_data

MOST_REMEMBERED = 10_000
_NO_TEMPLATE = re.compile(
    r"default chat template is no longer allowed|must provide a chat template|chat_template is not set"
    r"|(has|have|is) no chat template|does not have a chat template",
    re.IGNORECASE,
)
"""vLLM's words, and those of transformers that it passes on."""

STILL_STARTING = "The vLLM service is still starting up. Please wait a moment and try again."
GONE = "The vLLM service can't be reached. It may have just ended; its status says more in a moment."


class Prompts:
    """Sends prompts and remembers which launches (by digest) have no chat template."""

    def __init__(self, engines: Engines, gateway: str = "") -> None:
        """`gateway` is its URL."""
        self._engines = engines
        self._gateway = gateway
        self._without_template: set[str] = set()

    async def answer(
        self, service: AskedService, digest: str, request: PromptRequest, asked_by: AskedBy = NOBODY
    ) -> dict[str, Any]:
        """Return what the client is answered; raises `UnreachableError`."""
        try:
            used, answer = await self._send(service.replicas, digest, request, asked_by)
        except BadAnswerError as error:
            return gone(error)
        if answer.status != 200:
            return self._refused(service, answer)
        return self._answered(service, used, answer, shows_choices=request.shows_choices)

    async def stream(
        self, service: AskedService, digest: str, request: PromptRequest, asked_by: AskedBy = NOBODY
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events: `delta` with a bit of the text, and `done` with what `answer` would return.

        Raises `UnreachableError`, before the first.
        """
        said = ""
        try:
            async for name, data in self._events(service, digest, request, asked_by):
                if name == "delta":
                    said += data["text"]
                yield event(name, msgspec.json.encode(data))
        except BadAnswerError as error:
            broken = {"error": "The answer broke off", "response": said} if said else {}
            yield done({**gone(error), **broken})

    async def _events(
        self, service: AskedService, digest: str, request: PromptRequest, asked_by: AskedBy
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        replicas = service.replicas
        for kind in self._kinds(digest, request):
            path, fields = self._asked(kind, replicas, request)
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
            async with self._engines.stream(replicas, path, fields, asked_by) as (answer, chunks):
                if kind == "chat" and self._is_for_completion(digest, request, answer):
                    continue
                if answer.status != 200:
                    yield "done", self._refused(service, answer)
                    return
                text, thought, finish, usage, failure, has_choices = "", "", None, None, None, False
                async for chunk in _chunks(chunks):
                    usage, failure = chunk.get("usage") or usage, chunk.get("error") or failure
                    has_choices = has_choices or bool(chunk.get("choices"))
                    choice = _first_choice(chunk)
                    thought += _reasoning(choice.get("delta"))
                    finish = choice.get("finish_reason") or finish
                    if bit := _bit(choice):
                        text += bit
                        yield "delta", {"text": bit}
                if failure is not None:
                    refusal = Answer(answer.replica, 500, failure)
                    yield "done", {**self._refused(service, refusal), "response": text}
                    return
                whole = {"message": {"reasoning": thought, "content": text}, "finish_reason": finish}
                body = {"choices": [whole] if has_choices else [], "usage": usage}
                yield "done", self._answered(service, kind, Answer(answer.replica, 200, body))
                return

    async def _send(
        self, replicas: Sequence[ReadyReplica], digest: str, request: PromptRequest, asked_by: AskedBy
    ) -> tuple[str, Answer]:
        """Return the kind of endpoint used, and its answer."""
        first, *second = self._kinds(digest, request)
        answer = await self._engines.post(replicas, *self._asked(first, replicas, request), asked_by)
        if not second or not self._is_for_completion(digest, request, answer):
            return first, answer
        return second[0], await self._engines.post(replicas, *self._asked(second[0], replicas, request), asked_by)

    def _kinds(self, digest: str, request: PromptRequest) -> Sequence[str]:
        """Return the kinds of endpoint to try; a conversation has no other form than a chat."""
        if request.prompt is None:
            return ("chat",)
        return ("completions",) if digest in self._without_template else ("chat", "completions")

    @staticmethod
    def _asked(kind: str, replicas: Sequence[ReadyReplica], request: PromptRequest) -> tuple[str, dict[str, Any]]:
        """Return the engine's path for a kind of endpoint, and the body."""
        fields = request.fields()
        model = request.model or _served(replicas)
        if model is not None:
            fields["model"] = model
        if kind == "chat":
            return "/v1/chat/completions", fields | {"messages": request.messages}
        return "/v1/completions", fields | {"prompt": request.prompt}

    def _is_for_completion(self, digest: str, request: PromptRequest, answer: Answer) -> bool:
        """Whether a chat was refused for want of a template, and the prompt can be completed instead."""
        if answer.status != 400 or _NO_TEMPLATE.search(str(answer.body)) is None:
            return False
        if digest and len(self._without_template) < MOST_REMEMBERED:
            self._without_template.add(digest)
        return request.prompt is not None

    def _refused(self, service: AskedService, answer: Answer) -> dict[str, Any]:
        return {
            "success": False,
            "error": f"vLLM returned {answer.status}",
            "endpoint": self.endpoint(service, answer.replica),
            "status_code": answer.status,
            "body": answer.body,
        }

    def _answered(
        self, service: AskedService, used: str, answer: Answer, *, shows_choices: bool = False
    ) -> dict[str, Any]:
        body = answer.body if isinstance(answer.body, dict) else {"text": answer.body}
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices:
            return {
                "success": False,
                "error": "No response generated",
                "raw_response": body,
                "endpoint": self.endpoint(service, answer.replica),
            }
        counted = body.get("usage")
        usage = counted if isinstance(counted, dict) else {}
        routed = {"routed_to": answer.replica.name} if len(service.replicas) > 1 else {}
        text = _text(choices[0])
        return {
            "success": True,
            "response": text,
            "service_id": service.id,
            "endpoint": self.endpoint(service, answer.replica),
            "endpoint_used": used,
            "usage": {key: usage.get(key) or 0 for key in ("prompt_tokens", "completion_tokens", "total_tokens")},
            **routed,
            **({} if text else _why_empty(choices[0], usage)),
            **({"choices": choices} if shows_choices else {}),
        }

    def endpoint(self, service: AskedService, replica: ReadyReplica) -> str:
        """Return where clients reach the service: at the gateway, or at the replica itself where it has no door."""
        return replica.endpoint if replica.door is None else service_url(self._gateway, service.name)


def not_ready(service_id: str, status: str, message: str) -> dict[str, Any]:
    """Return the answer while no replica is ready; an ended service says why, in its own message."""
    ended = status in ("completed", "failed", "cancelled")
    return {
        "success": False,
        "error": f"Service is not ready yet (status: {status})",
        "message": (message or f"The service is {status}.") if ended else STILL_STARTING,
        "service_id": service_id,
        "status": status,
        "endpoint": None,
    }


def gone(error: Exception) -> dict[str, Any]:
    """Return the answer where there was none, or none as it should be."""
    return {"success": False, "error": "Service not available", "message": GONE, "technical_details": str(error)}


def done(answer: Mapping[str, Any]) -> bytes:
    """Write a stream's last event."""
    return event("done", msgspec.json.encode(answer))


async def _chunks(stream: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects that an engine streams; what is none is left out."""
    async for data in read_data(stream):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            found = msgspec.json.decode(data)
            if isinstance(found, dict):
                yield found


def _first_choice(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a chunk adds; nothing where it has no choices."""
    choices = chunk.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _bit(choice: Mapping[str, Any]) -> str:
    """Return the text that a chunk's choice adds, of a chat or of a completion."""
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
    return text if isinstance(text, str) else ""


def _reasoning(message: Any) -> str:
    """Return what a model reasoned before its answer: `reasoning`, in older releases of vLLM `reasoning_content`."""
    if not isinstance(message, dict):
        return ""
    text = message.get("reasoning") or message.get("reasoning_content")
    return text if isinstance(text, str) else ""


def _served(replicas: Sequence[ReadyReplica]) -> str | None:
    return next((model for replica in replicas for model in replica.models), None)


def _why_empty(choice: Any, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return why an answer has no text: how it ended, what the model reasoned instead, and both in words."""
    if not isinstance(choice, dict):
        return {}
    finish, reasoning = choice.get("finish_reason"), _reasoning(choice.get("message"))
    found = {"finish_reason": finish, "reasoning": reasoning}
    if finish == "length":
        tokens = usage.get("completion_tokens")
        spent = f"all of its {tokens} tokens" if tokens else "all of its tokens"
        on = " on reasoning" if reasoning else ""
        found["message"] = f"The model spent {spent}{on}, and did not come to an answer. Give it more: max_tokens."
    elif reasoning:
        found["message"] = "The model reasoned, and gave no answer."
    return {key: value for key, value in found.items() if value and isinstance(value, str)}


def _text(choice: Any) -> str:
    """Return the text of a choice, of a chat or of a completion; empty where the model only called tools."""
    if not isinstance(choice, dict):
        return ""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else ""

"""A prompt: as a chat, or as plain completion where the model has no chat template; and what is answered.

The answers to clients are the contract's, to the byte: HTTP 200 with `success` false for what an engine can't do.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from api.http.requests import PromptRequest
from api.web.engines import Answer, Engines, UnreachableError
from api.web.replicas import ReadyReplica
from api.web.sse import event, read_data

DEFAULTS: dict[str, Any] = {"max_tokens": 150, "temperature": 0.7}
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

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._without_template: set[str] = set()

    async def answer(
        self, service_id: str, digest: str, replicas: Sequence[ReadyReplica], request: PromptRequest
    ) -> dict[str, Any]:
        """Return what the client is answered."""
        try:
            used, answer = await self._send(digest, replicas, request)
        except UnreachableError as error:
            return _gone(error)
        if answer.status != 200:
            return _refused(answer)
        return _answered(service_id, used, answer, len(replicas))

    async def stream(
        self, service_id: str, digest: str, replicas: Sequence[ReadyReplica], request: PromptRequest
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events: `delta` with a bit of the text, and `done` with what `answer` would return."""
        said = ""
        try:
            async for name, data in self._events(service_id, digest, replicas, request):
                if name == "delta":
                    said += data["text"]
                yield event(name, msgspec.json.encode(data))
        except UnreachableError as error:
            gone = {"message": GONE, "technical_details": str(error)}
            broken = {"success": False, "error": "The answer broke off", "response": said, **gone}
            yield event("done", msgspec.json.encode(broken if said else _gone(error)))

    async def _events(
        self, service_id: str, digest: str, replicas: Sequence[ReadyReplica], request: PromptRequest
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        kinds = ("completions",) if digest in self._without_template else ("chat", "completions")
        for kind in kinds:
            path, fields = self._asked(kind, replicas, request)
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
            async with self._engines.stream(replicas, path, fields) as (answer, chunks):
                if kind == "chat" and _lacks_template(answer):
                    self._remember(digest)
                    continue
                if answer.status != 200:
                    yield "done", _refused(answer)
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
                    yield "done", {**_refused(refusal), "response": text}
                    return
                whole = {"message": {"reasoning": thought, "content": text}, "finish_reason": finish}
                body = {"choices": [whole] if has_choices else [], "usage": usage}
                yield "done", _answered(service_id, kind, Answer(answer.replica, 200, body), len(replicas))
                return

    async def _send(self, digest: str, replicas: Sequence[ReadyReplica], request: PromptRequest) -> tuple[str, Answer]:
        """Return the kind of endpoint used, and its answer."""
        if digest not in self._without_template:
            answer = await self._engines.post(replicas, *self._asked("chat", replicas, request))
            if not _lacks_template(answer):
                return "chat", answer
            self._remember(digest)
        return "completions", await self._engines.post(replicas, *self._asked("completions", replicas, request))

    @staticmethod
    def _asked(kind: str, replicas: Sequence[ReadyReplica], request: PromptRequest) -> tuple[str, dict[str, Any]]:
        """Return the engine's path for a kind of endpoint, and the body."""
        fields = {**DEFAULTS, **request.options}
        model = request.model or _served(replicas)
        if model is not None:
            fields["model"] = model
        if kind == "chat":
            return "/v1/chat/completions", {**fields, "messages": [{"role": "user", "content": request.prompt}]}
        return "/v1/completions", {**fields, "prompt": request.prompt}

    def _remember(self, digest: str) -> None:
        if digest and len(self._without_template) < MOST_REMEMBERED:
            self._without_template.add(digest)


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


def _gone(error: UnreachableError) -> dict[str, Any]:
    return {"success": False, "error": "Service not available", "message": GONE, "technical_details": str(error)}


def _refused(answer: Answer) -> dict[str, Any]:
    return {
        "success": False,
        "error": f"vLLM returned {answer.status}",
        "endpoint": answer.replica.endpoint,
        "status_code": answer.status,
        "body": answer.body,
    }


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


def _lacks_template(answer: Answer) -> bool:
    return answer.status == 400 and _NO_TEMPLATE.search(str(answer.body)) is not None


def _answered(service_id: str, used: str, answer: Answer, replicas: int) -> dict[str, Any]:
    body = answer.body if isinstance(answer.body, dict) else {"text": answer.body}
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return {
            "success": False,
            "error": "No response generated",
            "raw_response": body,
            "endpoint": answer.replica.endpoint,
        }
    counted = body.get("usage")
    usage = counted if isinstance(counted, dict) else {}
    routed = {"routed_to": answer.replica.name} if replicas > 1 else {}
    text = _text(choices[0])
    return {
        "success": True,
        "response": text,
        "service_id": service_id,
        "endpoint": answer.replica.endpoint,
        "endpoint_used": used,
        "usage": {key: usage.get(key) or 0 for key in ("prompt_tokens", "completion_tokens", "total_tokens")},
        **routed,
        **({} if text else _why_empty(choices[0])),
    }


def _why_empty(choice: Any) -> dict[str, Any]:
    """Return why an answer has no text: how it ended, and what the model reasoned instead."""
    if not isinstance(choice, dict):
        return {}
    found = {"finish_reason": choice.get("finish_reason"), "reasoning": _reasoning(choice.get("message"))}
    return {key: value for key, value in found.items() if value and isinstance(value, str)}


def _text(choice: Any) -> str:
    """Return the text of a choice, of a chat or of a completion; empty where the model only called tools."""
    if not isinstance(choice, dict):
        return ""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else ""

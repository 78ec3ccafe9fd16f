"""A prompt: as a chat, or as plain completion where the model has no chat template; and what is answered.

The answers to clients are the contract's, to the byte: HTTP 200 with `success` false for what an engine can't do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from api.http.bodies import PromptRequest
from api.http.engines import Answer, Engines, Replica, UnreachableError

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
        self, service_id: str, digest: str, replicas: Sequence[Replica], request: PromptRequest
    ) -> dict[str, Any]:
        """Return what the client is answered."""
        try:
            used, answer = await self._send(digest, replicas, request)
        except UnreachableError as error:
            return {
                "success": False,
                "error": "Service not available",
                "message": GONE,
                "technical_details": str(error),
            }
        if answer.status != 200:
            return {
                "success": False,
                "error": f"vLLM returned {answer.status}",
                "endpoint": answer.replica.endpoint,
                "status_code": answer.status,
                "body": answer.body,
            }
        return _answered(service_id, used, answer, len(replicas))

    async def _send(self, digest: str, replicas: Sequence[Replica], request: PromptRequest) -> tuple[str, Answer]:
        """Return the kind of endpoint used, and its answer."""
        fields = {**DEFAULTS, **request.options}
        model = request.model or _served(replicas)
        if model is not None:
            fields["model"] = model
        if digest not in self._without_template:
            chat = {**fields, "messages": [{"role": "user", "content": request.prompt}]}
            answer = await self._engines.post(replicas, "/v1/chat/completions", chat)
            if not _lacks_template(answer):
                return "chat", answer
            self._remember(digest)
        return "completions", await self._engines.post(
            replicas, "/v1/completions", {**fields, "prompt": request.prompt}
        )

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


def _served(replicas: Sequence[Replica]) -> str | None:
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
    return {
        "success": True,
        "response": _text(choices[0]),
        "service_id": service_id,
        "endpoint": answer.replica.endpoint,
        "endpoint_used": used,
        "usage": {key: usage.get(key) or 0 for key in ("prompt_tokens", "completion_tokens", "total_tokens")},
        **routed,
    }


def _text(choice: Any) -> str:
    """Return the text of a choice, of a chat or of a completion; empty where the model only called tools."""
    if not isinstance(choice, dict):
        return ""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else ""

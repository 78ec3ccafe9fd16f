"""What may be asked of an engine: a list for each kind. Administrative paths are on none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.gateway.refusals import Form


@dataclass(frozen=True, slots=True)
class EngineOperation:
    """One path that is passed on, as POST with a JSON body that names a model."""

    path: str
    form: Form = Form.OPENAI


_OPERATIONS = (
    EngineOperation("/v1/chat/completions"),
    EngineOperation("/v1/completions"),
    EngineOperation("/v1/embeddings"),
    EngineOperation("/v1/responses"),
    EngineOperation("/v1/messages", Form.ANTHROPIC),
    EngineOperation("/v1/messages/count_tokens", Form.ANTHROPIC),
    EngineOperation("/v1/rerank"),
    EngineOperation("/v1/score"),
    EngineOperation("/tokenize"),
    EngineOperation("/detokenize"),
)
OPERATIONS: Mapping[str, EngineOperation] = {operation.path: operation for operation in _OPERATIONS}
"""vLLM's, by path (docs.vllm.ai, OpenAI-compatible server)."""


def form_of(path: str) -> Form:
    """Return whose errors a path speaks, known or not."""
    return Form.ANTHROPIC if path.startswith("/v1/messages") else Form.OPENAI

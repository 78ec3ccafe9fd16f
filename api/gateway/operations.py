"""What may be asked of an engine: a list for each kind. Administrative paths are on none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from api.gateway.refusals import Form


@dataclass(frozen=True, slots=True)
class EngineOperation:
    """One path that is passed on, as POST with a body that names a model."""

    path: str
    form: Form = Form.OPENAI
    """Whose errors it speaks."""
    is_multipart: bool = False
    """Whether the body is multipart/form-data; else it is JSON."""
    runs_model: bool = True
    """Whether a model runs for it, which takes tokens."""


_OPERATIONS = (
    EngineOperation("/v1/chat/completions"),
    EngineOperation("/v1/completions"),
    EngineOperation("/v1/embeddings"),
    EngineOperation("/v1/responses"),
    EngineOperation("/v1/messages", Form.ANTHROPIC),
    EngineOperation("/v1/messages/count_tokens", Form.ANTHROPIC, runs_model=False),
    EngineOperation("/v1/rerank"),
    EngineOperation("/v1/score"),
    EngineOperation("/v1/audio/transcriptions", is_multipart=True),
    EngineOperation("/v1/audio/translations", is_multipart=True),
    EngineOperation("/v1/audio/speech"),
    EngineOperation("/tokenize", runs_model=False),
    EngineOperation("/detokenize", runs_model=False),
)
OPERATIONS: Mapping[str, EngineOperation] = {operation.path: operation for operation in _OPERATIONS}
"""vLLM's, by path (docs.vllm.ai, OpenAI-compatible server)."""


_ANTHROPIC = re.compile(r"(/services/[^/]+)?/v1/messages")


def form_of(path: str) -> Form:
    """Return whose errors a path speaks, known or not."""
    return Form.ANTHROPIC if _ANTHROPIC.match(path) else Form.OPENAI

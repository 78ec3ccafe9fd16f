"""Reading what a client asks for. Pure. A body passes as it is, but for the name of its model."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from api.gateway.refusals import GatewayError
from api.gateway.token_count import BYTES_PER_TOKEN, MOST_TOKENS, Reserve

_URL_KEYS = ("url", "image_url", "audio_url", "video_url", "file_url")
"""Of content parts: what an engine would fetch (OpenAI's, Anthropic's and vLLM's multimodal inputs)."""
_NO_CONTENT = ("tools", "functions", "metadata", "response_format", "structured_outputs", "guided_json")
"""Parts of a body that only describe: what they call a URL, no engine fetches."""
_MOST_OUTPUT = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_STATEFUL = ("background", "previous_response_id", "conversation")


class ModelRequest(NamedTuple):
    """A request's body, and what the gateway needs of it."""

    body: bytes
    model: str
    is_streamed: bool
    fields: dict[str, Any]
    """The body, read."""
    inline: int = 0
    """So many bytes of it are content that comes as `data:` URLs."""

    def reserve(self) -> Reserve:
        """Return how many tokens it may take."""
        return reserve_of(self.fields, len(self.body) - self.inline)

    def with_model(self, model: str) -> bytes:
        """Return the body for an engine that calls the model this."""
        if model == self.model:
            return self.body
        fields = msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])
        return msgspec.json.encode({**fields, "model": model})


def read_model_request(body: bytes, path: str, media_hosts: Collection[str]) -> ModelRequest:
    """Read a request; raises `GatewayError` for what is not passed on."""
    fields = _object(body)
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise GatewayError(400, "The body names no model: set `model`; GET /v1/models lists them.", param="model")
    inline = check_urls(fields, media_hosts) if _may_have_urls(body) else 0
    if path == "/v1/responses":
        _check_stateless(fields)
    return ModelRequest(body, model, fields.get("stream") is True, fields, inline)


def reserve_of(fields: dict[str, Any], size: int) -> Reserve:
    """Return how many tokens a request may take that is these fields, of so many bytes beside `data:` URLs."""
    most = max((_count(fields[name]) for name in _MOST_OUTPUT if name in fields), default=0)
    answers = max(1, _count(fields["n"])) if "n" in fields else 1
    return Reserve(prompt=size // BYTES_PER_TOKEN, answer=most * answers)


def inline_bytes(fields: dict[str, Any]) -> int:
    """Return how many bytes of a request come as `data:` URLs."""
    return sum(len(url) for url in _urls(fields) if _is_inline(url))


def check_urls(fields: dict[str, Any], media_hosts: Collection[str]) -> int:
    """Return how many bytes come as `data:` URLs; raises `GatewayError` where an engine is to fetch what it may not."""
    inline = 0
    for url in _urls(fields):
        if _is_inline(url):
            inline += len(url)
        else:
            _check_url(url, media_hosts)
    return inline


def _may_have_urls(body: bytes) -> bool:
    """Whether a body may have one of their keys, all of which end so: in these letters, or as \\u escapes of them."""
    return b"url" in body or b"\\u00" in body


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise GatewayError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise GatewayError(400, "The body must be a JSON object.")
    return fields


def _urls(fields: dict[str, Any]) -> Iterator[str]:
    """Yield what stands under keys of URLs, however deep."""
    waiting: list[Any] = [value for name, value in fields.items() if name not in _NO_CONTENT]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            for key, inner in item.items():
                if isinstance(inner, str):
                    if key in _URL_KEYS:
                        yield inner
                else:
                    waiting.append(inner)


def _check_url(url: str, media_hosts: Collection[str]) -> None:
    try:
        parts = urlsplit(url)
        is_allowed = parts.scheme in ("http", "https") and (parts.hostname or "") in media_hosts
    except ValueError:
        is_allowed = False
    if not is_allowed:
        raise GatewayError(
            400,
            "The body has a URL that the engine would fetch, which gateway.media_hosts does not allow. "
            "Send the content itself, as a data: URL.",
            code="invalid_url",
        )


def _is_inline(url: str) -> bool:
    return url[:5].lower() == "data:"


def _count(value: Any) -> int:
    """Read a number of tokens or answers; what is none is the engine's to refuse."""
    return min(max(0, value), MOST_TOKENS) if isinstance(value, int) else 0


def _check_stateless(fields: dict[str, Any]) -> None:
    """Refuse what would be kept in one replica's memory: the next request may go to another, and anybody's."""
    kept = [name for name in _STATEFUL if fields.get(name)]
    if fields.get("store") is True:
        kept.append("store")
    if kept:
        raise GatewayError(
            400,
            f"`{kept[0]}` keeps a conversation in the engine, which this server does not: "
            "leave it out, and send the whole conversation as `input`.",
            param=kept[0],
            code="unsupported_parameter",
        )

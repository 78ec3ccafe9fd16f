"""How many tokens a request took: as its engine says, else as far as can be seen. Pure.

Engines say it as `usage`: in an answer that comes whole, in the last events of /v1/messages and /v1/responses, and of
other streams where `stream_options.include_usage` asks for it. Else the prompt is taken for a token each four bytes,
content that comes as a `data:` URL left out, and the answer for a token each event, as vLLM sends them, or four bytes.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from api.gateway.shown import STREAM

BYTES_PER_TOKEN = 4
MOST_KEPT = 4 * 1024 * 1024
"""Bytes of an answer that comes whole, or of a line of a stream; what is longer is not read, but estimated."""
MOST_TOKENS = 10**8
"""What an engine may say of one request."""
_USAGE = re.compile(rb'"usage" ?: ?\{')


class _Said(msgspec.Struct):
    usage: Any = None
    message: Any = None
    """Of Anthropic's `message_start`."""
    response: Any = None
    """Of `response.completed`."""


_SAID = msgspec.json.Decoder(_Said)


class Reserve(NamedTuple):
    """What a request may take of tokens: an estimate of those of its prompt, and as many as it allows its answer."""

    prompt: int = 0
    answer: int = 0


class TokenCount:
    """Reads along with one answer."""

    __slots__ = ("_input", "_is_json", "_is_refused", "_is_stream", "_kept", "_output", "_seen")

    def __init__(self, prompt: int) -> None:
        """`prompt` is an estimate of what was asked."""
        self._input = prompt
        self._output: int | None = None
        self._kept = b""
        self._seen = 0
        self._is_stream = False
        self._is_json = False
        self._is_refused = False

    def begin(self, status: int, content_type: bytes) -> None:
        """Begin with an answer."""
        self._is_refused = status >= 400
        self._is_stream = content_type == STREAM
        self._is_json = content_type == b"application/json"

    def feed(self, chunk: bytes) -> None:
        """Read on."""
        if self._is_stream:
            self._seen += chunk.count(b"data:")
            if self._kept or b'"usage"' in chunk or not chunk.endswith(b"\n"):
                self._read(chunk)
        elif self._is_json:
            self._seen += len(chunk)
            if self._seen <= MOST_KEPT:
                self._kept += chunk

    def total(self) -> int:
        """Return how many it took; of a refused request none."""
        if self._is_refused:
            return 0
        if self._is_json and self._seen <= MOST_KEPT:
            self._learn(self._kept)
        seen = self._seen if self._is_stream else self._seen // BYTES_PER_TOKEN
        return self._input + (seen if self._output is None else self._output)

    def _read(self, chunk: bytes) -> None:
        """Read the lines that are whole now, and keep the beginning of the next."""
        *lines, rest = (self._kept + chunk).rsplit(b"\n", 1)
        self._kept = rest if len(rest) <= MOST_KEPT else b""
        for whole in lines:
            if _USAGE.search(whole):
                self._read_lines(whole)

    def _read_lines(self, lines: bytes) -> None:
        for line in lines.split(b"\n"):
            if line.startswith(b"data:") and _USAGE.search(line):
                self._learn(line.removeprefix(b"data:"))

    def _learn(self, text: bytes) -> None:
        try:
            said = _SAID.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        for holder in (said.message, said.response):
            if isinstance(holder, dict) and isinstance(usage := holder.get("usage"), dict):
                self._take(usage)
        if isinstance(said.usage, dict):
            self._take(said.usage)

    def _take(self, usage: dict[str, Any]) -> None:
        """Take what is said; of several times the last."""
        read, made = _number(usage, *_INPUT), _number(usage, *_OUTPUT)
        if read is None and made is None:
            read = _number(usage, "total_tokens")
        if read is not None:
            self._input = read
            self._output = self._output or 0
        if made is not None:
            self._output = made


_INPUT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")


def _number(usage: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return min(value, MOST_TOKENS)
    return None

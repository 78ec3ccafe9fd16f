"""How many tokens a request is taken to have had: as its engine says, however its answer is cut, else an estimate."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.model_request import read_model_request
from api.gateway.token_count import MOST_KEPT, MOST_TOKENS, TokenCount

STREAM, JSON = b"text/event-stream", b"application/json"


def events(*said: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % (one if isinstance(one, bytes) else json.dumps(one).encode()) for one in said)


def counted(*chunks: bytes, kind: bytes = STREAM, status: int = 200, prompt: int = 1000) -> int:
    count = TokenCount(prompt)
    count.begin(status, kind)
    for chunk in chunks:
        count.feed(chunk)
    return count.total()


DELTA = {"choices": [{"delta": {"content": 'it says "usage": {"total_tokens": 9}'}}]}
SAID = {
    "chat": events(DELTA, DELTA | {"usage": None}, {"choices": [], "usage": {
        "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}, b"[DONE]"),
    "messages": events({"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 0}}},
                       {"type": "message_delta", "usage": {"output_tokens": 5}}),
    "responses": events({"type": "response.output_text.delta", "delta": "x"}, {
        "type": "response.completed", "response": {"output": [], "usage": {
            "input_tokens": 7, "output_tokens": 5, "total_tokens": 12}}}),
    "continuous": events({"usage": {"prompt_tokens": 7, "completion_tokens": 1}},
                         {"usage": {"prompt_tokens": 7, "completion_tokens": 5}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_what_a_stream_says_however_it_is_cut(kind: str, cuts: list[int]) -> None:
    whole = SAID[kind]
    places = [0, *sorted({cut % len(whole) for cut in cuts}), len(whole)]
    assert counted(*(whole[begin:end] for begin, end in pairwise(places))) == 12


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}, 12),
        ({"input_tokens": 7, "output_tokens": 5}, 12),
        ({"prompt_tokens": 7, "total_tokens": 7}, 7),
        ({"total_tokens": 7}, 7),
        ({"prompt_tokens": 10**30}, MOST_TOKENS),
    ],
)
def test_what_a_whole_answer_says(usage: Any, tokens: int) -> None:
    body = json.dumps({"id": "x", "usage": usage, "results": []}).encode()
    assert counted(body[:9], body[9:], kind=JSON) == tokens


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"usage": 5}', b'{"usage": {}}', b'{"usage": {"prompt_tokens": -1}}', b"[" * 100_000, b"\xff",
     b'{"usage": {"prompt_tokens": true, "completion_tokens": "5"}}'],
)  # fmt: skip
def test_of_what_says_nothing_an_estimate(body: bytes) -> None:
    assert counted(body, kind=JSON) == 1000 + len(body) // 4
    assert counted(events(DELTA, DELTA, body), kind=STREAM) == 1003


def test_what_is_longer_than_is_kept_is_estimated() -> None:
    piece = b" " * (MOST_KEPT // 2)
    assert counted(piece, piece, b'{"usage": {"total_tokens": 1}}', kind=JSON) == 1000 + (MOST_KEPT + 30) // 4
    assert counted(b"data: " + piece, piece, piece, b"\n", events({"usage": {"total_tokens": 1}})) == 1


def test_what_is_refused_took_none() -> None:
    assert counted(b'{"usage": {"total_tokens": 5}}', kind=JSON, status=400) == 0


def test_sounds_are_not_taken_for_text() -> None:
    assert counted(b"x" * 10_000, kind=b"audio/wav") == 1000


@pytest.mark.parametrize(
    ("more", "prompt", "answer"),
    [
        ({}, 10, 0),
        ({"max_tokens": 50}, 14, 50),
        ({"max_completion_tokens": 50, "n": 3}, 21, 150),
        ({"max_output_tokens": -5}, 17, 0),
        ({"max_tokens": "many", "n": None}, 18, 0),
        ({"max_tokens": 10**30}, 21, MOST_TOKENS),
        ({"messages": [{"content": [{"image_url": {"url": "data:image/png;base64," + "A" * 10_000}}]}]}, 21, 0),
    ],
)
def test_what_is_set_aside(more: dict[str, Any], prompt: int, answer: int) -> None:
    body = json.dumps({"model": "dummy", "messages": [], **more}).encode()
    reserve = read_model_request(body, "/v1/chat/completions", ()).reserve()
    assert (abs(reserve.prompt - prompt) <= 5, reserve.answer) == (True, answer)

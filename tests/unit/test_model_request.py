"""What an engine would fetch is found however a body writes it down."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.model_request import _URL_KEYS, read_model_request
from api.gateway.refusals import GatewayError

CHAT = "/v1/chat/completions"


def escaped(text: str, letters: set[int], *, is_upper: bool) -> str:
    """Write some letters of a word as JSON may write them."""
    form = "\\u{:04X}" if is_upper else "\\u{:04x}"
    return "".join(form.format(ord(letter)) if at in letters else letter for at, letter in enumerate(text))


@given(key=st.sampled_from(_URL_KEYS), letters=st.sets(st.integers(0, 8)), is_upper=st.booleans())
def test_a_url_is_found_however_its_key_is_written(key: str, letters: set[int], is_upper: bool) -> None:
    body = '{"model": "m", "messages": [{"content": [{"%s": "http://169.254.169.254/"}]}]}'
    written = body % escaped(key, letters, is_upper=is_upper)
    assert key in json.loads(written)["messages"][0]["content"][0]
    with pytest.raises(GatewayError, match="media_hosts"):
        read_model_request(written.encode(), CHAT, ())


@pytest.mark.parametrize("said", [{"url": "data:image/png;base64,AAAA"}, {"text": "curl http://somewhere/"}, {}])
def test_what_no_engine_fetches_passes(said: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "messages": [{"content": [said]}]}).encode()
    assert read_model_request(body, CHAT, ()).inline == len(said.get("url", ""))

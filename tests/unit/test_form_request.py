"""Forms that ask for a model: one byte for another, and nothing that an engine could read otherwise."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.form_request import MOST_PARTS, read_form_request
from api.gateway.refusals import GatewayError

TYPE = b"multipart/form-data; boundary=b-1"
NAMED = b'Content-Disposition: form-data; name="model"'


def form(*parts: tuple[bytes, bytes], end: bytes = b"--\r\n") -> bytes:
    """Write a form of parts, each its headers and its content."""
    return b"".join(b"--b-1\r\n%b\r\n\r\n%b\r\n" % part for part in parts) + b"--b-1" + end


@given(st.binary(max_size=200), st.booleans(), st.text("mod-el/é", min_size=1, max_size=9))
def test_all_but_the_name_passes_as_it_is(sound: bytes, is_first: bool, model: str) -> None:
    """As httpx writes forms, and with any content."""
    fields = [("file", ("a.wav", sound, "audio/wav")), ("temperature", (None, "0.5"))]
    fields.insert(0 if is_first else 2, ("model", (None, model)))
    request = httpx.Request("POST", "http://x", files=fields)
    body, content_type = request.read(), request.headers["content-type"].encode()
    asked = read_form_request(body, content_type)
    assert asked.model == model
    assert asked.with_model(model) is body
    other = httpx.Request("POST", "http://x", headers=request.headers, files=[
        (name, (None, "other")) if name == "model" else (name, value) for name, value in fields
    ])  # fmt: skip
    assert asked.with_model("other") == other.read()


@pytest.mark.parametrize(
    "head",
    [
        NAMED,
        b"content-disposition:form-data;name=model",
        b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"',
    ],
)
def test_how_clients_write_it(head: bytes) -> None:
    body = form(
        (b'Content-Disposition: form-data; name="file"; filename="a \\"model\\".wav"', b"--b-1x\n"), (head, b"m")
    )
    assert read_form_request(body, b'multipart/form-data; boundary="b-1"').model == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"model": "m"}',
        form(),
        form((NAMED, b"")),
        form((NAMED, b"\xff")),
        form((NAMED, b"m"), (NAMED, b"other")),
        form((NAMED, b"m"), (NAMED.lower(), b"other")),
        form((NAMED + b'; filename="x"', b"m")),
        form((NAMED + b"; filename*=utf-8''x", b"m")),
        form((NAMED + b'; name="other"', b"m")),
        form((b'Content-Disposition: form-data; name="other"; name="model"', b"m")),
        form((NAMED + b"; name*=utf-8''other", b"m")),
        form((b'Content-Disposition: form-data; name*0="mo"; name*1="del"', b"m"), (NAMED, b"other")),
        form((b'Content-Disposition: form-data; name="mod\\el"', b"m"), (NAMED, b"other")),
        form((NAMED + b"\r\nContent-Disposition: form-data; name=file", b"m")),
        form((NAMED + b"\r\n ; name=file", b"m")),
        form((NAMED + b"\nContent-Disposition: form-data; name=file", b"m")),
        form((b"Content-Disposition: attachment; name=model", b"m")),
        form((b"X: y", b"m"), (NAMED, b"m")),
        form((NAMED, b"m"), end=b""),
        form((NAMED, b"m"), end=b"--\r\n--b-1\r\n"),
        form((NAMED, b"m"), end=b" --\r\n"),
        b"preamble\r\n" + form((NAMED, b"m")),
        form((NAMED, b"m")).replace(b"\r\n", b"\n"),
        form((NAMED + b"; x=" + b"y" * 9000, b"m")),
        form(*[(b'Content-Disposition: form-data; name="x"', b"")] * (MOST_PARTS + 1), (NAMED, b"m")),
    ],
)
def test_what_is_refused(body: bytes) -> None:
    with pytest.raises(GatewayError) as raised:
        read_form_request(body, TYPE)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"application/json",
        b"multipart/form-data",
        TYPE + b"; boundary=other",
        TYPE + b"\r\nX: y",
        b"multipart/mixed; boundary=b-1",
    ],
)
def test_what_says_no_boundary(content_type: bytes) -> None:
    with pytest.raises(GatewayError, match="must be a form"):
        read_form_request(form((NAMED, b"m")), content_type)

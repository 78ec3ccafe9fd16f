"""Reading which model a form asks for (multipart/form-data, RFC 7578). Pure. All other bytes pass as they are.

Engines read forms more kindly than this. What they might take for something else than we do is refused: a field `model`
must be one, and a key that may ask for one model gets no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from api.gateway.refusals import GatewayError
from api.gateway.token_count import Reserve

MOST_PARTS = 100
LONGEST_HEAD = 8 * 1024
"""Bytes of a part's headers."""

_CONTENT_TYPE = re.compile(
    rb"multipart/form-data *; *boundary=(?:([0-9A-Za-z'()+_,./:=?-]{1,70})|\"([0-9A-Za-z'()+_,./:=? -]{1,70})\") *",
    re.IGNORECASE,
)
"""With what boundaries are made of (RFC 2046, 5.1.1)."""
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_PARAMETER = rb" *; *([A-Za-z]+\*?)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\";\\]+))"
_DISPOSITION = re.compile(rb"form-data((?:%b)*)(?: *;)? *" % _PARAMETER, re.IGNORECASE)
_PARAMETERS = re.compile(_PARAMETER)


@dataclass(frozen=True, slots=True)
class FormRequest:
    """A form, and the model that it asks for."""

    body: bytes
    model: str
    begin: int
    """Where the model's name stands."""
    end: int

    is_streamed: ClassVar = False

    @staticmethod
    def reserve() -> Reserve:
        """Return how many tokens it may take: of sounds nobody can tell."""
        return Reserve()

    def with_model(self, model: str) -> bytes:
        """Return the form for an engine that calls the model this."""
        if model == self.model:
            return self.body
        whole = memoryview(self.body)
        return b"".join((whole[: self.begin], model.encode(), whole[self.end :]))


@dataclass(frozen=True, slots=True)
class _Part:
    name: bytes
    is_file: bool
    begin: int
    end: int


def read_form_request(body: bytes, content_type: bytes) -> FormRequest:
    """Read a form; raises `GatewayError` for what is none, or names no model, or several."""
    found = _CONTENT_TYPE.fullmatch(content_type.strip())
    if found is None:
        raise GatewayError(400, "The body must be a form: Content-Type: multipart/form-data, with its boundary alone.")
    models = [part for part in _parts(body, found[1] or found[2]) if part.name == b"model"]
    if len(models) != 1 or models[0].is_file:
        has = "names no model: set the field `model`" if not models else "must have one field `model`, which is no file"
        raise GatewayError(400, f"The form {has}; GET /v1/models lists them.", param="model")
    begin, end = models[0].begin, models[0].end
    try:
        model = body[begin:end].decode()
    except UnicodeDecodeError:
        raise _malformed("its field `model` is no UTF-8") from None
    if not model:
        raise GatewayError(400, "The form's field `model` is empty; GET /v1/models lists them.", param="model")
    return FormRequest(body, model, begin, end)


def _parts(body: bytes, boundary: bytes) -> Iterator[_Part]:
    """Yield the parts of a form."""
    delimiter = b"\r\n--" + boundary
    if not body.startswith(delimiter[2:]):
        raise _malformed("it does not begin with its boundary")
    place = len(delimiter) - 2
    for _ in range(MOST_PARTS + 1):
        if body[place : place + 2] == b"--":
            if body[place + 2 :].strip(b"\r\n"):
                raise _malformed("something follows its end")
            return
        begin = body.find(b"\r\n\r\n", place, place + LONGEST_HEAD) + 4
        end = body.find(delimiter, begin)
        if body[place : place + 2] != b"\r\n" or begin < 4 or end < 0:
            raise _malformed("it is not whole, or a part of it has no headers")
        parameters = _disposition(body[place + 2 : begin - 4])
        yield _Part(parameters[b"name"], any(name.startswith(b"filename") for name in parameters), begin, end)
        place = end + len(delimiter)
    raise _malformed(f"it has more than {MOST_PARTS} parts")


def _disposition(head: bytes) -> Mapping[bytes, bytes]:
    """Return what a part's headers say that it is: name, and filename."""
    headers = [_HEADER.fullmatch(line) for line in head.split(b"\r\n")]
    said = [header[2].rstrip() for header in headers if header and header[1].lower() == b"content-disposition"]
    whole = _DISPOSITION.fullmatch(said[0]) if len(said) == 1 else None
    if None in headers or whole is None:
        raise _malformed("the headers of a part do not say what it is")
    pairs = [(name.lower(), quoted or plain) for name, quoted, plain in _PARAMETERS.findall(whole[1])]
    parameters = dict(pairs)
    if len(pairs) > len(parameters) or b"name" not in parameters or b"name*" in parameters:
        raise _malformed("a part of it has no name, or two")
    if b"\\" in parameters[b"name"]:
        raise _malformed("a name in it has a backslash")
    return parameters


def _malformed(why: str) -> GatewayError:
    return GatewayError(400, f"The form can't be read: {why}.")

"""Reading the bodies of requests, and how large one may be; what is wrong is said in the words of pydantic."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from api.contract.json_columns import DEEPEST, is_deeper
from api.web.errors import InvalidError, Problem

LARGEST_BODY = 1024 * 1024
"""Bytes."""


def read_object(body: bytes) -> dict[str, Any]:
    """Read a body that must be a JSON object; raises `InvalidError`."""
    if not body.strip():
        raise InvalidError(Problem(loc=("body",), msg="Field required", type="missing", input=None))
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidError(_not_json(body, str(error))) from None
    except RecursionError:
        raise InvalidError(_not_json(body, "nested too deeply")) from None
    if is_deeper(value, DEEPEST):
        raise InvalidError(_not_json(body, f"nested more than {DEEPEST} levels deep"))
    if not isinstance(value, dict):
        raise InvalidError(dict_type(("body",), value))
    return value


def string_type(loc: tuple[str, ...], value: Any) -> Problem:
    """Say that a value is no text."""
    return Problem(loc=loc, msg="Input should be a valid string", type="string_type", input=value)


def dict_type(loc: tuple[str, ...], value: Any) -> Problem:
    """Say that a value is no object."""
    return Problem(loc=loc, msg="Input should be a valid dictionary", type="dict_type", input=value)


def _not_json(body: bytes, error: str) -> Problem:
    byte = re.search(r"\(byte (\d+)\)", error)
    place = int(byte[1]) if byte else len(body)
    return Problem(loc=("body", place), msg="JSON decode error", type="json_invalid", input={}, ctx={"error": error})

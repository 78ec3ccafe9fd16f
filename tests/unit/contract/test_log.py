"""Log lines: constant messages, with the fields of the work they belong to."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import pytest

from api.contract.log import JsonLines, TextLines, about, current


def record(message: str = "said", **extra: Any) -> logging.LogRecord:
    return logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, message, (), None, extra=extra)


def line(**extra: Any) -> dict[str, Any]:
    return dict(json.loads(JsonLines().format(record(**extra))))


def test_a_line_is_one_object_with_its_fields() -> None:
    found = line(job_id=5, nothing=None, odd=object)
    assert (found["level"], found["logger"], found["message"], found["job_id"]) == ("info", "x", "said", 5)
    assert "nothing" not in found
    assert "odd" in found


def test_fields_of_the_work_are_on_every_line_inside_and_on_none_outside() -> None:
    with about(service="one", epoch=3):
        with about(token="t", epoch=4):
            assert {k: line()[k] for k in ("service", "token", "epoch")} == {"service": "one", "token": "t", "epoch": 4}
        assert line()["epoch"] == 3
        assert line(epoch=9)["epoch"] == 9
        assert "token" not in line()
    assert "service" not in line()
    assert dict(current()) == {}


def test_fields_are_taken_back_when_the_work_fails() -> None:
    with pytest.raises(OSError, match="away"), about(service="one"):
        raise OSError("away")
    assert dict(current()) == {}


async def test_tasks_at_the_same_time_keep_their_own() -> None:
    async def work(service: str) -> str:
        with about(service=service):
            await asyncio.sleep(0)
            return str(line()["service"])

    with about(epoch=1):
        assert await asyncio.gather(work("a"), work("b")) == ["a", "b"]


def test_text_for_people() -> None:
    with about(service="one"):
        text = TextLines().format(record(error="it is\naway", path="", job_id=5))
    assert text.endswith('INFO    x said service=one error="it is\\naway" path="" job_id=5')


def test_a_traceback_is_inside_of_the_line() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        made = record()
        made.exc_info = sys.exc_info()
    text = JsonLines().format(made)
    assert "\n" not in text
    assert "bad" in json.loads(text)["traceback"]
    assert TextLines().format(made).splitlines()[-1] == "ValueError: bad"

"""Log lines: constant messages, with the fields of the work they belong to."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from typing import Any

import pytest

from api.contract.log import CountingHandler, JsonLines, Repeats, TextLines, about, current


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


class Lines:
    """What is written of lines that come at given times."""

    def __init__(self) -> None:
        self.repeats = Repeats()
        self.written: list[str] = []

    def come(self, at: float, message: str, *args: object, level: int = logging.ERROR, name: str = "x") -> None:
        made = logging.getLogger(name).makeRecord(name, level, "f", 1, message, args, None)
        made.created = at
        self.written += [each.getMessage() for each in self.repeats.take(made)]


def test_what_repeats_is_counted() -> None:
    lines = Lines()
    for number in range(100_000):
        lines.come(number / 10_000, "no descriptor\nsocket %s", number)
    lines.come(30.0, "no descriptor\nsocket %s", "other")
    assert lines.written == [f"no descriptor\nsocket {number}" for number in range(5)]
    lines.come(61.0, "something else", level=logging.INFO)
    counted = "no descriptor … and 99996 times more in the last 30 s, with whatever details"
    assert lines.written[5:] == [counted, "something else"]
    lines.come(62.0, "no descriptor\nsocket %s", 1)
    assert lines.written[7:] == ["no descriptor\nsocket 1"], "it is written again after that"
    lines.come(200.0, "something else", level=logging.INFO)
    assert len(lines.written) == 9, "of what did not repeat nothing is said"


def test_what_differs_by_logger_level_or_message_is_written() -> None:
    lines = Lines()
    for number in range(4):
        for name in ("x", "y"):
            for level in (logging.WARNING, logging.ERROR):
                for message in ("one", "two"):
                    lines.come(number, message, level=level, name=name)
    assert len(lines.written) == 32


def test_what_is_no_trouble_is_written_each_time() -> None:
    lines = Lines()
    for number in range(50):
        lines.come(number / 100, "sbatch returned", level=logging.INFO)
    assert len(lines.written) == 50


def test_the_program_counts_and_says_the_rest_at_its_end() -> None:
    handler, stream = CountingHandler(), io.StringIO()
    handler.setStream(stream)
    handler.setFormatter(JsonLines())
    for _ in range(20):
        try:
            raise OSError(24, "Too many open files")
        except OSError:
            made = record("no descriptor")
            made.levelno, made.levelname, made.exc_info = logging.ERROR, "ERROR", sys.exc_info()
        handler.handle(made)
    handler.close()
    found = [json.loads(each) for each in stream.getvalue().splitlines()]
    assert [each["message"].partition(" …")[0] for each in found] == ["no descriptor"] * 6
    assert ["traceback" in each for each in found] == [True] * 5 + [False]
    assert "15 times more" in found[-1]["message"]
    assert found[-1]["level"] == "error"

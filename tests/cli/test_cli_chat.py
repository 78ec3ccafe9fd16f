"""`ai-factory chat`: a conversation, line by line."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from cli_tools import FakeApi, Run

PATH = "/v1/chat/completions"


@pytest.fixture
def talk(run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Any:
    def say(text: str, *more: str) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return run("chat", "qwen", *more, "--server", api.url)

    return say


def stream(*deltas: dict[str, Any], finish: str = "stop", ends: bool = True) -> bytes:
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n" if ends else ""]).encode()


def test_each_line_is_sent_with_all_that_was_said(talk: Any, api: FakeApi) -> None:
    api.answer("POST", PATH, (200, stream({"content": "Hel"}, {"content": "lo"})), (200, stream({"content": "Bye"})))
    ran = talk("Hi\n\nGo\n", "--system", "Be brief.", "--max-tokens", "9", "--temperature", "0")
    assert (ran.code, ran.out, ran.err) == (0, "Hello\nBye\n", "")
    first, second = (body for _, _, body in api.asked)
    assert first == {
        "model": "qwen",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "max_tokens": 9,
        "temperature": 0.0,
    }
    assert second["messages"][2:] == [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Go"}]


def test_thoughts_are_no_part_of_the_answer(talk: Any, api: FakeApi) -> None:
    api.answer("POST", PATH, (200, stream({"reasoning_content": "Hm."}, {"content": "4"}, finish="length")))
    ran = talk("2+2?")
    assert ran.out == "4\n"
    assert ran.err.startswith("Hm.(cut: ")


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ((404, {"error": {"message": "There is no model 'qwen'."}}), 5, "There is no model 'qwen'."),
        ((503, {"error": {"message": "It is starting."}}), 1, "It is starting."),
        ((200, b'data: {"error": {"message": "The answer broke off."}}\n\n'), 1, "The answer broke off."),
        ((200, stream({"content": "x"}, ends=False)), 4, "The answer broke off. Ask again."),
    ],
)
def test_what_goes_wrong(talk: Any, api: FakeApi, answer: Any, code: int, said: str) -> None:
    api.answer("POST", PATH, answer)
    ran = talk("Hi")
    assert (ran.code, ran.err) == (code, f"ai-factory: {said}\n")

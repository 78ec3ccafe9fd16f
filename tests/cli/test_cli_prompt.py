from __future__ import annotations

import io
import json
from typing import Any

import pytest
from cli_tools import FakeApi, Run, service

PROMPT = "/api/v1/vllm/chat/prompt"


@pytest.fixture
def call(run: Run, api: FakeApi) -> Run:
    return lambda *argv: run(*argv, "--server", api.url)


def test_a_prompt_prints_only_the_text(call: Run, api: FakeApi) -> None:
    api.answer("POST", PROMPT, (200, {"success": True, "response": "Hello!", "usage": {}}))
    ran = call("prompt", "chat", "Hi", "--system", "Be brief.", "--max-tokens", "5", "--temperature", "0")
    assert (ran.code, ran.out, ran.err) == (0, "Hello!\n", "")
    asked = {"prompt": "Hi", "system": "Be brief.", "max_tokens": 5, "temperature": 0.0}
    assert api.asked == [("POST", PROMPT, asked)]


def test_a_dash_reads_standard_input(call: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a file\n"))
    api.answer("POST", PROMPT, (200, {"success": True, "response": "ok\n"}))
    assert call("prompt", "chat", "-").out == "ok\n"
    assert api.asked[0][2] == {"prompt": "from a file\n"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"success": False, "error": "Service is not ready yet (status: pending)", "message": "Wait."}),
         "ai-factory: Service is not ready yet (status: pending). Wait.\n"),
        ((200, {"success": False, "error": "vLLM returned 500", "body": "boom"}),
         "ai-factory: vLLM returned 500. boom.\n"),
        ((500, {"detail": "VLLM service chat not found or not running"}),
         "ai-factory: VLLM service chat not found or not running\n"),
        ((400, {"detail": "Prompt is required"}), "ai-factory: Prompt is required\n"),
        ((200, {}), "ai-factory: The service gave no answer.\n"),
    ],
)  # fmt: skip
def test_failed_prompts_go_to_standard_error(call: Run, api: FakeApi, answer: tuple[int, Any], said: str) -> None:
    api.answer("POST", PROMPT, answer)
    api.answer("GET", "/api/v1/services/chat", (200, service()))
    ran = call("prompt", "chat", "Hi")
    assert (ran.code, ran.out, ran.err) == (1, "", said)


@pytest.mark.parametrize("flags", [(), ("--stream",)])
def test_a_service_that_there_is_not_exits_5(call: Run, api: FakeApi, flags: tuple[str, ...]) -> None:
    unknown = (500, {"detail": "VLLM service nope not found or not running"})
    api.answer("POST", "/api/v1/vllm/nope/prompt", unknown)
    api.answer("POST", "/api/v1/vllm/nope/prompt?stream=true", unknown)
    api.answer("GET", "/api/v1/services/nope", (404, {"detail": "Service not found"}))
    ran = call("prompt", "nope", "Hi", *flags)
    assert (ran.code, ran.out, ran.err.count("\n")) == (5, "", 1)
    assert "services list" in ran.err


SPENT = "all of its 150 tokens on reasoning, and did not come to an answer. Give it more: --max-tokens N"


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ({"finish_reason": "length", "reasoning": "Hm.", "usage": {"completion_tokens": 150}}, SPENT),
        ({"finish_reason": "length"}, "all of its tokens without a word of an answer. Give it more: --max-tokens N"),
        ({"finish_reason": "stop", "reasoning": "Hm."}, "The model reasoned, and gave no answer."),
        ({"finish_reason": "tool_calls"}, "The model's answer is empty (tool_calls)."),
        ({}, "The model's answer is empty."),
    ],
)
def test_an_answer_without_a_word_says_why(call: Run, api: FakeApi, why: dict[str, Any], said: str) -> None:
    answer = {"success": True, "response": "", **why}
    api.answer("POST", PROMPT, (200, answer))
    ran = call("prompt", "chat", "Hi")
    assert (ran.code, ran.out, said in ran.err) == (1, "", True), ran.err
    assert call("prompt", "chat", "Hi", "-o", "json").code == 1
    api.answer("POST", f"{PROMPT}?stream=true", (200, events(("done", answer))))
    ran = call("prompt", "chat", "Hi", "--stream")
    assert (ran.code, ran.out, said in ran.err) == (1, "", True), ran.err


def test_a_failed_prompt_as_json(call: Run, api: FakeApi) -> None:
    api.answer("POST", PROMPT, (200, {"success": False, "error": "x"}))
    ran = call("prompt", "chat", "Hi", "-o", "json")
    assert (ran.code, json.loads(ran.out)["error"]) == (1, "x")


# As it comes


STREAM = f"{PROMPT}?stream=true"


def events(*found: tuple[str, Any]) -> bytes:
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in found).encode()


def test_a_streamed_prompt_prints_bit_by_bit(call: Run, api: FakeApi) -> None:
    answer = events(
        ("delta", {"text": "Hel"}), ("delta", {"text": "lo"}), ("done", {"success": True, "response": "Hello"})
    )
    api.answer("POST", STREAM, (200, answer))
    ran = call("prompt", "chat", "Hi", "--stream")
    assert (ran.code, ran.out, ran.err) == (0, "Hello\n", "")
    ran = call("prompt", "chat", "Hi", "--stream", "-o", "json")
    assert [json.loads(line)["event"] for line in ran.out.splitlines()] == ["delta", "delta", "done"]


def test_a_stream_that_fails_or_breaks_off(call: Run, api: FakeApi) -> None:
    failed = {"success": False, "error": "The answer broke off"}
    api.answer("POST", STREAM, (200, events(("delta", {"text": "Hel"}), ("done", failed))))
    ran = call("prompt", "chat", "Hi", "--stream")
    assert (ran.code, ran.out, ran.err) == (1, "Hel\n", "ai-factory: The answer broke off.\n")
    api.answer("POST", STREAM, (200, events(("delta", {"text": "Hel"}))))
    assert call("prompt", "chat", "Hi", "--stream").code == 4
    api.answer("POST", STREAM, (200, {"success": False, "error": "Service is not ready yet"}))
    ran = call("prompt", "chat", "Hi", "--stream")
    assert (ran.code, ran.err) == (1, "ai-factory: Service is not ready yet.\n")
    api.answer("POST", STREAM, (200, {"success": True, "response": "an older API"}))
    assert call("prompt", "chat", "Hi", "--stream").out == "an older API\n"

"""The dummy engine, as a client of vLLM sees it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

ENGINE = Path(__file__).parents[2] / "recipes/inference/vllm_dummy_engine.py"


class Client:
    """One keep-alive connection to an engine."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def raw(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        self.connection.request(method, path, data, headers)
        response = self.connection.getresponse()
        return response.status, response.read().decode()

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        status, text = self.raw("GET", path, **headers)
        return status, json.loads(text)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        status, text = self.raw("POST", path, body, **headers)
        return status, json.loads(text)

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        status, text = self.raw("POST", path, {**body, "stream": True})
        assert status == 200
        events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert events[-1] == "[DONE]"
        return [json.loads(event) for event in events[:-1]]


Start = Callable[..., Client]


@pytest.fixture(scope="module")
def launch() -> Iterator[Start]:
    started: list[Client] = []

    def run(*arguments: str, **environment: str) -> Client:
        process = subprocess.Popen(
            [sys.executable, "-I", str(ENGINE), "--port", "0", "--model", "m", *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            match = re.search(r"Starting vLLM server on http://127.0.0.1:(\d+)", line)
            if match:
                threading.Thread(target=process.stdout.read, daemon=True).start()
                started.append(Client(process, int(match[1])))
                return started[-1]
        raise AssertionError("the engine did not start")

    yield run
    for client in started:
        client.connection.close()
        client.process.kill()
        client.process.wait(60)
        assert client.process.stdout is not None
        client.process.stdout.close()


@pytest.fixture(scope="module")
def engine(launch: Start) -> Client:
    return launch()


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def test_open_routes(engine: Client) -> None:
    assert engine.raw("GET", "/health") == (200, "")
    assert engine.raw("GET", "/ping") == (200, "")
    assert "version" in engine.get("/version")[1]
    status, models = engine.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in models["data"]] == ["m"]
    assert engine.raw("GET", "/nowhere")[0] == 404
    assert engine.raw("POST", "/debug/health", {"status": 503})[0] == 404


def test_completions(engine: Client) -> None:
    status, answer = engine.post("/v1/completions", {"model": "m", "prompt": "one  two three", "max_tokens": 4})
    assert status == 200
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == "[m] echo: one "
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert engine.post("/v1/completions", {"prompt": "no model needed"})[0] == 200


def test_chat(engine: Client) -> None:
    status, answer = engine.post("/v1/chat/completions", chat("žluťoučký kůň"))
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "[m] echo: žluťoučký kůň"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "in parts"}]}]}
    assert engine.post("/v1/chat/completions", parts)[1]["choices"][0]["message"]["content"] == "[m] echo: in parts"


def test_a_stream_says_the_same(engine: Client) -> None:
    events = engine.events("/v1/completions", {"prompt": "a b c", "max_tokens": 50})
    assert "".join(event["choices"][0]["text"] for event in events) == "[m] echo: a b c"
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 5 + ["stop"]
    events = engine.events("/v1/chat/completions", chat("a b c", stream_options={"include_usage": True}))
    *deltas, usage = events
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in deltas) == "[m] echo: a b c"
    assert deltas[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 5)
    assert len({event["id"] for event in events}) == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/completions", {"model": "other", "prompt": "x"}, 404),
        ("/v1/chat/completions", {"model": "other", "messages": []}, 404),
        ("/v1/completions", "{", 400),
        ("/v1/completions", "[]", 400),
        ("/v1/completions", "7", 400),
        ("/v1/completions", {}, 400),
        ("/v1/completions", {"prompt": "x", "max_tokens": 0}, 400),
        ("/v1/completions", {"prompt": "x", "max_tokens": "many"}, 400),
        ("/v1/chat/completions", {"messages": []}, 400),
        ("/v1/chat/completions", {"messages": ["x"]}, 400),
    ],
)
def test_errors_have_vllms_shape(engine: Client, path: str, body: Any, status: int) -> None:
    got, answer = engine.post(path, body)
    assert got == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["code"] == status
    assert engine.raw("GET", "/health")[0] == 200, "the connection stays usable"


def test_metrics_count(engine: Client) -> None:
    def value(name: str) -> float:
        text = engine.raw("GET", "/metrics")[1]
        match = re.search(rf'^vllm:{name}\{{engine="0",model_name="m"\}} (\S+)$', text, re.MULTILINE)
        assert match, text
        return float(match[1])

    before = value("generation_tokens_total")
    engine.post("/v1/completions", {"prompt": "x y", "max_tokens": 3})
    assert value("generation_tokens_total") == before + 3
    assert value("prompt_tokens_total") > 0
    assert (value("num_requests_running"), value("num_requests_waiting"), value("kv_cache_usage_perc")) == (0, 0, 0)


def test_a_key_guards_the_prompts_only(launch: Start) -> None:
    engine = launch(VLLM_API_KEY="key")
    assert engine.raw("GET", "/health")[0] == 200
    assert engine.raw("GET", "/metrics")[0] == 200
    assert engine.get("/v1/models") == (401, {"error": "Unauthorized"})
    assert engine.post("/v1/completions", {"prompt": "x"}, Authorization="Bearer wrong")[0] == 401
    assert engine.get("/v1/models", Authorization="Bearer key")[0] == 200


def test_a_model_without_a_chat_template(launch: Start) -> None:
    engine = launch("--no-chat-template")
    status, answer = engine.post("/v1/chat/completions", chat("x"))
    assert status == 400
    assert "default chat template is no longer allowed" in answer["error"]["message"]
    assert engine.post("/v1/completions", {"prompt": "x"})[0] == 200


def test_faults_on_demand(launch: Start) -> None:
    failing = launch("--fail-prompts", "--debug")
    assert failing.post("/v1/completions", {"prompt": "x"})[0] == 500
    assert failing.post("/debug/health", {"status": 503}) == (200, {"status": 503})
    assert failing.raw("GET", "/health")[0] == 503
    assert launch("--empty-choices").post("/v1/chat/completions", chat("x"))[1]["choices"] == []


def test_refuses_connections_until_it_is_up(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    argv = [sys.executable, "-I", str(ENGINE), "--port", str(port), "--startup-delay", "60"]
    with log.open("w") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
        deadline = time.monotonic() + 60
        while "Starting to load model" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        process.terminate()
        assert process.wait(60) == 143


def test_a_taken_port_is_told_as_vllm_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        argv = [sys.executable, "-I", str(ENGINE), "--port", str(server.getsockname()[1])]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "OSError: [Errno 98] Address already in use" in ended.stderr


def test_ends_by_itself_when_told() -> None:
    argv = [sys.executable, "-I", str(ENGINE), "--port", "0", "--exit-after", "0.1", "--exit-code", "7"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 7
    assert "RuntimeError" in ended.stderr


def test_term_lets_what_is_in_flight_finish(launch: Start) -> None:
    engine = launch("--token-delay", "0.1")
    idle = Client(engine.process, engine.port)
    idle.raw("GET", "/health")
    engine.connection.request("POST", "/v1/completions", json.dumps({"prompt": "a b c d", "stream": True}))
    response = engine.connection.getresponse()
    began = response.readline()
    engine.process.send_signal(signal.SIGTERM)
    rest = response.read().decode()
    assert "[m]" in began.decode()
    assert rest.endswith("data: [DONE]\n\n")
    assert engine.process.wait(60) == 0
    idle.connection.close()


def test_several_terms_at_once_meet_no_handler(engine: Client) -> None:
    """Slurm, Apptainer and the wrapper each pass one on within a millisecond; in a handler two of them deadlocked."""
    status = Path(f"/proc/{engine.process.pid}/status").read_text()
    (caught,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    assert not caught >> (signal.SIGTERM - 1) & 1


def test_a_client_that_leaves_does_no_harm(launch: Start) -> None:
    engine = launch("--token-delay", "0.05")
    leaving = Client(engine.process, engine.port)
    leaving.connection.request(
        "POST", "/v1/completions", json.dumps({"prompt": "x " * 50, "max_tokens": 50, "stream": True})
    )
    leaving.connection.getresponse().close()
    leaving.connection.close()
    deadline = time.monotonic() + 60
    while 'num_requests_running{engine="0",model_name="m"} 0.0' not in engine.raw("GET", "/metrics")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert engine.post("/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200

"""contract.md: /api/v1/vllm, and "Prompt": every case of its table."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from api_servers import RunningEngine
from api_world import ENGINE, World, condition

from api.contract.status import Truth
from api.web.replicas import ReadyReplica, choose
from tests.doors import listening
from tests.ports import free_port

VLLM = "/api/v1/vllm"
StartEngine = Callable[..., RunningEngine]


async def ready_service(world: World, *engines: RunningEngine, **rest: Any) -> str:
    """Create a service whose replicas are these engines."""
    service = await world.create(config={"replicas": len(engines)}, **rest)
    await world.observe(service, available=True, reason="AsWanted")
    for number, engine in enumerate(engines):
        await world.endpoint(service, "127.0.0.1", engine.port, token=engine.token, replica=number)
    return service


async def ask(world: World, service: str, prompt: Any = "hi there", **rest: Any) -> Any:
    answer = await world.post(f"{VLLM}/{service}/prompt", {"prompt": prompt, **rest})
    assert answer.status_code == 200, answer.text
    return answer.json()


@asynccontextmanager
async def upstream(
    answer: Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[RunningEngine]:
    """Serve as an engine that answers the whole request it was sent in any way it likes."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
        try:
            await answer(head + await reader.readexactly(length), reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield RunningEngine(server.sockets[0].getsockname()[1], "af-inst22-upstream-0-1")
    server.close()


def respond(status: int, content: Any, seen: list[bytes] | None = None) -> Any:
    async def answer(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if seen is not None:
            seen.append(request)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()

    return answer


# GET /api/v1/vllm/services


async def test_list_has_vllm_services_only(world: World) -> None:
    await world.create("simple/hello")
    unseen = await world.create(ENGINE, name="unseen")
    seen = await world.create("engine", name="seen")
    other = await world.create("simple/hello")
    await world.observe(other)
    await world.observe(seen, available=True, reason="AsWanted")
    await world.endpoint(seen, "n1", 8000, token="af-x-y-0-1")
    answer = await world.get(f"{VLLM}/services")
    assert answer.status_code == 200
    assert answer.json() == {
        "vllm_services": [
            {"id": unseen, "name": "unseen", "recipe_name": ENGINE, "endpoint": None, "status": "pending"},
            {"id": seen, "name": "seen", "recipe_name": "engine", "endpoint": "http://n1:8000", "status": "running"},
        ]
    }


async def test_list_shows_no_endpoint_of_what_is_stopped(world: World) -> None:
    service = await world.create()
    await world.observe(service, available=True)
    await world.endpoint(service, "n1", 8000, token="af-x-y-0-1")
    token = await world.attempt(service, job_id=7)
    await world.delete(f"/api/v1/services/{service}")
    shown = (await world.get(f"{VLLM}/services")).json()["vllm_services"]
    assert [(one["endpoint"], one["status"]) for one in shown] == [(None, "cancelled")]
    await world.end(token)
    assert (await world.get(f"{VLLM}/services")).json() == {"vllm_services": []}


# GET /api/v1/vllm/{id}/models


async def test_models(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine())
    assert (await world.get(f"{VLLM}/{service}/models")).json() == {
        "success": True,
        "models": ["dummy"],
        "service_id": service,
        "endpoint": f"http://127.0.0.1:{engine().port}",
    }


async def test_models_of_a_service_that_is_not_ready(world: World) -> None:
    service = await world.create()
    assert (await world.get(f"{VLLM}/{service}/models")).json() == {
        "success": False,
        "error": "Service is not ready yet (status: pending)",
        "message": "The vLLM service is still starting up. Please wait a moment and try again.",
        "service_id": service,
        "status": "pending",
        "models": [],
    }


async def test_models_of_an_unknown_service(world: World) -> None:
    answer = await world.get(f"{VLLM}/999/models")
    assert answer.status_code == 200
    assert answer.json() == {
        "success": False,
        "error": "Service not found",
        "message": "There is no vLLM service 999.",
        "service_id": "999",
        "status": "unknown",
        "models": [],
    }


@pytest.mark.parametrize("content", [b"<html>", {}, {"data": 5}, [], None])
async def test_models_when_the_engine_answers_something_else(world: World, content: Any) -> None:
    async with upstream(respond(200, content)) as engine:
        answer = (await world.get(f"{VLLM}/{await ready_service(world, engine)}/models")).json()
    assert (answer["success"], answer["models"], answer["status"]) == (False, [], "running")


async def test_models_when_nothing_listens_or_the_engine_fails(world: World) -> None:
    gone = await ready_service(world, RunningEngine(free_port(), "af-x-y-0-1"))
    answer = (await world.get(f"{VLLM}/{gone}/models")).json()
    assert (answer["success"], answer["error"], answer["models"]) == (False, "Service not available", [])
    assert answer["message"]
    async with upstream(respond(500, {"error": "x"})) as engine:
        answer = (await world.get(f"{VLLM}/{await ready_service(world, engine)}/models")).json()
    assert (answer["success"], answer["error"], answer["models"]) == (False, "vLLM returned 500", [])


# POST /api/v1/vllm/{id}/prompt


async def test_answered(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine())
    assert await ask(world, service, "hi there") == {
        "success": True,
        "response": "[dummy] echo: hi there",
        "service_id": service,
        "endpoint": f"http://127.0.0.1:{engine().port}",
        "endpoint_used": "chat",
        "usage": {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6},
    }


async def test_answered_by_one_of_several_replicas(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine(), engine("--token-delay", "0"))
    seen = {(await ask(world, service))["routed_to"] for _ in range(40)}
    assert seen == {f"{service}-0", f"{service}-1"}


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": None}, {"max_tokens": 5}, {"messages": []}])
async def test_prompt_is_required_and_checked_before_the_id(world: World, body: Any) -> None:
    for service in ("999", await world.create()):
        answer = await world.post(f"{VLLM}/{service}/prompt", body)
        assert (answer.status_code, answer.json()) == (400, {"detail": "Prompt is required"})


@pytest.mark.parametrize("body", [[], "prompt", 5, None, True, b"", b"{", b"\xff", b'{"prompt": NaN}', b"[" * 99999])
async def test_body_is_not_an_object(world: World, body: Any) -> None:
    answer = await world.post(f"{VLLM}/999/prompt", body)
    assert answer.status_code == 422
    assert set(answer.json()["detail"][0]) >= {"loc", "msg", "type"}


@pytest.mark.parametrize("prompt", [5, 0, False, ["a"], [], {}, {"a": 1}])
async def test_prompt_that_is_no_string(world: World, prompt: Any) -> None:
    answer = await world.post(f"{VLLM}/999/prompt", {"prompt": prompt})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "prompt"]
    assert answer.json()["detail"][0]["type"] == "string_type"


async def test_model_that_is_no_string(world: World) -> None:
    answer = await world.post(f"{VLLM}/999/prompt", {"prompt": "hi", "model": 5})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "model"])


async def test_unknown_id(world: World) -> None:
    answer = await world.post(f"{VLLM}/999/prompt", {"prompt": "hi"})
    assert (answer.status_code, answer.json()) == (500, {"detail": "VLLM service 999 not found or not running"})


async def test_a_service_that_is_no_vllm_is_no_vllm_service(world: World) -> None:
    service = await world.create("simple/hello")
    answer = await world.post(f"{VLLM}/{service}/prompt", {"prompt": "hi"})
    assert answer.status_code == 500
    assert answer.json() == {"detail": f"VLLM service {service} not found or not running"}
    assert (await world.get(f"{VLLM}/{service}/models")).json()["status"] == "unknown"


@pytest.mark.parametrize(
    ("reason", "status"), [("Queued", "pending"), ("BuildingImage", "building"), ("Starting", "starting")]
)
async def test_not_ready(world: World, reason: str, status: str) -> None:
    service = await world.create()
    await world.observe(service, reason=reason, message="a reason")
    assert await ask(world, service) == {
        "success": False,
        "error": f"Service is not ready yet (status: {status})",
        "message": "The vLLM service is still starting up. Please wait a moment and try again.",
        "service_id": service,
        "status": status,
        "endpoint": None,
    }


async def test_an_unready_endpoint_is_not_asked(world: World, engine: StartEngine) -> None:
    service = await world.create()
    await world.observe(service, reason="Starting")
    await world.endpoint(service, "127.0.0.1", engine().port, token=engine().token, state="unready")
    assert (await ask(world, service))["endpoint"] is None


async def test_an_ended_service_says_why(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine())
    await world.status(service, [condition("Progressing", Truth.FALSE, "Failed", "It ran out of memory.")])
    await world.delete(f"/api/v1/services/{service}")
    answer = await ask(world, service)
    assert answer["status"] == "cancelled"
    assert answer["error"] == "Service is not ready yet (status: cancelled)"
    assert answer["message"] == "It ran out of memory."


async def test_nothing_listens_any_more(world: World) -> None:
    service = await ready_service(world, RunningEngine(free_port(), "af-x-y-0-1"))
    answer = await ask(world, service)
    assert set(answer) == {"success", "error", "message", "technical_details"}
    assert (answer["success"], answer["error"]) == (False, "Service not available")
    assert answer["message"]
    assert answer["technical_details"]


async def test_another_replica_is_asked_when_one_refuses(world: World, engine: StartEngine) -> None:
    dead = RunningEngine(free_port(), "af-x-y-0-1")
    service = await ready_service(world, dead, engine(), dead_two := RunningEngine(free_port(), "af-x-y-2-1"))
    assert dead_two
    for _ in range(10):
        answer = await ask(world, service)
        assert (answer["success"], answer["routed_to"]) == (True, f"{service}-1")


async def test_an_answer_that_breaks_off_is_asked_for_once_more(world: World) -> None:
    """No byte of it had come, and a generation changes nothing in an engine."""
    asked = 0

    async def break_off(*_: Any) -> None:
        nonlocal asked
        asked += 1

    async with upstream(break_off) as one, upstream(break_off) as two, upstream(break_off) as three:
        two.token, three.token = "af-inst22-upstream-1-1", "af-inst22-upstream-2-1"
        answer = await ask(world, await ready_service(world, one, two, three))
    assert answer["error"] == "Service not available"
    assert asked == 2


async def test_another_replica_answers_where_one_is_busy(world: World, engine: StartEngine) -> None:
    async with upstream(respond(503, {"error": "full"})) as busy:
        service = await ready_service(world, busy, engine())
        assert {(await ask(world, service))["routed_to"] for _ in range(10)} == {f"{service}-1"}


async def test_vllm_answers_an_error(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine("--fail-prompts"))
    answer = await ask(world, service)
    body = answer.pop("body")
    assert "EngineCore" in json.dumps(body)
    assert answer == {
        "success": False,
        "error": "vLLM returned 500",
        "endpoint": f"http://127.0.0.1:{engine('--fail-prompts').port}",
        "status_code": 500,
    }


async def test_vllm_refuses_a_field(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine())
    refused = await ask(world, service, max_tokens=-5)
    assert (refused["error"], refused["status_code"]) == ("vLLM returned 400", 400)
    assert "max_tokens" in json.dumps(refused["body"])
    unknown = await ask(world, service, model="other")
    assert (unknown["error"], unknown["status_code"]) == ("vLLM returned 404", 404)


async def test_an_error_that_is_no_json(world: World) -> None:
    async with upstream(respond(502, b"<h1>Bad \xff Gateway</h1>")) as engine:
        answer = await ask(world, await ready_service(world, engine))
    assert (answer["error"], answer["body"]) == ("vLLM returned 502", "<h1>Bad \ufffd Gateway</h1>")


async def test_no_choices_in_the_answer(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine("--empty-choices"))
    answer = await ask(world, service)
    assert answer.pop("raw_response")["choices"] == []
    assert answer == {
        "success": False,
        "error": "No response generated",
        "endpoint": f"http://127.0.0.1:{engine('--empty-choices').port}",
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", [], None, 5, {}, {"choices": None}, {"choices": {}}, {"choices": [], "usage": 5}],
    ids=repr,
)
async def test_answers_of_another_shape_have_no_choices(world: World, content: Any) -> None:
    async with upstream(respond(200, content)) as engine:
        answer = await ask(world, await ready_service(world, engine))
    assert answer["error"] == "No response generated"
    assert isinstance(answer["raw_response"], dict)


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("text", [None, "Paris."])
async def test_an_answer_that_is_all_reasoning_says_so(world: World, key: str, text: str | None) -> None:
    """The words are the contract's, to the byte; what is more stands only where there is no text."""
    choice = {"message": {"role": "assistant", "content": text, key: "Hm."}, "finish_reason": "length"}
    async with upstream(respond(200, {"choices": [choice]})) as engine:
        answer = await ask(world, await ready_service(world, engine))
    assert (answer["success"], answer["response"]) == (True, text or "")
    more = {key: answer[key] for key in set(answer) - CONTRACT_KEYS}
    why = "The model spent all of its tokens on reasoning, and did not come to an answer. Give it more: max_tokens."
    assert more == ({} if text else {"finish_reason": "length", "reasoning": "Hm.", "message": why})


CONTRACT_KEYS = {"success", "response", "service_id", "endpoint", "endpoint_used", "usage"}


@pytest.mark.parametrize(
    "choice", [None, 5, {}, {"message": None}, {"message": {"content": None}}, {"message": {"content": [1]}}], ids=repr
)
async def test_choices_of_another_shape_have_no_text(world: World, choice: Any) -> None:
    async with upstream(respond(200, {"choices": [choice], "usage": {"prompt_tokens": None}})) as engine:
        answer = await ask(world, await ready_service(world, engine))
    assert (answer["success"], answer["response"]) == (True, "")
    assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


async def test_a_model_without_a_chat_template(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine("--no-chat-template"))
    answer = await ask(world, service, "hi there")
    assert (answer["success"], answer["endpoint_used"]) == (True, "completions")
    assert answer["response"] == "[dummy] echo: hi there"
    assert answer["usage"]["total_tokens"] == 6


async def test_the_missing_template_is_remembered_for_this_launch(world: World) -> None:
    seen: list[bytes] = []

    async def answer(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = "As of transformers v4.44, default chat template is no longer allowed, so you must provide one."
        told = (400, {"error": {"message": words}}) if b"/chat/" in request else (200, {"choices": [{"text": "ok"}]})
        await respond(*told, seen)(request, reader, writer)

    async with upstream(answer) as engine:
        service = await ready_service(world, engine)
        for _ in range(3):
            assert (await ask(world, service))["response"] == "ok"
        paths = [request.split(b" ")[1] for request in seen]
        assert paths == [b"/v1/chat/completions"] + [b"/v1/completions"] * 3
        await world.status(service, [condition("Available", Truth.TRUE, "x")], digest="another launch")
        await ask(world, service)
        assert [request.split(b" ")[1] for request in seen][4:] == [b"/v1/chat/completions", b"/v1/completions"]


async def test_another_400_is_no_missing_template(world: World) -> None:
    refusal = {"error": {"message": "Chat template is passed with request, but --trust-request-chat-template is off."}}
    async with upstream(respond(400, refusal)) as engine:
        answer = await ask(world, await ready_service(world, engine), chat_template="x")
    assert (answer["error"], answer["body"]) == ("vLLM returned 400", refusal)


async def test_what_is_sent_to_the_engine(world: World) -> None:
    seen: list[bytes] = []
    async with upstream(respond(200, {"choices": [{"message": {"content": "ok"}}]}, seen)) as engine:
        service = await ready_service(world, engine)
        await ask(world, service, "hi", stream=False, stream_options={"include_usage": True})
        await ask(world, service, "hi", max_tokens=7, temperature=0, model="mine", top_p=0.5, stop=["\n"], seed=2**80)
    heads, bodies = zip(*(request.split(b"\r\n\r\n", 1) for request in seen), strict=True)
    assert f"Bearer {world.secret(engine.token)}".encode() in heads[0]
    assert json.loads(bodies[0]) == {
        "max_tokens": 150,
        "temperature": 0.7,
        "model": "dummy",
        "messages": [{"role": "user", "content": "hi"}],
    }
    assert json.loads(bodies[1]) == {
        "max_tokens": 7,
        "temperature": 0,
        "model": "mine",
        "top_p": 0.5,
        "stop": ["\n"],
        "seed": 2**80,
        "messages": [{"role": "user", "content": "hi"}],
    }


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
REFUSED = [
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages"),
    ({"messages": MESSAGES, "prompt": "hi"}, "messages"),
    ({"messages": MESSAGES, "system": "Be kind."}, "system"),
    ({"prompt": "hi", "system": 5}, "system"),
    ({"prompt": "hi", "stream": "yes"}, "stream"),
    ({"prompt": "hi", "stream_options": {"continuous_usage_stats": True}}, "stream_options"),
    ({"prompt": "hi", "n": "2"}, "n"),
    ({"prompt": "hi", "n": True}, "n"),
]


@pytest.mark.parametrize("asked", [{"messages": MESSAGES}, {"prompt": "hi", "system": "Be brief."}])
async def test_a_conversation(world: World, asked: dict[str, Any]) -> None:
    seen: list[bytes] = []
    async with upstream(respond(200, {"choices": [{"message": {"content": "ok"}}]}, seen)) as engine:
        service = await ready_service(world, engine)
        answer = await world.post(f"{VLLM}/{service}/prompt", asked)
    assert answer.json()["response"] == "ok"
    sent = json.loads(seen[0].partition(b"\r\n\r\n")[2])
    assert (sent["messages"], "system" in sent, "prompt" in sent) == (MESSAGES, False, False)


@pytest.mark.parametrize(("asked", "key"), REFUSED)
async def test_what_can_not_be_done_is_refused(world: World, asked: dict[str, Any], key: str) -> None:
    answer = await world.post(f"{VLLM}/999/prompt", asked)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", key])


async def test_a_conversation_is_nothing_to_complete(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine("--no-chat-template"))
    answer = (await world.post(f"{VLLM}/{service}/prompt", {"messages": MESSAGES})).json()
    assert (answer["success"], answer["error"]) == (False, "vLLM returned 400")
    assert "chat template" in json.dumps(answer["body"])


@pytest.mark.parametrize("wider", [{"n": 2}, {"logprobs": True}, {"tools": [{"type": "function"}]}])
async def test_all_that_is_asked_for_is_told(world: World, wider: dict[str, Any]) -> None:
    choices = [{"message": {"content": text}} for text in ("one", "two")]
    async with upstream(respond(200, {"choices": choices})) as engine:
        service = await ready_service(world, engine)
        answer = await ask(world, service, **wider)
        assert (answer["response"], answer["choices"]) == ("one", choices)
        assert "choices" not in await ask(world, service, n=1)
        streamed = await world.post(f"{VLLM}/{service}/prompt", {"prompt": "hi", "stream": True, **wider})
    assert (streamed.status_code, "bit by bit" in streamed.json()["detail"][0]["msg"]) == (422, True)


async def test_an_engine_fetches_nothing_for_a_conversation(world: World) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    messages = [{"role": "user", "content": [part]}]
    answer = await world.post(f"{VLLM}/999/prompt", {"messages": messages})
    assert (answer.status_code, "gateway.media_hosts" in answer.json()["detail"]) == (400, True)


async def test_prompts_keep_the_connections_that_all_share(world: World, engine: StartEngine) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            body = b'{"data": [], "choices": [{"text": "ok"}]}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with listening(serve) as port:
        service = await ready_service(world, RunningEngine(port, "af-inst22-kept-0-1"))
        await ask(world, service)
        await world.get(f"{VLLM}/{service}/models")
        await world.get(f"/api/v1/services/{service}/metrics")
        await ask(world, service)
    assert connections == 1


async def test_the_secret_is_in_no_answer(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine())
    for answer in (
        await world.get(f"{VLLM}/services"),
        await world.get(f"{VLLM}/{service}/models"),
        await world.get(f"/api/v1/services/{service}"),
        await world.post(f"{VLLM}/{service}/prompt", {"prompt": "hi"}),
    ):
        assert world.secret(engine().token) not in answer.text


async def test_a_process_that_does_not_know_the_secret_is_found_out(world: World, engine: StartEngine) -> None:
    stranger = RunningEngine(engine().port, "af-inst22-other-0-1")
    assert (await ask(world, await ready_service(world, stranger)))["error"] == "vLLM returned 401"


async def test_a_client_that_leaves_ends_the_generation(world: World) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def generate(_: bytes, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        begun.set()
        assert await reader.read() == b""
        ended.set()

    async with upstream(generate) as engine:
        service = await ready_service(world, engine)
        messages = [{"type": "http.request", "body": b'{"prompt": "hi"}', "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            return

        path = f"{VLLM}/{service}/prompt"
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
        }
        await asyncio.wait_for(world._served(scope, receive, send), 60)
        await asyncio.wait_for(ended.wait(), 60)


async def test_an_answer_that_takes_too_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.gateway.engines.READ_SECONDS", 0.1)

    async def sleep(_: bytes, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(sleep) as engine:
        answer = await ask(world, await ready_service(world, engine))
    assert answer["error"] == "Service not available"
    assert "nothing came for 0.1 s" in answer["technical_details"]


@pytest.mark.parametrize("prompt", ["\0", "😀" * 1000, "$(id)", "--help", '"\\', "\u2028", "x" * 500_000])
async def test_prompts_go_through_as_they_are(world: World, engine: StartEngine, prompt: str) -> None:
    service = await ready_service(world, engine())
    assert (await ask(world, service, prompt))["response"] == f"[dummy] echo: {prompt}"


async def test_many_prompts_at_once(world: World, engine: StartEngine) -> None:
    service = await ready_service(world, engine())
    answers = await asyncio.gather(*(ask(world, service, f"number {i}") for i in range(100)))
    assert [answer["response"] for answer in answers] == [f"[dummy] echo: number {i}" for i in range(100)]


async def test_the_environments_proxy_is_not_used(
    world: World, engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    assert (await ask(world, await ready_service(world, engine())))["success"] is True


# Choosing a replica


def replica(token: str) -> ReadyReplica:
    return ReadyReplica(token=token, name=token, models=(), host="h", port=1, door=None)


def test_of_two_drawn_the_one_with_less_in_flight_is_chosen() -> None:
    a, b = replica("a"), replica("b")
    for seed in range(20):
        assert choose([a, b], {"a": 3, "b": 2}, random.Random(seed)) is b
        assert choose([a], {"a": 99}, random.Random(seed)) is a


def test_load_spreads() -> None:
    replicas = [replica(str(number)) for number in range(10)]
    draw, in_flight = random.Random(1), Counter[str]()
    for _ in range(1000):
        in_flight[choose(replicas, in_flight, draw).token] += 1
    assert max(in_flight.values()) - min(in_flight.values()) <= 6


@pytest.mark.parametrize("body", [b"[" + b"[]," * 1_300_000 + b"[]]", b" " * 5_000_000])
async def test_an_answer_that_is_too_large_is_not_decoded(world: World, body: bytes) -> None:
    async with upstream(respond(200, body)) as engine:
        answer = await ask(world, await ready_service(world, engine))
    assert answer["success"] is False
    assert isinstance(answer.get("raw_response", {"text": ""})["text"], str)


async def test_an_answer_in_crumbs_is_as_long_as_what_carries_them(world: World) -> None:
    async def answer(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(90):
            writer.write(b"1\r\n \r\n" * 8192)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with upstream(answer) as engine:
        told = await ask(world, await ready_service(world, engine))
    assert "longer than 4,194,304 bytes" in told["technical_details"]


async def test_an_answer_that_is_compressed_is_not_read(world: World) -> None:
    async def answer(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with upstream(answer) as engine:
        told = await ask(world, await ready_service(world, engine))
    assert (told["error"], "is compressed" in told["technical_details"]) == ("Service not available", True)


async def test_a_streamed_line_without_end_ends_the_answer(world: World) -> None:
    async with upstream(respond(200, b"data: " + b"x" * 1_000_000)) as engine:
        service = await ready_service(world, engine)
        answer = await world.post(f"{VLLM}/{service}/prompt?stream=true", {"prompt": "hi"})
    assert "a line of its answer is longer than 262,144 bytes" in answer.text


@pytest.mark.parametrize(
    "text",
    [b"a 1\n" * 20_001, b"a{" + b'b="",' * 1000 + b"} 1\n", b"a 1\n" * 1_000_000],
    ids=["lines", "a long line", "bytes"],
)
async def test_figures_that_are_too_many_are_left_out_and_that_is_told(world: World, text: bytes) -> None:
    async with upstream(respond(200, text)) as engine:
        service = await ready_service(world, engine)
        told = (await world.get(f"/api/v1/services/{service}/metrics")).text
    assert 'ai_factory_service_engine_up{replica="0"} 0.0' in told
    assert not re.search(r"^a[ {]", told, re.MULTILINE), "nothing of it is left"

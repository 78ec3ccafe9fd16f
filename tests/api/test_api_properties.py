"""Whatever is sent, no answer is a 5xx but the one that the contract names, and none has another shape than it says."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema
import pytest
import schemathesis
from api_servers import LiveServer
from api_world import World
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import response_schema_conformance

from api.http import documents
from api.http.openapi import Operation
from tests.examples import examples

pytestmark = pytest.mark.hypothesis

MANY = settings(max_examples=examples(15), suppress_health_check=list(HealthCheck))
FEW = settings(max_examples=examples(5), suppress_health_check=list(HealthCheck))

NASTY = st.sampled_from(
    [
        *("", " ", "\0", "'", '"', "\\", "$(id)", "`id`", "--help", "-", "\n", "\r\n", "..", "/", "%", "%00", "{", "}"),
        *(
            "😀",
            "é",
            "\u2028",
            "\u202e",
            "\ufeff",
            "x" * 10_000,
            "NaN",
            "null",
            "inference/engine",
            "engine",
            "-1",
            "1e9",
        ),
    ]
)
TEXTS = NASTY | st.text(max_size=30) | st.builds(lambda a, b: a + b, NASTY, st.text(max_size=5))
NUMBERS = st.integers() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**40, -(10**40)]) | st.floats(allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
KNOWN_KEYS = st.sampled_from(
    [
        *("nodes", "replicas", "model", "cpu", "cpus", "memory", "gpu", "time", "time_limit", "max_model_len"),
        *("resources", "environment", "environment_from", "parameters", "partition", "command", "image", "extra_args"),
    ]
)
RESOURCES = st.dictionaries(
    st.sampled_from(["nodes", "cpu", "memory", "gpu", "time_limit", "partition", "gres", "extra_options"]) | TEXTS,
    st.sampled_from([1, "1", "16G", "1:00:00", "gpu:1", ["--exclusive"], ["--wrap=id"]]) | JSON,
    max_size=3,
)
CONFIGS = st.dictionaries(KNOWN_KEYS | TEXTS, RESOURCES | JSON, max_size=4)
REQUESTS = st.fixed_dictionaries(
    {"recipe_name": st.sampled_from(["inference/engine", "engine", "simple/hello", "simple/broken"]) | JSON},
    optional={"config": CONFIGS | JSON, "name": st.from_regex(r"[a-z0-9-]{1,3}", fullmatch=True) | JSON, "nodes": JSON},
)
BODIES = (
    REQUESTS.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=50)
)
SCHEMAS = documents.contract()["components"]["schemas"]


def conforms(name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)


def refused(answer: httpx.Response, *codes: int) -> None:
    """Assert that it is a refusal that says what is wrong."""
    assert answer.status_code in codes, (answer.status_code, answer.text)
    if answer.status_code == 422:
        conforms("HTTPValidationError", answer.json())
        assert answer.json()["detail"]
    else:
        assert isinstance(answer.json()["detail"], str)
        assert answer.json()["detail"]


@given(body=BODIES)
@example(body=b"[" * 100_000)
@example(body=b'{"recipe_name":' * 50_000)
@example(body=b'{"recipe_name":"engine","config":{"a":' + b"9" * 4000 + b"}}")
@example(body=b'{"recipe_name":"engine","config":{"nodes":1e308,"memory":1e308,"replicas":1e308,"time":1e308}}')
@example(body=b'{"recipe_name":"engine","config":' + b'{"a":' * 62 + b"1" + b"}" * 62 + b"}")
@MANY
async def test_create(world: World, body: bytes) -> None:
    answer = await world.post("/api/v1/services", body)
    if answer.status_code != 200:
        return refused(answer, 400, 404, 409, 422)
    created = answer.json()
    conforms("ServiceResponse", created)
    created.pop("warnings", None)  # for who has just written it
    assert created["status"] == "pending"
    assert created["config"] == {"nodes": 1, **json.loads(body).get("config", {})}
    shown = await world.get(f"/api/v1/services/{created['id']}")
    assert shown.json() == created
    listed = await world.get("/api/v1/services")
    assert listed.json()[-1] == created
    stopped = await world.delete(f"/api/v1/services/{created['name']}")
    assert stopped.status_code == 200
    return None


@given(body=BODIES, key=st.sampled_from(["999", "ready", "pending", "hello"]))
@MANY
async def test_prompt(folder_world: World, body: bytes, key: str) -> None:
    answer = await folder_world.post(f"/api/v1/vllm/{key}/prompt", body)
    if answer.status_code == 500:
        assert answer.json() == {"detail": f"VLLM service {key} not found or not running"}
        assert key in ("999", "hello")
    elif answer.status_code == 200:
        assert answer.json()["success"] is False
    else:
        refused(answer, 400, 422)


@given(
    fields=st.dictionaries(st.sampled_from(["max_tokens", "temperature", "stream", "messages", "n"]) | TEXTS, JSON),
    key=st.sampled_from(["999", "ready", "pending"]),
    prompt=TEXTS,
)
@FEW
async def test_prompt_with_any_fields(folder_world: World, fields: dict[str, Any], key: str, prompt: str) -> None:
    answer = await folder_world.post(f"/api/v1/vllm/{key}/prompt", {**fields, "prompt": prompt})
    if answer.status_code == 422:  # e.g. for an infinite number, which is no JSON
        assert prompt or "Infinity" in json.dumps(fields)
        refused(answer, 422)
    elif not prompt:
        assert answer.status_code == 400
    else:
        assert answer.status_code == (500 if key == "999" else 200)


@given(key=TEXTS)
@MANY
async def test_keys(world: World, key: str) -> None:
    path = quote(key, safe="")
    if "/" in key or key in ("", ".", ".."):
        return
    refused(await world.get(f"/api/v1/services/{path}"), 404)
    refused(await world.delete(f"/api/v1/services/{path}"), 404)
    assert (await world.get(f"/api/v1/services/{path}/status")).json() == {"status": "unknown"}
    logs = await world.get(f"/api/v1/services/{path}/logs")
    assert (logs.status_code, list(logs.json())) == (200, ["logs"])
    models = await world.get(f"/api/v1/vllm/{path}/models")
    assert (models.status_code, models.json()["success"]) == (200, False)
    prompt = await world.post(f"/api/v1/vllm/{path}/prompt", {"prompt": "x"})
    assert (prompt.status_code, prompt.json()["detail"][:12]) == (500, "VLLM service")


@given(path=st.lists(TEXTS, max_size=5).map(lambda parts: "/".join(quote(part, safe="") for part in parts)))
@MANY
async def test_paths(world: World, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"):
        for beginning in ("/", "/api/v1/recipes/", "/api/v1/services/", "/api/v1/vllm/"):
            if beginning == "/" and path.startswith("/"):
                continue
            answer = await world.client.request(method, beginning + path, content=b"{}")
            assert answer.status_code in (200, 204, 404, 405, 422) or (
                answer.status_code in (400, 409, 500) and beginning in ("/api/v1/vllm/", "/api/v1/recipes/")
            ), (method, beginning + path, answer.text)


@given(
    headers=st.dictionaries(
        st.sampled_from(["Content-Type", "Authorization", "Host", "Origin", "X-Request-ID", "Accept", "Cookie"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20).map(lambda t: t.encode("latin-1")),
    )
)
@MANY
async def test_headers(world: World, headers: dict[str, bytes]) -> None:
    answer = await world.post("/api/v1/services", {"recipe_name": "engine"}, headers=headers)
    assert answer.status_code in (200, 400, 403)
    assert answer.headers["x-request-id"]


@pytest.fixture
async def folder_world(world: World) -> World:
    """A world with a vLLM service whose engine is gone, one that is pending, and one that is no vLLM."""
    ready = await world.create(name="ready")
    await world.observe(ready, available=True, reason="AsWanted")
    await world.endpoint(ready, "127.0.0.1", 1, token="af-x-y-0-1")
    await world.create(name="pending")
    await world.create("simple/hello", name="hello")
    return world


# The document itself, against the program itself: schemathesis makes what it allows and what it does not.


def check(live: LiveServer, document: dict[str, Any], operation: Operation) -> None:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=live.url)
    described = schema[operation.path][operation.method.upper()]

    @given(case=described.as_strategy() | described.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @FEW
    def keeps(case: Any) -> None:
        if operation.media_type == "text/event-stream":
            case.query = {**(case.query if isinstance(case.query, dict) else {}), "timeout": "0.05"}
        answer = case.call()
        assert answer.status_code < 500 or (answer.status_code == 500 and operation.name == "prompt_vllm_service")
        if answer.status_code == 200:
            assert answer.headers["content-type"][0].startswith(operation.media_type)
        else:
            assert answer.headers["content-type"] == ["application/json"]
            assert answer.json()["detail"]
        if answer.status_code == 422 or (answer.status_code == 200 and operation.media_type == "application/json"):
            case.validate_response(answer, checks=[response_schema_conformance])

    keeps()


@pytest.mark.parametrize("operation", documents.OPERATIONS, ids=lambda operation: operation.operation_id)
def test_the_program_keeps_to_its_document(live: LiveServer, operation: Operation) -> None:
    check(live, documents.contract(), operation)


@pytest.mark.parametrize("operation", documents.operations(), ids=lambda operation: operation.operation_id)
def test_the_program_keeps_to_its_extended_document(live: LiveServer, operation: Operation) -> None:
    check(live, documents.extended(), operation)


@given(body=JSON | REQUESTS, key=st.sampled_from(["999", "ready", "pending", "hello"]), tag=TEXTS | st.none())
@MANY
async def test_patches(folder_world: World, body: Any, key: str, tag: str | None) -> None:
    headers = (
        {} if tag is None else {"If-Match": tag.encode("utf-8", "replace").replace(b"\n", b"").replace(b"\r", b"")}
    )
    patch = body if not isinstance(body, dict) else {k: v for k, v in body.items() if k not in ("recipe_name", "name")}
    path = f"/api/v1/services/{key}"
    answer = await folder_world.client.patch(path, content=json.dumps(patch).encode(), headers=headers)
    if answer.status_code != 200:
        return refused(answer, 400, 404, 412, 413, 422)
    changed = answer.json()
    conforms("ServiceResponse", changed)
    changed.pop("warnings", None)  # for who has just written it
    assert (await folder_world.get(path)).json() == changed
    return None


@given(
    path=st.sampled_from(["", "/ready/events", "/ready/attempts", "/ready/conditions", "/ready/logs"]),
    query=st.dictionaries(
        st.sampled_from(
            [
                "status",
                "recipe",
                "name",
                "ready",
                "deleted",
                "sort",
                "limit",
                "after",
                "tail",
                "type",
                "reason",
                "replica",
            ]
        ),
        TEXTS.filter(lambda text: len(text) < 1000) | st.sampled_from(["1", "true", "running", "-name", "Warning"]),
        max_size=4,
    ),
)
@MANY
async def test_queries(folder_world: World, path: str, query: dict[str, str]) -> None:
    answer = await folder_world.get(f"/api/v1/services{path}", params=query)
    if answer.status_code != 200:
        refused(answer, 422)


@given(header=TEXTS.filter(lambda text: "\n" not in text and "\r" not in text))
@MANY
async def test_idempotency_keys(world: World, header: str) -> None:
    headers = {"Idempotency-Key": header.encode()}
    first = await world.post("/api/v1/services", {"recipe_name": "engine"}, headers=headers)
    if first.status_code != 200:
        return refused(first, 422)
    assert (await world.post("/api/v1/services", {"recipe_name": "engine"}, headers=headers)).json() == first.json()
    return None

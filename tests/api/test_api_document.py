"""contract.md, "Rules": the served document says what rest-api.md says, no more and no less."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from api_world import ENGINE, HERE, World
from litestar.routes import HTTPRoute

from api.http import documents
from api.http.prompt_requests import DEFAULTS
from api.web.errors import NAMES_REQUEST
from tests.pages import ROOT

Described = dict[str, Any]


def parse_rest_api(text: str) -> Described:
    """Read rest-api.md into the shape that `reduce_document` gives a served document."""
    title, description = re.match(r"# (.+)\n\n(.+)\n", text).groups()  # type: ignore[union-attr]
    paths: dict[str, Any] = {}
    for path, section in sections(r"^### `(.+)`$", text):
        paths[path] = {method: parse_operation(part) for method, part in sections(r"^#### (\w+)$", section)}
    name, version = title.rsplit(" ", 1)
    return {"title": name, "version": version, "description": description, "paths": paths}


def sections(heading: str, text: str) -> list[tuple[str, str]]:
    parts = re.split(heading, text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def parse_operation(text: str) -> Described:
    head, _, responses = text.partition("**Responses:**")
    head, _, body = head.partition("**Request Body:**")
    head, _, table = head.partition("**Parameters:**")
    summary, description = re.search(r"\*\*Summary:\*\* (.+?)\n\s*(.+?)\s*\Z", head, re.DOTALL).groups()  # type: ignore[union-attr]
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (True|False) \| `(.+?)` \| (.*?) ?\|$", table, re.MULTILINE)
    return {
        "summary": summary,
        "description": description,
        "parameters": [
            {
                "name": name,
                "in": place,
                "required": required == "True",
                "schema": json.loads(schema.replace("<br>", "\n")),
                "description": said,
            }
            for name, place, required, schema, said in rows
        ],
        "body": parse_contents(body),
        "responses": {
            code: {"description": said, "content": parse_contents(part)}
            for (code, said), part in (
                (heading.groups(), part)
                for heading, part in (
                    (re.match(r"(\d+)\*\*: (.+)", part), part) for part in responses.split("- **")[1:]
                )
                if heading
            )
        },
    }


def parse_contents(text: str) -> Described:
    """Read media types with their schemas; a missing one is any JSON."""
    contents = {}
    for media_type, part in sections(r"- Content-Type: `(.+)`", text):
        schema = re.search(r"```json\s*(.+?)\s*```", part, re.DOTALL)
        contents[media_type] = json.loads(schema[1]) if schema else {}
    return contents


def reduce_document(document: Described) -> Described:
    """Reduce an OpenAPI document to what rest-api.md tells of one."""
    return {
        **{key: document["info"][key] for key in ("title", "version", "description")},
        "paths": {
            path: {
                method.upper(): {
                    "summary": operation["summary"],
                    "description": operation["description"],
                    "parameters": [{"description": "", **p} for p in operation.get("parameters", [])],
                    "body": contents(operation.get("requestBody", {})),
                    "responses": {
                        code: {"description": response["description"], "content": contents(response)}
                        for code, response in operation["responses"].items()
                    },
                }
                for method, operation in operations.items()
            }
            for path, operations in document["paths"].items()
        },
    }


def contents(holder: Described) -> Described:
    return {media_type: content["schema"] for media_type, content in holder.get("content", {}).items()}


async def test_the_served_document_says_what_the_contract_says(world: World) -> None:
    written = parse_rest_api((HERE / "rest-api.md").read_text())
    assert sum(len(operations) for operations in written["paths"].values()) == 13
    served = (await world.get("/openapi.json")).json()
    assert reduce_document(served) == written
    assert served["openapi"].startswith("3.1")


async def test_the_components_carry_the_contracts_names_and_fields(world: World) -> None:
    schemas = (await world.get("/openapi.json")).json()["components"]["schemas"]
    fields = {name: set(schema["properties"]) for name, schema in schemas.items()}
    assert fields == {
        "RecipeResponse": {"name", "category", "description", "version", "path"},
        "ServiceRequest": {"recipe_name", "config", "name"},
        "ServiceResponse": {"id", "name", "recipe_name", "status", "config", "created_at"},
        "HTTPValidationError": {"detail"},
        "ValidationError": {"loc", "msg", "type"},
    }
    assert schemas["ServiceRequest"]["required"] == ["recipe_name"]
    assert set(schemas["ServiceResponse"]["required"]) == fields["ServiceResponse"]
    assert set(schemas["RecipeResponse"]["required"]) == fields["RecipeResponse"]
    assert set(schemas["ValidationError"]["required"]) == fields["ValidationError"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_operation_ids_are_unique_and_references_lead_somewhere(world: World) -> None:
    for path in ("/openapi.json", "/openapi.extended.json"):
        answer = await world.get(path)
        document = answer.json()
        ids = [o["operationId"] for operations in document["paths"].values() for o in operations.values()]
        assert len(ids) == len(set(ids))
        for reference in re.findall(r'"#/components/schemas/(\w+)"', answer.text):
            assert reference in document["components"]["schemas"]


def schema_of(operation: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an operation's body; empty where it takes none."""
    body = operation.get("requestBody", {"content": {"application/json": {"schema": {}}}})
    return dict(body["content"]["application/json"]["schema"])


async def test_the_extended_document_adds_and_takes_nothing_away(world: World) -> None:
    contract = (await world.get("/openapi.json")).json()
    extended = (await world.get("/openapi.extended.json")).json()
    for path, operations in contract["paths"].items():
        for method, operation in operations.items():
            known = extended["paths"][path][method]
            assert [p for p in known.get("parameters", []) if p["in"] == "path"] == operation.get("parameters", [])
            for part in ("summary", "description", "operationId"):
                assert known.get(part) == operation.get(part), (path, method)
            assert schema_of(known).items() >= schema_of(operation).items(), (path, method)
            assert known["responses"].items() >= operation["responses"].items()
    for name, schema in contract["components"]["schemas"].items():
        assert extended["components"]["schemas"][name]["properties"].items() >= schema["properties"].items()


async def test_the_extended_document_names_what_a_prompt_may_hold(world: World) -> None:
    path = "/api/v1/vllm/{service_id}/prompt"
    documents = [(await world.get(name)).json() for name in ("/openapi.json", "/openapi.extended.json")]
    plain, extended = (
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for document in documents
    )
    assert plain == {"type": "object", "additionalProperties": True, "title": "Request"}
    assert set(extended["properties"]) >= {"prompt", "messages", "system", "model", "stream", *DEFAULTS}
    assert extended["additionalProperties"] is True


def test_refusals_name_the_request_where_the_contract_knows_no_route(world: World) -> None:
    extended = {(o.path, o.method) for o in documents.operations() if o.is_extended}
    routes = [route for route in world.app.routes if isinstance(route, HTTPRoute)]
    naming = {
        (route.path_format, method.lower())
        for route in routes
        for handler in route.route_handlers
        for method in handler.http_methods - {"OPTIONS"}
        if handler.opt.get(NAMES_REQUEST)
    }
    assert naming == extended


async def test_the_extended_document_names_every_field_on_the_wire(world: World) -> None:
    asked = {"recipe_name": ENGINE, "config": {"max_model_length": 1}}
    service = (await world.post("/api/v1/services", asked)).json()
    assert service.keys() - (await world.get(f"/api/v1/services/{service['id']}")).json().keys() == {"warnings"}
    extended = (await world.get("/openapi.extended.json")).json()
    assert set(extended["components"]["schemas"]["ServiceResponse"]["properties"]) == set(service)


@pytest.mark.parametrize("path", ["/docs", "/docs/extended"])
async def test_docs_is_a_page_that_needs_nothing_from_elsewhere(world: World, path: str) -> None:
    for _ in range(2):
        answer = await world.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert "{{" not in answer.text
        assert not re.search(r"https?://|//cdn|@import|src=", answer.text)
        assert "'unsafe-inline'" not in answer.headers["content-security-policy"].split("style-src")[0]


@pytest.mark.parametrize("page", ["README.md", "docs/rest.md"])
def test_it_is_told_where_the_whole_api_is(page: str) -> None:
    text = (ROOT / page).read_text()
    whole = r"(whole API|all of it|all that is served)"
    assert re.search(rf"{whole} is at `/docs/extended`|`/docs/extended` {whole}", text)
    assert not re.search(rf"{whole} is at `/docs`|`/docs` (shows )?{whole}", text)


async def test_answers_are_json_and_carry_a_request_id(world: World) -> None:
    for path in ("/", "/health", "/api/v1/services", "/api/v1/services/nope", "/nope"):
        answer = await world.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert re.fullmatch(r"[a-z0-9]{12}", answer.headers["x-request-id"])
    mine = await world.get("/", headers={"X-Request-ID": "my-id.1"})
    assert mine.headers["x-request-id"] == "my-id.1"
    forged = await world.get("/", headers={"X-Request-ID": "a b\tc"})
    assert forged.headers["x-request-id"] != "a b\tc"


async def test_unknown_paths_and_methods(world: World) -> None:
    for path in ("/nope", "/api/v1", "/api/v1/vllm", "/api/v1/services/a/b/c", "/api/v1/vllm/a"):
        answer = await world.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), path
    for method, path in (("PUT", "/api/v1/services"), ("POST", "/health"), ("PUT", "/api/v1/services/a")):
        answer = await world.client.request(method, path)
        assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"}), path
        assert "GET" in answer.headers["allow"]

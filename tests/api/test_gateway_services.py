"""Any path of a service, under `/services/NAME`: for keys alone, and nothing of it counts for the API's own origin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from api_world import ENGINE, World
from test_api_keys import STRANGER, WRONG, bearer, make
from test_gateway import TOKENS, Engine, add, known, served

from tests.doors import door_context, key_id, listening

HIDDEN = {
    "x-api-key": "secret-1", "cookie": "secret-2", "proxy-authorization": "secret-3", "x-forwarded-for": "secret-4",
    "forwarded": "for=secret-5", "origin": "http://secret-6", "referer": "http://secret-7", "sec-fetch-site": "secret",
    "connection": "close, x-hop", "x-hop": "secret-9", "te": "trailers", "x-http-method-override": "DELETE",
    "x_forwarded_for": "secret-10", "x_hop": "secret-11",
}  # fmt: skip
PEOPLE = {"alice": ("infer", "read", "write"), "bob": ("infer",), "root": ("admin",)}
SHOWN = {"api-key": "own", "content-type": "application/x-own", "x-chroma-token": "own", "if-none-match": '"1"'}


@dataclass
class Store:
    """A service that answers any request as it is told, and remembers it."""

    status: int = 200
    more: tuple[str, ...] = ()
    body: bytes = b"<script>alert(1)</script>"
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    breaks: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            self.requests.append(head + await reader.readexactly(sum(length)))
            if self.breaks:
                return
            lines = [f"HTTP/1.1 {self.status} X", *self.more, f"Content-Length: {len(self.body)}", "", ""]
            writer.write("\r\n".join(lines).encode() + (b"" if head.startswith(b"HEAD ") else self.body))


@asynccontextmanager
async def open_to(world: World, *stores: Store, recipe: str = "vector-db/store") -> AsyncIterator[dict[str, str]]:
    """Give the headers of a key, once the gateway knows of a service named `store`, whose replicas these are."""
    async with AsyncExitStack() as stack:
        service = await world.create(recipe, name="store")
        await world.observe(service, available=True, reason="AsWanted", ready_replicas=1)
        for replica, store in enumerate(stores):
            port = await stack.enter_async_context(listening(store.serve, door_context(TOKENS[replica])))
            there = {"token": TOKENS[replica], "replica": replica, "door": key_id()}
            await world.endpoint(service, "127.0.0.1", port, models=(), **there)
        await served_once(world)
        yield bearer((await make(world))["secret"])


async def served_once(world: World) -> None:
    """Wait until the gateway has read what the database holds by now."""
    marker = await world.create(name=f"marker-{time.monotonic_ns()}")
    await world.observe(marker)
    await known(world, marker, "pending")


async def ask(world: World, method: str, path: str, headers: dict[str, str], content: bytes = b"") -> httpx.Response:
    """Send a path as it is: httpx would tidy it up."""
    url = httpx.URL("http://127.0.0.1:8001", raw_path=path.encode())
    return await world.client.request(method, url, content=content, headers=headers)


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
async def test_any_path_is_passed_on_as_it_is(world: World, method: str) -> None:
    store = Store()
    async with open_to(world, store) as headers:
        path = "/api/v2/tenants/a%20b/x;y=1/?limit=1&q=a%2Fb"
        answer = await ask(world, method, "/services/store" + path, headers, b"" if method == "GET" else b"\0\xff")
    assert (answer.status_code, answer.content) == (200, store.body)
    head, _, body = store.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(f"{method} {path} HTTP/1.1\r\n".encode())
    assert body == (b"" if method == "GET" else b"\0\xff")


async def test_of_head_there_is_the_head(world: World) -> None:
    """And the connection takes the next request, though the head tells of a body."""
    store = Store(more=("ETag: 1", "Allow: GET, HEAD"))
    async with open_to(world, store) as headers:
        for method in ("HEAD", "HEAD", "GET", "OPTIONS", "HEAD"):
            answer = await ask(world, method, "/services/store/x", headers)
            assert (answer.status_code, answer.headers["etag"]) == (200, "1")
            assert answer.content == (b"" if method == "HEAD" else store.body)
            assert answer.headers["content-length"] == str(len(store.body))
            assert answer.headers["allow"] == "GET, HEAD"
    assert [request.split(b" ")[0] for request in store.requests] == [b"HEAD", b"HEAD", b"GET", b"OPTIONS", b"HEAD"]
    assert store.connections == 1


async def test_who_asks_stays_here_and_so_do_cookies(world: World) -> None:
    store = Store(more=("Set-Cookie: a=b", "Access-Control-Allow-Origin: *", "ETag: 1"))
    async with open_to(world, store) as headers:
        answer = await ask(world, "POST", "/services/store/x", {**headers, **HIDDEN, **SHOWN}, b"{}")
    assert answer.status_code == 200
    sent = store.requests[0].decode().lower()
    assert "secret" not in sent
    assert headers["Authorization"].lower() not in sent
    assert all(f"{name}: {value}\r\n" in sent for name, value in SHOWN.items())
    assert not {"set-cookie", "access-control-allow-origin"} & set(answer.headers)
    assert answer.headers["etag"] == "1"


async def test_a_page_of_a_service_is_none_of_ours(world: World) -> None:
    async with open_to(world, Store(more=("Content-Type: text/html", "Content-Security-Policy: none"))) as headers:
        answer = await ask(world, "GET", "/services/store/", headers)
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("uid", [4711, STRANGER])
async def test_nothing_but_a_key_opens_it(world: World, uid: int) -> None:
    """The operator's browser has his uid, and may be at a page that rebinds its name to us."""
    store = Store()
    async with open_to(world, store):
        world.uid = uid
        for more in ({}, {"cookie": "key=x"}, {"authorization": "Basic eDp5"}, bearer("x"), bearer(WRONG)):
            answer = await ask(world, "GET", "/services/store/x", more)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
    assert store.requests == []


async def test_a_key_is_for_what_it_names(world: World) -> None:
    store = Store()
    async with open_to(world, store):
        for asked, status in (({"models": ["store"]}, 200), ({"models": ["chat"]}, 403)):
            key = bearer((await make(world, **asked))["secret"])
            assert (await ask(world, "GET", "/services/store/x", key)).status_code == status
        for scope in ("read", "write"):
            key = bearer((await make(world, scope))["secret"])
            assert (await ask(world, "GET", "/services/store/x", key)).status_code == 403
    assert len(store.requests) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/../x", "/a/..", "/./x", "/a/%2e%2e/x", "/a/%2E./x", "/a/.%2e", "/..;/x", "//x", "/a//b", "/a%2fb", "/a%5Cb",
        "/a%00b", "/a%0d%0aX:%20y", "/a\\b", "/a?x=\"", "/a{b}",
    ],
)  # fmt: skip
async def test_paths_that_programs_read_in_two_ways(world: World, path: str) -> None:
    store = Store()
    async with open_to(world, store) as headers:
        answer = await sent_as_it_is(world, "GET", "/services/store" + path, headers)
    assert answer in (400, 404)
    assert store.requests == []


async def sent_as_it_is(world: World, method: str, target: str, headers: dict[str, str]) -> int:
    """Send what no client library would, as a server hands it over; return the status."""
    path, _, query = target.partition("?")
    said = [(name.lower().encode(), value.encode()) for name, value in {"host": "127.0.0.1", **headers}.items()]
    status = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": said, "client": ("127.0.0.1", 2), "server": ("127.0.0.1", 8001),
    }  # fmt: skip

    said_all = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(said_all, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        status.append(message.get("status"))

    await world._served(scope, receive, send)
    return int(status[0])


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND"])
async def test_methods_that_are_not_passed_on(world: World, method: str) -> None:
    store = Store()
    async with open_to(world, store) as headers:
        assert await sent_as_it_is(world, method, "/services/store/x", headers) == 405
    assert store.requests == []


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0"])
async def test_a_header_is_one_header(world: World, value: str) -> None:
    store = Store()
    async with open_to(world, store) as headers:
        assert await sent_as_it_is(world, "GET", "/services/store/x", {**headers, "x-own": value}) == 400
    assert store.requests == []


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("/x/?a=b", "/services/store/x/?a=b"),
        ("http://engine/x", "/services/store/x"),
        ("https://elsewhere/", None),
        ("//elsewhere/", None),
        ("/\\elsewhere", None),
        ("/x/?a=../..", "/services/store/x/?a=../.."),
        ("/../../api/v1/services", None),
        ("http://engine/x/%2E%2e/..;/../api/v1/keys", None),
        ("/x//..", None),
        ("/x%2f..%2f..", None),
        ("javascript:alert(1)", None),
    ],
)
async def test_where_it_leads_is_in_itself(world: World, location: str, place: str | None) -> None:
    async with open_to(world, Store(status=307, more=(f"Location: {location}",))) as headers:
        answer = await ask(world, "GET", "/services/store/y", headers)
    assert answer.headers.get("location") == place


async def test_what_may_have_been_done_is_not_asked_twice(world: World) -> None:
    stores = Store(breaks=True), Store(breaks=True)
    async with open_to(world, *stores) as headers:
        assert (await ask(world, "POST", "/services/store/x", headers)).status_code == 503
        assert sum(len(store.requests) for store in stores) == 1
        for number, method in enumerate(("GET", "HEAD", "OPTIONS"), 1):
            assert (await ask(world, method, "/services/store/x", headers)).status_code == 503
            assert sum(len(store.requests) for store in stores) == 1 + 2 * number


async def test_only_what_its_recipe_exposes(world: World) -> None:
    """Whatever texts it holds; and in the words that an unknown one gets."""
    store = Store()
    async with open_to(world, store, recipe="vector-db/closed") as headers:
        closed = await ask(world, "GET", "/services/store/x", headers)
        unknown = await ask(world, "GET", "/services/nothing/x", headers)
        shown = (await world.get("/api/v1/services/store")).json()["endpoint"]
    assert (closed.status_code, closed.json()["error"]["code"]) == (404, "service_not_found")
    assert closed.text == unknown.text.replace("nothing", "store")
    assert shown.startswith("https://127.0.0.1:")
    assert store.requests == []


async def test_it_is_the_endpoint_that_all_are_told(world: World) -> None:
    store = Store(body=b"it")
    async with open_to(world, store) as headers:
        told = (await world.get("/api/v1/services/store")).json()
        assert told["endpoint"] == "http://127.0.0.1:8001/services/store"
        listed = (await world.get("/api/v1/services")).json()
        assert told["endpoint"] in [one["endpoint"] for one in listed]
        async with world.listen("/api/v1/watch", last_event_id="0") as watch:
            events = [await watch.next() for _ in range(2)]
        assert told["endpoint"] in [event.data.get("endpoint") for event in events]
        assert (await world.client.get(told["endpoint"] + "/x", headers=headers)).text == "it"
        by_id = f"/services/{told['id']}/x"
        assert (await world.client.get(by_id, headers=headers)).text == "it"


async def test_a_service_that_is_not_ready_says_so(world: World) -> None:
    async with open_to(world) as headers:
        answer = await ask(world, "GET", "/services/store/x", headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_not_ready")
    assert answer.headers["retry-after"] == "10"


async def test_of_a_model_the_paths_of_models_are_passed_on(world: World) -> None:
    engine, other = Engine(), Engine()
    async with served(world, engine, name="chat") as chat:
        headers = bearer((await make(world))["secret"])
        shown = (await world.get(f"/api/v1/services/{chat}")).json()["endpoint"]
        assert shown == "http://127.0.0.1:8001/services/chat"
        models = (await world.client.get(f"{shown}/v1/models", headers=headers)).json()["data"]
        assert {model["id"] for model in models} == {"dummy", "chat"}
        for path, status in (("/v1/chat/completions", 200), ("/metrics", 404), ("/v1/load_lora_adapter", 404)):
            answer = await world.client.post(shown + path, json={"model": "dummy"}, headers=headers)
            assert answer.status_code == status
        unknown = await world.client.post(f"{shown}/v1/completions", json={"model": "other"}, headers=headers)
        assert unknown.json()["error"]["code"] == "model_not_found"
        assert (await world.client.get(f"{shown}/v1/models")).status_code == 401
    assert (len(engine.heads), other.heads) == (1, [])


async def test_it_refuses_as_the_api_that_was_called(world: World) -> None:
    async with served(world, Engine(), name="chat"):
        headers = {"x-api-key": (await make(world))["secret"]}
        for path in ("/v1/messages", "/services/chat/v1/messages"):
            answer = await world.client.post(path, json={"model": "nope"}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
        assert (await world.client.post("/services/chat/v1/messages", json={})).json()["type"] == "error"


async def test_who_sees_all_asks_the_model_of_anothers_service(world: World) -> None:
    """Under the service's own path: by the model's name alone it would be one among many."""
    engine = Engine()
    keys = {owner: await make(world, *scopes, owner=owner) for owner, scopes in PEOPLE.items()}
    alice, bob, root = (bearer(key["secret"]) for key in keys.values())
    asked = {"recipe_name": ENGINE, "config": {}, "name": "chat", "access": "owner"}
    made = (await world.post("/api/v1/services", asked, headers=alice)).json()["id"]
    await world.observe(made, available=True, reason="AsWanted", ready_replicas=1)
    async with listening(engine.serve, door_context(TOKENS[0])) as port:
        await add(world, port, service=made)
        await served_once(world)
        for headers, status in ((alice, 200), (bob, 404), (root, 200)):
            url = "/services/chat/v1/completions"
            answer = await world.client.post(url, json={"model": "dummy"}, headers=headers)
            assert answer.status_code == status, answer.text
        shown = await world.client.get("/services/chat/v1/models", headers=root)
    assert {model["id"] for model in shown.json()["data"]} == {"dummy", "chat"}
    assert len(engine.heads) == 2

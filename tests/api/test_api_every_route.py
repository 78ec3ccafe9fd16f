"""Every route of the API: which scope opens it, to whom, and that what a caller may not see is not there.

A route that is not in the table fails the test.
"""

from __future__ import annotations

import json
import pwd
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from api_world import OWN_UID, World, new_app, settings_for
from litestar import Litestar
from litestar.routes import HTTPRoute
from test_api_keys import KEYS, STRANGER, WRONG, bearer, change, make, refused
from test_gateway import TOKENS, Engine, add, served, until

from api.contract.database import Database
from api.contract.settings import ApiSettings
from api.gateway.operations import OPERATIONS
from api.web.key_secret import new_secret
from api.web.local_users import LocalUsersError, local_users
from api.web.principal import OPERATOR, KeyScope, Principal
from tests.doors import door_context, listening

NOWHERE = "nowhere"


class Row(NamedTuple):
    """One route: what it takes, and whether it is about one service."""

    method: str
    path: str
    scope: KeyScope | str | None
    """`None`: it answers everybody; `ANY`: it takes one scope or another, as its body says."""
    body: Any = None

    @property
    def is_for_keys(self) -> bool:
        """Whether everybody needs a key, the operator too."""
        return self.path.startswith("/services/")

    @property
    def names_a_service(self) -> bool:
        return "{service_id" in self.path or "{group_id" in self.path or self.scope is KeyScope.INFER

    async def ask(self, world: World, about: str, headers: dict[str, str] | None = None) -> httpx.Response:
        path = self.path
        for name in ("service_id:str", "group_id:str", "key_id:str", "model"):
            path = path.replace(f"{{{name}}}", about)
        body = None if self.body is None else json.dumps(self.body).replace("MODEL", about).encode()
        return await world.client.request(
            self.method, path.replace("{recipe_name:path}", "/none"), content=body, headers=headers
        )


ANY = "any"
INFER, READ, WRITE, ADMIN = KeyScope.INFER, KeyScope.READ, KeyScope.WRITE, KeyScope.ADMIN
SERVICE, GROUP = "/api/v1/services/{service_id:str}", "/api/v1/service-groups/{group_id:str}"
VLLM = "/api/v1/vllm/{service_id:str}"
PAGES = ("/health", "/docs", "/docs/extended", "/openapi.json", "/openapi.extended.json")
TABLE = (
    *(Row(method, path, None) for path in PAGES for method in ("GET", "HEAD")),
    Row("GET", "/", READ),
    Row("HEAD", "/", READ),
    Row("GET", "/api/v1/recipes", READ),
    Row("GET", "/api/v1/recipes{recipe_name:path}", READ),
    Row("GET", "/api/v1/services", READ),
    Row("POST", "/api/v1/services", WRITE, {}),
    Row("GET", SERVICE, READ),
    Row("DELETE", SERVICE, WRITE),
    Row("PATCH", SERVICE, WRITE, {"config": {"startup_delay": 1}}),
    Row("GET", f"{SERVICE}/status", READ),
    Row("POST", f"{SERVICE}/status", WRITE, {"status": "cancelled"}),
    *(Row("GET", f"{SERVICE}/{what}", READ) for what in ("logs", "logs?follow=true", "declaration", "metrics")),
    *(Row("GET", f"{SERVICE}/{what}", READ) for what in ("events", "attempts", "conditions")),
    *(Row("GET", f"{SERVICE}/{what}", READ) for what in ("rollout", "rollout/history")),
    *(Row("POST", f"{SERVICE}/rollout/{what}", WRITE) for what in ("undo", "pause", "resume")),
    Row("GET", "/api/v1/services/targets", READ),
    Row("GET", "/api/v1/watch?timeout=0", READ),
    Row("GET", "/api/v1/watch?timeout=0&service={service_id:str}", READ),
    Row("GET", "/api/v1/service-groups", READ),
    Row("GET", GROUP, READ),
    Row("DELETE", GROUP, WRITE),
    Row("GET", f"{GROUP}/status", READ),
    Row("GET", "/api/v1/vllm/services", READ),
    Row("GET", f"{VLLM}/models", READ),
    Row("POST", f"{VLLM}/prompt", WRITE, {"prompt": "x"}),
    Row("GET", KEYS, ADMIN),
    Row("POST", KEYS, ADMIN, {}),
    Row("POST", f"{KEYS}/{{key_id:str}}/rotate", ADMIN, {}),
    Row("DELETE", f"{KEYS}/{{key_id:str}}", ADMIN),
    Row("POST", "/api/v1/tokens", ANY, {"scopes": ["admin"]}),
    Row("GET", "/services/{service_id:str}/v1/models", INFER),
    Row("GET", "/v1/models", INFER),
    Row("GET", "/v1/models/{model}", INFER),
    *(Row("POST", path, INFER, {"model": "MODEL"}) for path in OPERATIONS),
)
MOUNTED = {"/v1", "/services", *(path for path in OPERATIONS if not path.startswith("/v1/"))}
"""The gateway's, which Litestar knows no methods of."""


def routes_of(app: Litestar) -> set[tuple[str, str]]:
    """Return method and path of all that the application serves."""
    return {
        (method, route.path.replace("{recipe_name:path}", "").rstrip("/") or "/")
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if method != "OPTIONS"
    }


def test_every_route_is_in_the_table(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    app = new_app(settings, Database(settings.database_url))
    written = {(row.method, row.path.partition("?")[0].replace("{recipe_name:path}", "")) for row in TABLE}
    assert {
        one for one in written if one[1] not in MOUNTED and not one[1].startswith(("/v1/", "/services/"))
    } == routes_of(app)
    assert {route.path for route in app.routes if not isinstance(route, HTTPRoute)} == MOUNTED


SCOPES = {who: who.split(" and ") for who in (*map(str, KeyScope), "infer and read", "write and publish")}
LOCAL = {f"local {who}": 2000 + number for number, who in enumerate(SCOPES)}
"""Users of this host who need no key."""
USERS = {
    LOCAL[f"local {who}"]: Principal(None, frozenset(map(KeyScope, those)), owner=f"user of {who}")
    for who, those in SCOPES.items()
}


@pytest.fixture
async def keyed(folder: Path) -> AsyncIterator[World]:
    """The API with an administrator's key."""
    settings = settings_for(folder)
    database = Database(settings.database_url)
    world = World(settings, database, new_app(settings, database, key="the-key", users=USERS))
    async with world.running():
        yield world
    await database.close()


# Scopes


CODES = {
    "nobody": "missing_api_key", "wrong checksum": "invalid_api_key", "unknown": "invalid_api_key",
    "expired": "expired_api_key", "revoked": "revoked_api_key",
}  # fmt: skip
ALL = ("operator", "administrator's key", "admin", "local admin")


async def test_the_whole_matrix(keyed: World) -> None:
    """Operation × who asks: a key of each scope, none, a wrong one, an ended one, the operator, another local user."""
    keys = {who: (await make(keyed, *those))["secret"] for who, those in SCOPES.items()}
    expired, revoked = await make(keyed, "admin"), await make(keyed, "admin")
    await change(keyed, expired["id"], expires_at=1.0)
    await keyed.delete(f"{KEYS}/{revoked['id']}")
    await until(refused(keyed, expired["secret"]))
    keys |= {"expired": expired["secret"], "revoked": revoked["secret"], "wrong checksum": WRONG}
    keys |= {"unknown": new_secret(), "administrator's key": "the-key"}
    said = set()
    for who in (*CODES, *SCOPES, *LOCAL, "operator", "administrator's key"):
        keyed.uid = OWN_UID if who == "operator" else LOCAL.get(who, STRANGER)
        for row in TABLE:
            answer = await row.ask(keyed, NOWHERE, bearer(keys[who]) if who in keys else {})
            about = (who, row.method, row.path, answer.text)
            assert who not in keys or keys[who] not in answer.text
            if row.is_for_keys and who not in keys:
                assert answer.status_code == 401, about
                continue
            if row.scope is None or who in ALL or row.scope in SCOPES.get(who.removeprefix("local "), ()):
                assert answer.status_code not in (401, 403), about
                continue
            assert answer.status_code == (401 if who in CODES else 403), about
            assert answer.headers["www-authenticate"].startswith("Bearer")
            if row.method == "HEAD":
                continue
            if row.scope is not INFER:
                assert isinstance(answer.json()["detail"], str)
                continue
            error = answer.json()["error"]
            assert error["type"] == ("authentication_error" if who in CODES else "permission_error")
            said.add(error["message"].replace(expired["id"], "").replace(revoked["id"], ""))
            if "code" in error:
                assert error["code"] == CODES.get(who, "insufficient_scope"), about
    assert len(said) >= len(CODES) + 2, "each says what it is"


def test_users_of_this_host_and_what_they_may() -> None:
    settings = ApiSettings(local_users=("nobody:infer+read", "0:admin"), proxy_uids=("daemon",))
    daemon, nobody = pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("nobody").pw_uid
    found = local_users(settings, 4711)
    assert found.keys() == {4711, nobody, 0}
    assert (found[nobody].owner, found[nobody].scopes) == ("nobody", {INFER, READ})
    assert found[4711] is OPERATOR
    assert local_users(settings, daemon).keys() == {nobody, 0}, "a proxy is never a person, the operator's neither"
    named = ApiSettings(local_users=("daemon:infer",), proxy_uids=(str(daemon),))
    assert local_users(named, 4711).keys() == {4711}
    assert local_users(ApiSettings(), 4711) == {4711: OPERATOR}


NO_USERS = ["nobody", "nobody:", "nobody:root", "nobody:infer,read", "no-such-user:infer", ":infer"]


@pytest.mark.parametrize("text", NO_USERS)
def test_who_is_no_user_of_this_host(text: str) -> None:
    with pytest.raises(LocalUsersError, match=r"api\.local_users"):
        local_users(ApiSettings(local_users=(text,)), 4711)


async def test_a_local_user_has_services_of_their_own(keyed: World) -> None:
    keyed.uid = LOCAL["local write and publish"]
    made = (await keyed.post("/api/v1/services", {"recipe_name": "inference/engine", "name": "mine"})).json()
    assert (made["owner"], made["access"]) == ("user of write and publish", "everyone")
    assert (await keyed.patch("/api/v1/services/mine", {"access": "owner"})).status_code == 200
    keyed.uid = LOCAL["local read"]
    assert (await keyed.get("/api/v1/services/mine")).status_code == 404
    assert (await keyed.get("/api/v1/services", headers={"Host": "evil.example"})).status_code == 403


# What is another's


EVERYTHING = [scope.value for scope in KeyScope if scope is not ADMIN]


async def hidden(world: World, access: str = "owner", **rest: Any) -> str:
    """Have alice make a service, which has been submitted; return its id."""
    alice = await make(world, *EVERYTHING, owner="alice", project="p")
    asked = {"recipe_name": "inference/engine", "name": "hidden", "config": {"replicas": 2, "aliases": ["gpt-4"]}}
    made = await world.post("/api/v1/services", {**asked, "access": access, **rest}, headers=bearer(alice["secret"]))
    assert made.status_code == 200, made.text
    service = str(made.json()["id"])
    await world.observe(service, reason="Starting", wanted_replicas=2)
    token = await world.attempt(service, 0, 1, job_id=7)
    await world.endpoint(service, "127.0.0.1", 1, token=token)
    await known_to(world, alice, "hidden", replicas=1)
    return service


async def known_to(world: World, key: dict[str, Any], name: str, replicas: int = 0) -> None:
    """Wait until the gateway tells a key's owner of a model."""

    async def is_known() -> bool:
        answer = await world.get(f"/v1/models/{name}", headers=bearer(key["secret"]))
        return answer.status_code == 200 and answer.json()["ready_replicas"] == replicas

    await until(is_known)


def without(text: str, *words: str) -> str:
    for word in words:
        text = text.replace(word, "…")
    return text


async def told(row: Row, world: World, about: str, key: str) -> tuple[Any, ...]:
    """Return all that an answer says, but for what was asked for."""
    answer = await row.ask(world, about, bearer(key))
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "content-length")}
    body = without(answer.text, about, answer.headers.get("x-request-id", "?"))
    return answer.status_code, headers, body


async def test_what_is_anothers_answers_as_what_is_not_there(anywhere: World) -> None:
    """Word for word, over every route, by id, name, model and alias; on both databases."""
    service = await hidden(anywhere)
    for project in (None, "p", "q"):
        bob = (await make(anywhere, *EVERYTHING, owner="bob", project=project))["secret"]
        for row in TABLE:
            if not row.names_a_service:
                answer = await row.ask(anywhere, NOWHERE, bearer(bob))
                if row.scope is not None and row.scope is not ADMIN:
                    assert service not in answer.text, row
                    assert "hidden" not in answer.text, row
                continue
            for about in (service, "hidden", "dummy", "gpt-4"):
                assert await told(row, anywhere, about, bob) == await told(row, anywhere, NOWHERE, bob), (row, about)
    assert (await anywhere.get("/api/v1/services/hidden")).json()["status"] == "starting"


QUERIES = ["", "?deleted=false", "?name=hid*", "?limit=1", "?status=starting", "?recipe=engine"]


@pytest.mark.parametrize("query", QUERIES)
async def test_lists_leave_it_out(anywhere: World, query: str) -> None:
    await hidden(anywhere)
    bob = await make(anywhere, "read", "write", owner="bob")
    own = await anywhere.post(
        "/api/v1/services", {"recipe_name": "inference/engine", "name": "hidden-not"}, headers=bearer(bob["secret"])
    )
    await anywhere.observe(own.json()["id"], reason="Starting")
    answer = await anywhere.get(f"/api/v1/services{query}", headers=bearer(bob["secret"]))
    assert [one["name"] for one in answer.json()] == ["hidden-not"]
    assert "link" not in answer.headers


async def test_a_watcher_is_told_of_what_they_see(world: World) -> None:
    bob = await make(world, "read", "write", owner="bob")
    await hidden(world)
    async with (
        world.listen("/api/v1/watch?after=0", key=bob["secret"]) as late,
        world.listen("/api/v1/watch", key=bob["secret"]) as early,
        world.listen("/api/v1/watch?after=0") as operator,
    ):
        assert (await operator.next()).data["name"] == "hidden"
        await world.patch("/api/v1/services/hidden", {"config": {"startup_delay": 1}})
        asked = {"recipe_name": "inference/engine", "name": "bobs"}
        await world.post("/api/v1/services", asked, headers=bearer(bob["secret"]))
        for listener in (late, early):
            assert (await listener.next()).data["name"] == "bobs"
            assert "hidden" not in listener.text


async def test_who_sees_it_and_who_may_change_it(anywhere: World) -> None:
    world = anywhere
    await hidden(world, "project")
    people = {
        "alice": await make(world, *EVERYTHING, owner="alice"),
        "colleague": await make(world, *EVERYTHING, owner="bob", project="p"),
        "other": await make(world, *EVERYTHING, owner="bob", project="q"),
    }

    async def answers(person: str, method: str = "GET", body: Any = None) -> int:
        answer = await world.client.request(
            method,
            "/api/v1/services/hidden",
            content=json.dumps(body).encode(),
            headers=bearer(people[person]["secret"]),
        )
        if answer.status_code == 403:
            assert "another's" in answer.json()["detail"]
        return answer.status_code

    assert [await answers(person) for person in people] == [200, 200, 404]
    assert [await answers(person, "PATCH", {"config": {"startup_delay": 2}}) for person in people] == [200, 200, 404]
    assert await answers("colleague", "PATCH", {"access": "everyone"}) == 200
    assert [await answers(person) for person in people] == [200, 200, 200]
    assert [await answers(person, "PATCH", {"replicas": 3}) for person in people] == [200, 200, 403]
    for method, path, body in (
        ("DELETE", "/api/v1/services/hidden", None),
        ("POST", "/api/v1/services/hidden/status", {"status": "cancelled"}),
        ("DELETE", "/api/v1/service-groups/hidden", None),
    ):
        content = None if body is None else json.dumps(body).encode()
        headers = bearer(people["other"]["secret"])
        assert (await world.client.request(method, path, content=content, headers=headers)).status_code == 403
    assert await answers("alice", "PATCH", {"access": "owner"}) == 200
    assert [await answers(person) for person in people] == [200, 404, 404]
    assert (await world.get("/api/v1/services/hidden")).json()["status"] == "starting"
    assert await answers("alice", "DELETE") == 200


async def test_publishing_takes_a_scope_of_its_own(world: World) -> None:
    writes = await make(world, "read", "write", owner="alice", project="p")
    publishes = await make(world, "read", "write", "publish", owner="alice")
    asked = {"recipe_name": "inference/engine"}
    for key, access, status in (
        (writes, "everyone", 403), (writes, "project", 200), (writes, "owner", 200), (writes, "all", 422),
        (publishes, "everyone", 200), (publishes, "project", 422),
    ):  # fmt: skip
        answer = await world.post("/api/v1/services", {**asked, "access": access}, headers=bearer(key["secret"]))
        assert answer.status_code == status, answer.text
        if status == 200:
            found = answer.json()
            assert (found["owner"], found["access"]) == ("alice", access)
    own = (await world.post("/api/v1/services", {**asked, "name": "own"}, headers=bearer(writes["secret"]))).json()
    assert (own["owner"], own["project"], own["access"]) == ("alice", "p", "project"), "the nearest to the site's"
    change = [{"access": "everyone"}, {"access": None}, {"config": {"aliases": ["gpt-4"]}}]
    for body, status in zip(change, (403, 403, 200), strict=True):
        answer = await world.client.patch(
            "/api/v1/services/own", content=json.dumps(body).encode(), headers=bearer(writes["secret"])
        )
        assert answer.status_code == status, (body, answer.text)
    assert (await world.patch("/api/v1/services/own", {"access": "everyone"})).status_code == 200
    claims = {"config": {"aliases": ["claude"]}}
    for key, status in ((writes, 403), (publishes, 200)):
        answer = await world.client.patch(
            "/api/v1/services/own", content=json.dumps(claims).encode(), headers=bearer(key["secret"])
        )
        assert answer.status_code == status, "what is published is claimed by who may publish"


async def test_what_is_written_in_sql_is_the_operators_and_as_the_site_has_it(folder: Path) -> None:
    for access, sees in (("owner", 404), ("project", 404), ("everyone", 200)):
        settings = settings_for(folder, api__access=access)
        database = Database(settings.database_url)
        world = World(settings, database, new_app(settings, database))
        async with world.running():
            async with database.write() as connection:
                await connection.exec_driver_sql(
                    f"INSERT INTO services (name, recipe_name) VALUES ('{access}s', 'inference/engine')"
                )
            key = await make(world, "read", "write", owner="alice")
            answer = await world.get(f"/api/v1/services/{access}s", headers=bearer(key["secret"]))
            assert answer.status_code == sees
            shown = (await world.get(f"/api/v1/services/{access}s")).json()
            assert (shown["owner"], shown["project"], shown["access"]) == (None, None, None)
        await database.close()


async def test_everybody_has_idempotency_keys_of_their_own(world: World) -> None:
    asked = {"recipe_name": "inference/engine"}
    people = [
        await make(world, "write", owner="alice"),
        await make(world, "write", owner="bob"),
        await make(world, "write", owner="bob", project="p"),
    ]
    made = []
    for key in (*people, *people):
        headers = {**bearer(key["secret"]), "Idempotency-Key": "same"}
        made.append((await world.post("/api/v1/services", asked, headers=headers)).json()["id"])
    made.append((await world.post("/api/v1/services", asked, headers={"Idempotency-Key": "same"})).json()["id"])
    assert made[:3] == made[3:6]
    assert len(set(made)) == 4


async def test_a_key_launches_its_recipes(world: World) -> None:
    key = await make(world, "read", "write", owner="alice", recipes=["simple/hello"])
    for recipe, status in (("simple/hello", 200), ("hello", 200), ("inference/engine", 403), ("engine", 403)):
        answer = await world.post("/api/v1/services", {"recipe_name": recipe}, headers=bearer(key["secret"]))
        assert answer.status_code == status
        if status == 403:
            assert "simple/hello" in answer.json()["detail"]
    other = await make(world, "write", owner="alice")
    asked = {"recipe_name": "engine", "name": "engines"}
    assert (await world.post("/api/v1/services", asked, headers=bearer(other["secret"]))).status_code == 200
    changed = await world.client.patch(
        "/api/v1/services/engines", content=b'{"replicas": 3}', headers=bearer(key["secret"])
    )
    assert changed.status_code == 403


async def test_a_second_owner_who_claims_names_gets_no_request(world: World) -> None:
    """Whoever else has a service of that name, model or alias, and publishes it or not."""
    sites, mallorys = Engine("the site's"), Engine("mallory's")
    alice = await make(world, owner="alice")
    mallory = await make(world, *EVERYTHING, owner="mallory")
    async with served(world, sites, name="chat"):
        for access in ("owner", "everyone"):
            asked = {
                "recipe_name": "inference/engine", "name": f"dummy-{access}", "access": access,
                "config": {"aliases": ["chat", "dummy", "gpt-4"]},
            }  # fmt: skip
            made = await world.post("/api/v1/services", asked, headers=bearer(mallory["secret"]))
            assert made.status_code == 200, made.text
            service = made.json()["id"]
            await world.observe(service, available=True, reason="AsWanted", ready_replicas=1)
        await known_to(world, mallory, "dummy-everyone")
        for who, names in ((None, ("chat", "dummy")), (alice, ("chat", "dummy"))):
            for name in names:
                headers = {} if who is None else bearer(who["secret"])
                answer = await world.post("/v1/chat/completions", {"model": name, "messages": []}, headers=headers)
                if who is None:
                    assert answer.status_code == 200
                else:
                    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_ambiguous")
    assert mallorys.heads == []
    assert len(sites.heads) == 2


async def test_each_owner_is_asked_for_their_own(world: World) -> None:
    """Two owners with a service of the same model: each is served by theirs, and an alias is told as the engine's."""
    engine = Engine("alice's")
    alice, bob = [await make(world, *EVERYTHING, owner=owner) for owner in ("alice", "bob")]
    asked = {"recipe_name": "inference/engine", "name": "alices", "access": "owner", "config": {"aliases": ["gpt-4"]}}
    service = (await world.post("/api/v1/services", asked, headers=bearer(alice["secret"]))).json()["id"]
    await world.observe(service, available=True, reason="AsWanted", ready_replicas=1)
    async with listening(engine.serve, door_context(TOKENS[0])) as port:
        await add(world, port, service=service)
        await known_to(world, alice, "gpt-4", replicas=1)
        statuses = []
        for key in (alice, bob):
            for name in ("gpt-4", "dummy", "alices"):
                answer = await world.post("/v1/chat/completions", {"model": name}, headers=bearer(key["secret"]))
                statuses.append(answer.status_code)
        assert statuses == [200, 200, 200, 404, 404, 404]
    assert [json.loads(body)["model"] for body in engine.bodies] == ["dummy"] * 3

"""The API over a real database, with the controller's part played by hand."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from litestar import Litestar
from sqlalchemy import insert, select, update

from api.contract.configuration import load
from api.contract.database import Database
from api.contract.doorless import secret
from api.contract.job.token import Token
from api.contract.peers import Peer
from api.contract.recipes.book import Library
from api.contract.recipes.resolve import resolve
from api.contract.recipes.spec import digest, encode_spec
from api.contract.settings import Settings
from api.contract.status import Condition, Truth
from api.contract.tables import AttemptRow, EndpointRow, EventRow, InstallationRow, LeaseRow, Service, ServiceStatus
from api.http.app import create_app
from api.web.auth import Guard
from api.web.keys import Keys
from api.web.peers import STATE_KEY
from api.web.principal import OPERATOR, Principal
from tests.doors import KEY, keyring_of

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"
OWN_UID = 4711
ENGINE = "inference/engine"


def settings_for(folder: Path, **flags: str) -> Settings:
    given = {
        "state_dir": str(folder / "state"),
        "run_dir": str(folder / "run"),
        "recipes": str(RECIPES),
        "gateway.queue_seconds": "0",
        **{name.replace("__", "."): value for name, value in flags.items()},
    }
    return load(given, environ={"HOME": str(folder)})


@dataclass
class Event:
    """A server-sent event."""

    name: str
    id: str
    text: str

    @property
    def data(self) -> Any:
        return json.loads(self.text)


class Listener:
    """A client of server-sent events, whose stream is read as it comes (httpx's transport would wait for its end)."""

    def __init__(self, body: bytes | None = None) -> None:
        self.body = body
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.last_id = ""
        self.ended = asyncio.Event()
        self.left = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self._came = asyncio.Event()
        self._events: list[Event] = []
        self._rest = ""

    async def receive(self) -> dict[str, Any]:
        if self.body is not None:
            sent, self.body = self.body, None
            return {"type": "http.request", "body": sent, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.text += message["body"].decode()
            self._parse(message["body"].decode())
            if not message.get("more_body"):
                self.left.set()
        self._came.set()

    def _parse(self, text: str) -> None:
        *blocks, self._rest = (self._rest + text).split("\n\n")
        for block in blocks:
            fields = dict(line.partition(": ")[::2] for line in block.split("\n") if not line.startswith(":"))
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields:
                self._events.append(Event(fields.get("event", "message"), self.last_id, fields["data"]))

    async def next(self, seconds: float = 60.0) -> Event:
        """Return the next event."""
        await self.until(lambda: bool(self._events), seconds)
        return self._events.pop(0)

    async def until(self, reached: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not reached():
                self._came.clear()
                await self._came.wait()

    @property
    def waiting(self) -> int:
        """How many events have come and were not asked for."""
        return len(self._events)


@dataclass
class World:
    settings: Settings
    database: Database
    app: Litestar
    client: httpx.AsyncClient = field(init=False)
    uid: int | None = OWN_UID
    is_unix: bool = False

    def __post_init__(self) -> None:
        transport = httpx.ASGITransport(app=self._served, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001")

    async def _served(self, scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {STATE_KEY: Peer(uid=self.uid, address="127.0.0.1", is_unix=self.is_unix)}
        await self.app(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        """Run the application's lifespan, in one task: a fixture may begin and end in two."""
        begun, end = asyncio.Event(), asyncio.Event()

        async def live() -> None:
            async with self.app.lifespan():
                begun.set()
                await end.wait()

        task = asyncio.create_task(live())
        await begun.wait()
        async with self.client:
            yield self
        end.set()
        await task

    @asynccontextmanager
    async def listen(
        self, path: str, last_event_id: str | None = None, body: Any = None, key: str | None = None
    ) -> AsyncIterator[Listener]:
        """Open a stream, by POST where there is a body; it is left at the end, and must then end by itself."""
        listener = Listener(None if body is None else json.dumps(body).encode())
        where, _, query = path.partition("?")
        headers = [] if last_event_id is None else [(b"last-event-id", last_event_id.encode())]
        headers += [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "scheme": "http",
            "path": where,
            "raw_path": where.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"127.0.0.1:8001"), *headers],
            "client": ("127.0.0.1", 2),
            "server": ("127.0.0.1", 8001),
        }

        async def serve() -> None:
            await self._served(scope, listener.receive, listener.send)
            listener.ended.set()
            listener._came.set()

        task = asyncio.create_task(serve())
        try:
            await listener.until(lambda: listener.status != 0)
            yield listener
        finally:
            listener.left.set()
            listener.reading.set()
            async with asyncio.timeout(60):
                await task

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def post(self, path: str, content: Any = None, **options: Any) -> httpx.Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await self.client.post(path, content=body, **options)

    async def patch(self, path: str, content: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.patch(path, content=json.dumps(content).encode(), headers=named)

    async def delete(self, path: str) -> httpx.Response:
        return await self.client.delete(path)

    async def create(self, recipe: str = ENGINE, config: Mapping[str, Any] | None = None, **rest: Any) -> str:
        answer = await self.post("/api/v1/services", {"recipe_name": recipe, "config": config or {}, **rest})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    # What the controller would write.

    async def observe(
        self, service_id: str, *, available: bool | None = None, reason: str = "Queued", message: str = "", **rest: Any
    ) -> None:
        conditions = [condition("Progressing", Truth.TRUE, reason, message)]
        if available is not None:
            conditions.append(condition("Available", Truth.TRUE if available else Truth.FALSE, "Endpoints", ""))
        await self.status(service_id, conditions, **rest)

    async def status(self, service_id: str, conditions: Sequence[Condition], **rest: Any) -> None:
        async with self.database.write() as connection:
            row = (await connection.execute(select(Service).where(Service.id == service_id))).one()
            recipe = Library([RECIPES], {}).book().find(row.recipe_name)
            assert recipe is not None
            spec = resolve(recipe, row.config, replicas=row.replicas, site=self.settings.slurm)
            values = {
                "observed_generation": row.generation,
                "wanted_replicas": 1,
                "ready_replicas": 0,
                "conditions": msgspec.to_builtins(conditions),
                "spec": encode_spec(spec).decode(),
                "digest": digest(spec),
                "updated_at": time.time(),
                **rest,
            }
            changed = await connection.execute(
                update(ServiceStatus).where(ServiceStatus.service_id == service_id).values(**values)
            )
            if changed.rowcount == 0:
                await connection.execute(insert(ServiceStatus).values(service_id=service_id, **values))

    async def attempt(self, service_id: str, replica: int = 0, incarnation: int = 1, **rest: Any) -> str:
        async with self.database.write() as connection:
            installation = (await connection.execute(select(InstallationRow.id))).scalar_one()
            token = str(Token(installation, service_id, replica, incarnation))
            values = {"lane": "main", "generation": 1, "digest": "", "failures": 0, "intent_at": time.time()}
            await connection.execute(
                insert(AttemptRow).values(
                    token=token,
                    service_id=service_id,
                    replica=replica,
                    incarnation=incarnation,
                    message="",
                    **{**values, **rest},
                )
            )
        return token

    async def end(self, token: str) -> None:
        """Have the controller see that nothing of an attempt is left on the cluster."""
        ended = {"closed_at": 2.0, "gone_at": 2.0, "outcome": "Stopped"}
        async with self.database.write() as connection:
            await connection.execute(update(AttemptRow).where(AttemptRow.token == token).values(ended))

    async def endpoint(
        self,
        service_id: str,
        host: str,
        port: int,
        *,
        token: str,
        replica: int = 0,
        state: str = "ready",
        models: Sequence[str] = ("dummy",),
        door: str | None = None,
    ) -> None:
        async with self.database.write() as connection:
            await connection.execute(
                insert(EndpointRow).values(
                    token=token,
                    service_id=service_id,
                    replica=replica,
                    models=list(models),
                    host=host,
                    port=port,
                    door=door,
                    state=state,
                )
            )

    async def heartbeat(self, ago: float) -> None:
        async with self.database.write() as connection:
            await connection.execute(
                insert(LeaseRow).values(
                    name="controller", epoch=1, holder="me", host="here", renewals=1, renewed_at=time.time() - ago
                )
            )

    async def event(self, service_id: str, reason: str, at: float, **rest: Any) -> None:
        values = {"type": "Normal", "message": "", "count": 1, "first_at": at, "last_at": at, **rest}
        async with self.database.write() as connection:
            await connection.execute(insert(EventRow).values(service_id=service_id, reason=reason, **values))

    def job_folder(self, token: str) -> Path:
        installation, service = token.split("-")[1:3]
        folder = self.settings.run_dir / installation / service / token
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def secret(self, token: str) -> str:
        return secret(KEY, token)


def condition(kind: str, status: Truth, reason: str, message: str = "") -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message, since=1.0, generation=1)


def new_app(
    settings: Settings,
    database: Database,
    *,
    key: str | None = None,
    requires_key: bool = False,
    users: Mapping[int, Principal] | None = None,
) -> Litestar:
    """Make the application; `users` of this host need no key, beside the operator."""
    keys = Keys(settings.gateway.stale_keys)
    hosts = frozenset({"localhost", "login1"})
    known = {OWN_UID: OPERATOR, **(users or {})}
    guard = Guard(users=known, key=key, hosts=hosts, keys=keys, requires_key=requires_key)
    keyring = keyring_of(settings.key_file, KEY)
    return create_app(
        settings, database, guard=guard, keyring=keyring, environment={"SLURMD_NODENAME": "node7", "SLURM_JOB_ID": "42"}
    )


@asynccontextmanager
async def opened(folder: Path, **flags: str) -> AsyncIterator[World]:
    """The API over the folder's database, with these settings."""
    settings = settings_for(folder, **flags)
    database = Database(settings.database_url)
    try:
        async with World(settings, database, new_app(settings, database)).running() as world:
            yield world
    finally:
        await database.close()

"""The gateway's program under the role that docs/sql.md grants it, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from api_world import World
from backends import Backend, Refused, on_postgresql
from sqlalchemy import Connection, select
from test_replacing import PATIENCE, a_model, credentials, supervised

from api.contract.tables import GatewayRow, KeyUseRow
from tests.pages import ROOT, blocks

(GRANTS,) = (block.text for block in blocks(ROOT / "docs/sql.md") if "CREATE ROLE gateway" in block.text)
KEYS = "/api/v1/keys"


def _gateways(connection: Connection) -> Sequence[str]:
    return connection.execute(select(GatewayRow.id)).scalars().all()


def _used(connection: Connection) -> Sequence[str]:
    return connection.execute(select(KeyUseRow.key_id)).scalars().all()


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    """The database's URL under the role, which belongs to the whole server, and so must not stay."""
    for statement in GRANTS.split(";"):
        backend.postgres.psql(statement, backend.name)
    yield backend.url.replace("owner@", "gateway@")
    backend.postgres.psql("DROP OWNED BY gateway", backend.name)
    backend.postgres.psql("DROP ROLE gateway", backend.name)


@on_postgresql
async def test_the_gateway_needs_no_more_than_the_chapter_grants(anywhere: World, url: str, tmp_path: Path) -> None:
    made = (await anywhere.post(KEYS, {"name": "one", "owner": "alice"})).json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    settings = {"database_url": url, "gateway_port": "0", "gateway_credentials": str(await credentials(tmp_path))}
    async with supervised(tmp_path, "gateway", bare=True, **settings) as program:
        gateway = f"http://127.0.0.1:{await program.port()}"
        async with (
            a_model(anywhere),
            httpx.AsyncClient(trust_env=False, timeout=60, base_url=gateway, headers=headers) as client,
            asyncio.timeout(PATIENCE),
        ):
            while (answer := await client.post("/v1/chat/completions", json={"model": "chat"})).status_code != 200:
                assert answer.status_code in {404, 503}, answer.text  # the model has come after the gateway
                await asyncio.sleep(0.05)
            while len(await anywhere.database.read(_gateways)) < 2:  # the API's own, and this one
                await asyncio.sleep(0.05)
            await anywhere.delete(f"{KEYS}/{made['id']}")
            while (await client.get("/v1/models")).status_code != 401:
                await asyncio.sleep(0.05)
        assert "ERROR" not in program.log.read_text()
        assert await anywhere.database.read(_used) == []
    assert await anywhere.database.read(_used) == [made["id"]], "its end writes what is left"


@on_postgresql
async def test_its_role_may_do_no_more(url: str, backend: Backend) -> None:
    for statement in (
        "UPDATE services SET replicas = 0",
        "UPDATE api_keys SET scopes = '[\"admin\"]'",
        "DELETE FROM endpoints",
        "DELETE FROM key_use",
        "SELECT * FROM attempts",
        "SELECT * FROM idempotency_keys",
    ):
        with pytest.raises(Refused, match="permission denied"):
            await backend.run("SET ROLE gateway", statement)

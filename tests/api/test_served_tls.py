"""HTTPS by the programs themselves: a renewed certificate is taken up, and the command line knows its server."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest
from api_world import World
from test_replacing import CHUNKS, a_model, supervised

from api.cli.errors import CliError
from api.cli.rest.client import Client
from api.cli.rest.server_tls import tls_of
from api.contract.certificates import Authority
from api.contract.configuration import SettingsError, load
from api.contract.served_tls import ServedTls, ServedTlsError


def certify(folder: Path, letter: bytes) -> dict[str, str]:
    """Write a certificate, its key, and (in `authority.pem`) who signed it; return the settings."""
    authority = Authority(letter * 32)
    own = authority.door("some-server")
    for name, text in (("own.pem", own.certificate), ("own.key", own.key), ("authority.pem", authority.certificate)):
        draft = folder / f"{name}.draft"
        draft.write_text(text)
        draft.chmod(0o600)
        draft.replace(folder / name)
    return {"api_tls_certificate": str(folder / "own.pem"), "api_tls_key": str(folder / "own.key")}


def trusting(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "authority.pem")
    context.check_hostname = False
    return context


async def test_it_serves_https_and_takes_up_a_renewed_certificate(world: World, folder: Path) -> None:
    settings = certify(folder, b"a")
    async with a_model(world), supervised(folder, "api", api_port="0", **settings) as program:
        url = f"https://127.0.0.1:{await program.port()}"
        body = {"model": "chat", "stream": True}
        async with (
            httpx.AsyncClient(trust_env=False, timeout=60, verify=trusting(folder)) as client,
            client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer,
        ):
            lines = answer.aiter_lines()
            await anext(lines)
            certify(folder, b"b")
            async with httpx.AsyncClient(trust_env=False, verify=trusting(folder)) as later:
                assert (await later.get(f"{url}/health")).status_code == 200
            assert len([line async for line in lines if line]) == CHUNKS - 1
        (folder / "own.pem").write_text("broken")
        async with httpx.AsyncClient(trust_env=False, verify=trusting(folder)) as later:
            assert (await later.get(f"{url}/health")).status_code == 200
        await program.says("the former certificate is shown")


async def test_the_command_line_knows_its_server(world: World, folder: Path) -> None:
    settings = certify(folder, b"a")
    async with supervised(folder, "api", api_port="0", **settings) as program:
        url = f"https://127.0.0.1:{await program.port()}"

        def ask(named: str | None, **given: str) -> str:
            flags = {
                name.replace("_", ".", 1) if name.startswith("api") else name: text for name, text in given.items()
            }
            with Client(
                url, tls=tls_of(load(flags, environ={"HOME": str(folder)}), named), is_chosen=bool(named)
            ) as api:
                return str(api.health()["status"])

        assert await asyncio.to_thread(ask, None, **settings) == "healthy"
        for named, given in (
            (url, {}),  # its authority is none that this host trusts
            (url, {"server_authority": str(folder / "authority.pem")}),  # not its name
            (None, {}),
        ):
            with pytest.raises(CliError, match="CERTIFICATE_VERIFY_FAILED"):
                await asyncio.to_thread(ask, named, **given)
        certify(folder, b"b")
        (folder / "other").mkdir()
        other = certify(folder / "other", b"c")
        with pytest.raises(CliError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(ask, None, **other)


async def test_a_gateway_that_others_reach_needs_tls(world: World, folder: Path) -> None:
    async with supervised(folder, "gateway", gateway_host="0.0.0.0", gateway_port="0") as program:
        assert await asyncio.wait_for(program.process.wait(), 60) == 3
    assert "api.plain_http = true" in program.log.read_text()


def test_both_files_or_neither(folder: Path) -> None:
    with pytest.raises(SettingsError, match="belong together"):
        load({"api.tls_key": str(folder / "own.key")}, environ={"HOME": str(folder)})


def test_what_can_not_be_used_is_said(folder: Path) -> None:
    certify(folder, b"a")
    (folder / "other").mkdir()
    certify(folder / "other", b"b")
    for certificate, key in ((folder / "none", folder / "own.key"), (folder / "own.pem", folder / "other/own.key")):
        with pytest.raises(ServedTlsError, match="can't be used"):
            ServedTls(certificate, key)
    (folder / "own.key").chmod(0o644)
    with pytest.raises(ServedTlsError, match="chmod o="):
        ServedTls(folder / "own.pem", folder / "own.key")

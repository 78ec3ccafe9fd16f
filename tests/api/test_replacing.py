"""A program that is replaced under load fails nobody: as its clients count."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from api_servers import ROOT
from api_world import RECIPES, World

from tests.doors import door_context, key_id, listening

TOKEN = "af-inst22-one-0-1"
CHUNKS = 40
PATIENCE = 120.0
REPLACED = "All programs were replaced"


async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer at once, or in a stream of four seconds."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        is_stream = b'"stream": true' in body or b'"stream":true' in body
        kind = b"text/event-stream" if is_stream else b"application/json"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind)
        for number in range(10_000 if b"for ever" in body else CHUNKS if is_stream else 1):
            text = b"data: %d\n\n" % number if is_stream else b'{"choices": []}'
            writer.write(b"%x\r\n%b\r\n" % (len(text), text))
            await writer.drain()
            await asyncio.sleep(0.1 if is_stream else 0)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


class Supervised:
    """A program of `ai-factory`, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    async def says(self, pattern: str, times: int = 1) -> re.Match[str]:
        async with asyncio.timeout(PATIENCE):
            while len(found := [*re.finditer(pattern, self.log.read_text())]) < times:
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)
        return found[-1]

    async def port(self) -> int:
        return int((await self.says(r"listening on 127\S+ port (\d+)"))[1])

    def children(self) -> set[int]:
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    async def until_alone(self, programs: int) -> None:
        """Wait until those that were replaced have finished, and so many are left."""
        async with asyncio.timeout(PATIENCE):
            while len(self.children()) != programs:
                await asyncio.sleep(0.05)

    async def replace(self, times: int) -> None:
        """Ask for it, and wait until it has been done so often."""
        self.process.send_signal(signal.SIGUSR2)
        await self.says(REPLACED, times)


@asynccontextmanager
async def supervised(folder: Path, *command: str, bare: bool = False, **settings: str) -> AsyncIterator[Supervised]:
    """Run it; one that is `bare` has no settings but those given."""
    installation = {"state_dir": str(folder / "state"), "run_dir": str(folder / "run"), "recipes": str(RECIPES)}
    values = settings if bare else installation | settings
    log = folder / f"{command[0]}.log"
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "api.cli", *command),
            cwd=ROOT,
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)}
            | {f"AI_FACTORY_{name.upper()}": value for name, value in values.items()},
        )
    try:
        yield Supervised(process, log)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE)


class Clients:
    """Who asks all the time. What fails is counted, and never tried again."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._headers = headers or {}
        self.counted: Counter[str] = Counter()
        self._stopped = False

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(self._again(self._short, keeps=True))
                group.create_task(self._again(self._short, keeps=False))
                group.create_task(self._again(self._stream, keeps=True))
            try:
                yield
            finally:
                self._stopped = True

    async def _again(self, ask: Callable[[httpx.AsyncClient], Awaitable[str]], *, keeps: bool) -> None:
        limits = httpx.Limits(max_keepalive_connections=None if keeps else 0)
        async with httpx.AsyncClient(trust_env=False, timeout=60, limits=limits, headers=self._headers) as client:
            while not self._stopped:
                try:
                    self.counted[await ask(client)] += 1
                except (httpx.HTTPError, AssertionError) as error:
                    self.counted[f"failed: {error!r}"] += 1
                await asyncio.sleep(0.05)

    async def _short(self, client: httpx.AsyncClient) -> str:
        answer = await client.post(self._url, json={"model": "chat"})
        assert answer.status_code == 200, answer.text
        return "answered"

    async def _stream(self, client: httpx.AsyncClient) -> str:
        async with client.stream("POST", self._url, json={"model": "chat", "stream": True}) as answer:
            assert answer.status_code == 200
            lines = [line async for line in answer.aiter_lines() if line]
        assert lines == [f"data: {number}" for number in range(CHUNKS)]
        return "streamed"

    @property
    def failed(self) -> dict[str, int]:
        return {what: times for what, times in self.counted.items() if what.startswith("failed")}


@asynccontextmanager
async def a_model(world: World) -> AsyncIterator[None]:
    """Have a model `chat` be served behind a door."""
    service = await world.create(name="chat")
    await world.observe(service, available=True)
    async with listening(engine, door_context(TOKEN)) as port:
        await world.endpoint(service, "127.0.0.1", port, token=TOKEN, door=key_id())
        yield


async def test_replaced_under_load_again_and_again_no_request_fails(world: World, folder: Path) -> None:
    async with a_model(world), supervised(folder, "api", api_port="0") as program:
        clients = Clients(f"http://127.0.0.1:{await program.port()}")
        async with clients.asking():
            for times in range(1, 11):
                await program.replace(times)
        assert clients.failed == {}, program.log.read_text()
        assert clients.counted["answered"] > 200
        assert clients.counted["streamed"] > 10
        await program.until_alone(1)  # the former ones end once their clients have gone


async def test_a_successor_that_can_not_start_replaces_nobody(world: World, folder: Path) -> None:
    async with supervised(folder, "api", api_port="0") as program:
        url = f"http://127.0.0.1:{await program.port()}/health"
        (before,) = program.children()
        (folder / "state/installation.key").chmod(0o644)
        program.process.send_signal(signal.SIGUSR2)
        said = await program.says(r"Nothing was replaced.*")
        assert "chmod 600" in said[0]
        assert program.children() == {before}
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(url)).status_code == 200


async def test_what_takes_longer_than_the_drain_is_cut_off(world: World, folder: Path) -> None:
    async with a_model(world), supervised(folder, "api", api_port="0", gateway_drain="0.5") as program:
        url = f"http://127.0.0.1:{await program.port()}/v1/chat/completions"
        (before,) = program.children()
        body = {"model": "chat", "stream": True, "user": "for ever"}
        async with (
            httpx.AsyncClient(trust_env=False, timeout=60) as client,
            client.stream("POST", url, json=body) as answer,
        ):
            lines = answer.aiter_lines()
            await anext(lines)
            await program.replace(1)
            with pytest.raises(httpx.HTTPError):
                _ = [line async for line in lines]
        await program.until_alone(1)
        assert before not in program.children()


async def credentials(folder: Path) -> Path:
    """Write what a gateway elsewhere needs."""
    written = folder / "credentials"
    async with supervised(folder, "gateway", "credentials", str(written)) as command:
        assert await asyncio.wait_for(command.process.wait(), PATIENCE) == 0
    return written


async def test_the_gateway_of_another_host_has_the_database_and_credentials_alone(world: World, folder: Path) -> None:
    """With several workers, replaced and killed."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    made = await world.post("/api/v1/keys", {"name": "one", "owner": "alice"})
    secret = made.json()["secret"]
    settings = {
        "database_url": world.settings.database_url,
        "gateway_credentials": str(await credentials(folder)),
        "gateway_workers": "2",
        "gateway_port": "0",
    }
    async with a_model(world), supervised(elsewhere, "gateway", bare=True, **settings) as program:
        clients = Clients(f"http://127.0.0.1:{await program.port()}", {"Authorization": f"Bearer {secret}"})
        await program.says("listening on", 2)
        workers = program.children()
        assert len(workers) == 2
        async with clients.asking():
            for times in (1, 2):
                await program.replace(times)
        assert clients.failed == {}, program.log.read_text()
        assert clients.counted["answered"] > 10
        await program.until_alone(2)
        os.kill(program.children().pop(), signal.SIGKILL)
        await program.says("was killed by signal 9, and is started again")
        await program.says("listening on", 7)
    assert not (elsewhere / ".local").exists()


async def test_a_gateway_without_credentials_and_key_makes_none(folder: Path) -> None:
    async with supervised(folder, "gateway", gateway_port="0") as program:
        assert await asyncio.wait_for(program.process.wait(), PATIENCE) == 3
    assert not (folder / "state/installation.key").exists()

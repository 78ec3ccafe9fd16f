"""Other people's clients of the gateway, unmodified, over a real connection, with the dummy engine behind it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from api_world import World, new_app, settings_for
from langchain_openai import ChatOpenAI
from test_api_keys import make
from test_api_starving import serving
from test_api_vllm import StartEngine, ready_service
from test_gateway import known

from api.contract.database import Database
from api.web.principal import OPERATOR
from deploy.demo import main, places
from tests import javascript

SAID = "[dummy] echo: What is the capital of France?"
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


class Listening:
    """The API as its own user finds it, and a model named `demo`."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.url = url

    async def run(self, *command: str, **environment: str) -> str:
        """Run a program beside the loop that serves it."""
        done = await asyncio.to_thread(
            subprocess.run, command, env=os.environ | environment, capture_output=True, text=True, cwd=places.ROOT
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
async def api(folder: Path, engine: StartEngine) -> AsyncIterator[Listening]:
    settings = settings_for(folder)
    database = Database(settings.database_url)
    world = World(settings, database, new_app(settings, database, users={os.getuid(): OPERATOR}), uid=os.getuid())
    async with world.running(), serving(world.app) as port:
        service = await ready_service(world, engine(), name="demo")
        await known(world, service, "running", 1)
        yield Listening(world, f"http://127.0.0.1:{port}")
    await database.close()


async def test_the_demos_last_line(api: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is pasted, where the library is there already."""
    (tmp_path / "openai").mkdir()
    monkeypatch.setattr(places.Demo, "folder", tmp_path, raising=False)
    assert await api.run("sh", "-c", main.openai_line(api.url)) == "[dummy] echo: Why is the sky blue?\n"


async def test_openai_in_javascript(api: Listening) -> None:
    key = await make(api.world)
    told = await asyncio.to_thread(javascript.asked, api.url, key["secret"], "demo")
    assert set(told.pop("models")) == {"dummy", "demo"}
    assert told.pop("whole") == told.pop("said") == SAID
    assert told == {
        "completion": "[dummy] echo: Once",
        "unknown": "NotFoundError",
        "wrongKey": "AuthenticationError",
    }


async def test_langchain(api: Listening) -> None:
    model = ChatOpenAI(base_url=f"{api.url}/v1", api_key="unused", model="demo", max_retries=0)
    assert (await model.ainvoke("Hello")).content == "[dummy] echo: Hello"
    assert "".join([str(piece.content) async for piece in model.astream("Hello")]) == "[dummy] echo: Hello"


async def test_openais_classes_of_errors(api: Listening) -> None:
    service = await api.world.create(name="later")
    await api.world.observe(service, reason="Starting", message="It loads its weights: 40 %.")
    await known(api.world, service, "starting")
    good, narrow = await make(api.world), await make(api.world, models=["other"])
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=good["secret"], max_retries=0) as client:
        ask = client.chat.completions.create
        with pytest.raises(openai.NotFoundError, match="nope"):
            await ask(model="nope", messages=QUESTION)
        with pytest.raises(openai.InternalServerError, match="loads its weights: 40 %") as starting:
            await ask(model="later", messages=QUESTION)
        assert (starting.value.code, starting.value.response.headers["retry-after"]) == ("model_not_ready", "10")
        with pytest.raises(openai.BadRequestError, match="max_tokens"):
            await ask(model="demo", messages=QUESTION, max_tokens=-5)
        with pytest.raises(openai.AuthenticationError, match="checksum"):
            await client.with_options(api_key="aif_wrong").models.list()
        with pytest.raises(openai.PermissionDeniedError, match="other"):
            await client.with_options(api_key=narrow["secret"]).chat.completions.create(model="demo", messages=QUESTION)

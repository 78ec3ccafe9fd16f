"""Mistakes are told when they are made: refused where they are plain, else said in the answer to who writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_world import ENGINE, World, new_app, settings_for
from sqlalchemy import insert

from api.contract.configuration import shared_folder
from api.contract.tables import Service

SERVICES = "/api/v1/services"
OLDER = ("nodes", "replicas", "model", "cpu", "cpus", "memory", "gpu", "time", "time_limit", "max_model_len")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"startup_dealy": 3}, "Did you mean startup_delay?"),
        ({"max_modellen": 3}, "Did you mean max_model_len?"),
        ({"enviroment": {}}, "Did you mean environment?"),
        ({"replica": 2}, "Did you mean replicas?"),
        ({"tensor_parallel_size": 2}, "inference/vllm_dummy has no such parameter, inference/vllm has."),
    ],
)
async def test_a_slip_is_refused(shipped: World, config: dict[str, Any], words: str) -> None:
    answer = await shipped.post(SERVICES, {"recipe_name": "vllm_dummy", "config": config})
    assert answer.status_code == 400
    detail = answer.json()["detail"]
    assert detail.startswith(f"config.{next(iter(config))}: ")
    assert words in detail
    assert (await shipped.get(SERVICES)).json() == []


@pytest.mark.parametrize("key", OLDER)
async def test_what_older_clients_send_is_never_a_slip(shipped: World, key: str) -> None:
    value = {"model": "m", "time": 5, "time_limit": 5, "memory": "1G"}.get(key, 1)
    answer = await shipped.post(SERVICES, {"recipe_name": "storage/postgres", "config": {key: value}})
    assert answer.status_code in (200, 422), answer.text  # postgres needs a password
    assert "no such" not in answer.text


async def test_what_has_no_effect_is_kept_and_said(world: World) -> None:
    answer = await world.post(SERVICES, {"recipe_name": ENGINE, "config": {"team": "nlp", "max_model_length": 9}})
    assert answer.status_code == 200
    assert answer.json()["config"] == {"nodes": 1, "team": "nlp", "max_model_length": 9}
    assert answer.json()["warnings"] == [
        "max_model_length: this recipe has no such key: it is kept, and has no effect. Did you mean max_model_len?",
        "team: this recipe has no such key: it is kept, and has no effect.",
    ]
    assert "warnings" not in (await world.post(SERVICES, {"recipe_name": ENGINE})).json()


async def test_a_change_is_looked_at_and_what_was_there_before_is_not(world: World) -> None:
    old = {"id": "old", "name": "old", "recipe_name": ENGINE, "config": {"max_modellen": 3}}
    async with world.database.write() as connection:
        await connection.execute(insert(Service), old)
    changed = await world.patch(f"{SERVICES}/old", {"config": {"max_model_len": 5}})
    assert changed.status_code == 200
    assert changed.json()["warnings"] == [
        "max_modellen: this recipe has no such key: it is kept, and has no effect. Did you mean max_model_len?"
    ]
    refused = await world.patch(f"{SERVICES}/old", {"config": {"extra_arg": ["-x"]}})
    assert (refused.status_code, refused.json()["detail"]) == (
        400,
        "config.extra_arg: inference/engine has no such key. Did you mean extra_args?",
    )


async def test_a_trial_makes_nothing(world: World) -> None:
    tried = await world.post(f"{SERVICES}?dry_run=true", {"recipe_name": ENGINE, "name": "chat", "config": {"x": 1}})
    assert (tried.status_code, tried.json()["name"], len(tried.json()["warnings"])) == (200, "chat", 1)
    assert (await world.get(SERVICES)).json() == []
    refused = await world.post(f"{SERVICES}?dry_run=true", {"recipe_name": ENGINE, "config": {"max_model_len": 0}})
    assert refused.status_code == 422


async def test_nodes_that_would_be_idle_are_refused(shipped: World) -> None:
    for config in ({"nodes": 2}, {"resources": {"nodes": 2}}):
        answer = await shipped.post(SERVICES, {"recipe_name": "vllm", "config": config})
        assert answer.status_code == 422
        assert "runs on one node" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(lambda path: {"model": path}, id="model"),
        pytest.param(lambda path: {"extra_args": ["--chat-template", path]}, id="chat template"),
        pytest.param(lambda path: {"extra_args": [f"--chat-template={path}"]}, id="chat template, ="),
        pytest.param(lambda path: {"extra_args": ["--enable-lora", "--lora-modules", f"sql={path}"]}, id="LoRA"),
        pytest.param(
            lambda path: {"extra_args": ["--lora-modules", f'{{"name": "sql", "path": "{path}"}}']}, id="LoRA, JSON"
        ),
        pytest.param(lambda path: {"extra_args": ["--speculative_config", f'{{"model": "{path}"}}']}, id="draft model"),
    ],
)
async def test_a_path_that_no_container_sees(shipped: World, tmp_path: Path, config: Any) -> None:
    """It is on this host, and outside of every folder that is bound: it can't be meant otherwise."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "models" / "inside").mkdir(parents=True)
    for name, code in (("outside", 422), ("models/inside", 200), ("nowhere", 200), ("models/nowhere", 200)):
        answer = await shipped.post(SERVICES, {"recipe_name": "vllm", "config": config(str(tmp_path / name))})
        assert answer.status_code == code, answer.text
        if code == 422:
            told = answer.json()["detail"][0]["msg"]
            assert f"does not see {tmp_path / name}" in told
            assert "models.folders" in told


@pytest.mark.parametrize("path", ["./qwen", "~/models/qwen", "../qwen"])
async def test_a_path_that_is_not_a_whole_one(shipped: World, path: str) -> None:
    answer = await shipped.post(SERVICES, {"recipe_name": "vllm", "config": {"model": path}})
    assert (answer.status_code, "not an absolute path" in answer.text) == (422, True)


async def test_an_unknown_recipe_is_told_what_there_is(shipped: World) -> None:
    for name, meant in (("inference/vlm", "inference/vllm"), ("postgress", "postgres")):
        answer = await shipped.post(SERVICES, {"recipe_name": name})
        assert answer.status_code == 404
        assert meant in answer.json()["detail"]
    assert "inference/vllm_dummy" in (await shipped.post(SERVICES, {"recipe_name": "zzz"})).json()["detail"]


@pytest.fixture
async def shipped(world: World, tmp_path: Path) -> Any:
    """The recipes of this repository, and a folder of models."""
    settings = settings_for(
        world.settings.state_dir.parent, recipes=str(shared_folder("recipes")), models__folders=str(tmp_path / "models")
    )
    own = World(settings, world.database, new_app(settings, world.database))
    async with own.running():
        yield own

"""A site whose models lie in a folder of the nodes: what an engine can't see is told before it holds a GPU for long."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.system import ROOT, System, wait_for
from tests.sites.conftest import site
from tests.sites.model_hub import MODEL, ModelHub

TOOLS = ROOT / ".local" / "tools"
FETCH = """\
name: fetch
category: batch
description: Downloads a model, as engines do.
version: 1.0.0
kind: job
container_def: ../host.def
program: ["{vllm}/bin/python", -c]
command: ["from huggingface_hub import snapshot_download; print(snapshot_download('{model}'))"]
binds: ["/usr:/usr:ro", "{vllm}:{vllm}:ro"]
environment: {{HF_ENDPOINT: "{url}", HF_HUB_DISABLE_XET: "1", HF_HUB_DISABLE_TELEMETRY: "1"}}
resources: {{nodes: 1, cpu: 1, memory: 512M, time_limit: 5}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for name in ("models/tiny", "elsewhere/tiny"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def system(apptainer: str, folder: Path) -> Iterator[System]:
    with site(apptainer, more=f'[models]\nfolders = ["{folder}/models"]\n') as system:
        yield system


def first_end(system: System, key: str) -> dict[str, Any]:
    """Wait for the end of a service's first attempt; it has no other one of its kind before people look."""
    wait_for(
        lambda: any(attempt["outcome"] for attempt in system.attempts(key)), "it ended", story=lambda: system.story(key)
    )
    return system.attempts(key)[0]


def declare(system: System, key: str, model: Path) -> None:
    """Write a service by SQL, which nobody looks at beforehand."""
    config = json.dumps({"model": str(model)})
    system.sql("INSERT INTO services (id, recipe_name, config) VALUES (?, 'inference/vllm_dummy', ?)", key, config)


def test_a_model_in_a_folder_of_the_sites_is_served(system: System, folder: Path) -> None:
    key = system.create(model=str(folder / "models" / "tiny"))
    system.wait_status(key, "running")
    cache = system.folder / "run" / "models"
    assert cache.stat().st_mode & 0o777 == 0o700
    system.delete(key)


def test_a_model_that_no_container_sees_is_refused_at_once(system: System, folder: Path) -> None:
    asked = {"recipe_name": "inference/vllm_dummy", "config": {"model": str(folder / "elsewhere" / "tiny")}}
    answer = system.client.post("/api/v1/services", json=asked)
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem["loc"] == ["body", "config", "model"]
    assert "models.folders" in problem["msg"]


@pytest.mark.parametrize(
    ("key", "model", "words"),
    [
        ("misspelt", "models/tinny", "Did you mean {folder}/models/tiny?"),
        ("unbound", "elsewhere/tiny", "is not bound into the container"),
        ("nowhere", "nowhere/tiny", "neither on"),
    ],
)
def test_a_model_that_the_engine_does_not_see(system: System, folder: Path, key: str, model: str, words: str) -> None:
    declare(system, key, folder / model)
    ended = first_end(system, key)
    assert ended["outcome"] == "PathUnseen", system.story(key)
    assert str(folder / model) in ended["message"]
    assert words.format(folder=folder) in ended["message"]
    assert ended["serving_at"] is None
    said = ended["message"].splitlines()[0]
    wait_for(lambda: said in system.service(key)["message"], "it is told", story=lambda: system.story(key))
    system.delete(key)


def test_what_sql_has_misspelt_runs_and_is_told(system: System) -> None:
    config = json.dumps({"startup_dealy": 1})
    system.sql("INSERT INTO services (id, recipe_name, config) VALUES ('slip', 'inference/vllm_dummy', ?)", config)
    service = system.wait_status("slip", "running")
    (accepted,) = [one for one in service["conditions"] if one["type"] == "Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("True", "ValidWithWarnings")
    assert "Did you mean startup_delay?" in accepted["message"]
    system.delete("slip")


def test_a_model_is_downloaded_once_by_jobs_that_run_at_a_time_and_after(system: System) -> None:
    vllm, model = (TOOLS / name for name in ("vllm", "models/tiny"))
    if not (vllm / "bin" / "python").exists() or not model.exists():
        pytest.skip("there is no vLLM in .local/tools: `make test` installs it")
    with ModelHub(model).running() as hub:
        recipe = system.folder / "recipes" / "batch" / "fetch.yaml"
        recipe.parent.mkdir()
        recipe.write_text(FETCH.format(vllm=vllm.resolve(), model=MODEL, url=hub.url))
        shutil.copy(ROOT / "recipes" / "host.def", recipe.parents[1])
        for keys in ([system.create("batch/fetch") for _ in range(3)], [system.create("batch/fetch")]):
            for key in keys:
                system.wait_status(key, "completed")
    assert hub.sent == Counter({file.name: 1 for file in model.iterdir()})
    snapshots = system.folder / "run" / "models" / "hub" / "models--org--tiny" / "snapshots"
    assert {file.name for file in snapshots.glob("*/*")} == {file.name for file in model.iterdir()}

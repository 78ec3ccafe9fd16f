"""One path with nothing stood in for: REST, controller, Slurm, Apptainer, vLLM."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import ROOT, System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]

TOOLS = ROOT / ".local" / "tools"
START_SECONDS = 400.0
"""A cold first import alone may take two minutes."""

RECIPE = """
[recipe."inference/vllm"]
container_def = "../host.def"
program = ["{vllm}/bin/vllm"]
binds = ["/usr:/usr:ro", "{vllm}:{vllm}:ro", "{model}:{model}:ro", "{cache}:/tmp/cache:rw"]
resources = {{ cpu = 2, memory = "3500M", gpu = 0, time_limit = 30 }}
[recipe."inference/vllm".environment]
HF_HUB_OFFLINE = "1"
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_ENABLE_V1_MULTIPROCESSING = "0"
XDG_CACHE_HOME = "/tmp/cache"
VLLM_CACHE_ROOT = "/tmp/cache/vllm"
[recipe."inference/vllm".parameters.extra_args]
default = ["--enforce-eager", "--distributed-executor-backend", "uni"]
"""


@pytest.fixture(scope="module")
def system(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    vllm, model = TOOLS / "vllm", TOOLS / "models" / "tiny"
    if not (vllm / "bin" / "vllm").exists() or not model.exists():
        pytest.skip("there is no vLLM in .local/tools: `make test` installs it")
    cache = TOOLS / "vllm-cache"
    cache.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="af-e2e-"))
    more = RECIPE.format(vllm=vllm, model=model, cache=cache)
    with running(System(folder, slurm_cluster, apptainer, more)) as system:
        yield system
    shutil.rmtree(folder)


def test_a_model_answers(system: System) -> None:
    model = str(TOOLS / "models" / "tiny")
    key = system.create(
        "inference/vllm", name="tiny", model=model, served_model_name="tiny", max_model_len=256, dtype="float32"
    )
    seen: list[str] = []

    def is_running() -> bool:
        word = system.status(key)
        seen.extend([] if word in seen else [word])
        assert word != "failed", system.story(key)
        return word == "running"

    wait_for(is_running, "vLLM is ready", START_SECONDS, lambda: system.story(key))
    assert "starting" in seen
    answer = system.prompt(key, "What is the capital of France?")
    assert answer["success"] is True, answer
    assert answer["endpoint_used"] == "chat"
    assert answer["usage"]["completion_tokens"] > 0
    assert system.client.get(f"/api/v1/vllm/{key}/models").json()["models"] == ["tiny"]
    logs = system.client.get(f"/api/v1/services/{key}/logs").json()["logs"]
    assert "Application startup complete" in logs
    attempt = system.open_attempt(key)
    system.delete(key)
    assert system.status(key) == "cancelled"
    record = next((system.folder / "run").glob(f"*/{key}/{attempt['token']}/exit.json")).read_text()
    assert "Terminated" in record

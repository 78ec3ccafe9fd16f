"""One path with nothing stood in for: REST, controller, Slurm, Apptainer, vLLM."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from langchain_openai import ChatOpenAI

from tests import javascript
from tests.cluster.processes import job, listening
from tests.cluster.system import ROOT, System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]

TOOLS = ROOT / ".local" / "tools"
START_SECONDS = 400.0
"""A cold first import alone may take two minutes."""
LOOPBACK = "0100007F"
"""127.0.0.1, as /proc/net/tcp has it."""

RECIPE = """
[recipe."inference/vllm"]
container_def = "../host.def"
program = ["{vllm}/bin/vllm"]
binds = ["/usr:/usr:ro", "{vllm}:{vllm}:ro", "{model}:{model}:ro", "{cache}:/tmp/cache:rw", "{hosts}:/etc/hosts:ro"]
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
UNPROVED = ("/invocations", "/tokenize", "/scale_elastic_ep", "/v1/models", "/metrics")
"""Paths of vLLM's, most of which answer without its key."""


def address() -> str:
    """Return an address of this host that others on its network reach; loopback if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as looking:
        try:
            looking.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(looking.getsockname()[0])


@pytest.fixture(scope="module")
def system(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    vllm, model = (TOOLS / name for name in ("vllm", "models/tiny"))
    if not (vllm / "bin" / "vllm").exists() or not model.exists():
        pytest.skip("there is no vLLM in .local/tools: `make test` installs it")
    cache = TOOLS / "vllm-cache"
    cache.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="af-e2e-"))
    hosts = folder / "hosts"
    # as on a cluster's nodes, and unlike many a laptop: what listens on the host's own name is open to its network
    hosts.write_text(f"127.0.0.1 localhost\n{address()} {socket.gethostname()}\n")
    more = RECIPE.format(vllm=vllm.resolve(), model=model, cache=cache, hosts=hosts)
    with running(System(folder, slurm_cluster, apptainer, more)) as system:
        yield system
    shutil.rmtree(folder)


def serve(system: System, name: str, **config: Any) -> tuple[str, list[str]]:
    """Create a service of the tiny model; return its id and the statuses until it runs."""
    model = str(TOOLS / "models" / "tiny")
    common = {"model": model, "served_model_name": "tiny", "max_model_len": 256, "dtype": "float32"}
    key = system.create("inference/vllm", name=name, **common, **config)
    seen: list[str] = []

    def is_running() -> bool:
        word = system.status(key)
        seen.extend([] if word in seen else [word])
        assert word != "failed", system.story(key)
        return word == "running"

    wait_for(is_running, "vLLM is ready", START_SECONDS, lambda: system.story(key))
    return key, seen


def check_sockets(system: System, key: str) -> None:
    """Look what the job's processes listen on: the door, and what binds vLLM's ranks, on loopback alone."""
    attempt = system.open_attempt(key)
    found = listening(job(system.folder / "run", attempt["token"]))
    assert attempt["port"] in {port for _, _, port in found}
    others = [(command, where) for command, where, port in found if port != attempt["port"]]
    assert not [one for one in others if one[1] != LOOPBACK or not one[0].startswith("VLLM::")], others


def check_strangers(system: System, key: str) -> None:
    """Ask the door for what vLLM answers to everybody, without a certificate: in the clear, and under TLS."""
    port = int(system.open_attempt(key)["port"])
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    for path in UNPROVED:
        for line in (
            http.client.HTTPConnection("127.0.0.1", port, timeout=20),
            http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=nobody),
        ):
            with pytest.raises((OSError, http.client.HTTPException)):
                line.request("POST", path, body=b"{}")
                line.getresponse()
            line.close()


QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


def check_openai(system: System) -> None:
    """Ask as clients of OpenAI's API do, with its own library."""
    with openai.OpenAI(base_url=f"{system.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        whole = client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=8, temperature=0)
        assert whole.usage is not None
        assert whole.usage.completion_tokens > 0
        stream = client.chat.completions.create(
            model="tiny", messages=QUESTION, max_tokens=8, temperature=0, stream=True
        )
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert said == whole.choices[0].message.content
        assert client.completions.create(model="tiny", prompt="Once", max_tokens=4).choices[0].text
        response = client.responses.create(model="tiny", input="Hello", max_output_tokens=16)
        assert response.usage is not None
        with pytest.raises(openai.NotFoundError, match="nope"):
            client.chat.completions.create(model="nope", messages=QUESTION)
        with pytest.raises(openai.BadRequestError, match="context length"):
            client.completions.create(model="tiny", prompt="word " * 1000)


def check_others(system: System) -> None:
    """Ask with OpenAI's library in JavaScript, and with LangChain's."""
    told = javascript.asked(system.url, "unused", "tiny")
    assert told["models"] == ["tiny"]
    assert told["whole"] == told["said"] != ""
    assert told["completion"]
    assert [told[case] for case in ("unknown", "tooLong")] == ["NotFoundError", "BadRequestError"]
    assert told["wrongKey"] == "AuthenticationError"
    model = ChatOpenAI(base_url=f"{system.url}/v1", api_key="unused", model="tiny", max_retries=0, max_tokens=8)
    assert model.invoke(QUESTION).content
    assert "".join(str(piece.content) for piece in model.stream(QUESTION))


def check_anthropic(system: System) -> None:
    """Ask as clients of Anthropic's API do, with its own library."""
    with anthropic.Anthropic(base_url=system.url, api_key="unused", max_retries=0, timeout=120) as client:
        message = client.messages.create(model="tiny", max_tokens=8, messages=QUESTION)
        assert message.usage.output_tokens > 0
        with client.messages.stream(model="tiny", max_tokens=8, messages=QUESTION) as stream:
            assert stream.get_final_message().usage.output_tokens > 0
        assert client.messages.count_tokens(model="tiny", messages=QUESTION).input_tokens > 0
        with pytest.raises(anthropic.NotFoundError, match="nope"):
            client.messages.create(model="nope", max_tokens=8, messages=QUESTION)


def test_a_model_answers(system: System) -> None:
    key, seen = serve(system, "tiny")
    assert "starting" in seen
    answer = system.prompt(key, "What is the capital of France?")
    assert answer["success"] is True, answer
    assert answer["endpoint_used"] == "chat"
    assert answer["usage"]["completion_tokens"] > 0
    assert system.client.get(f"/api/v1/vllm/{key}/models").json()["models"] == ["tiny"]
    logs = system.client.get(f"/api/v1/services/{key}/logs").json()["logs"]
    assert "Application startup complete" in logs
    check_openai(system)
    check_anthropic(system)
    check_others(system)
    check_sockets(system, key)
    check_strangers(system, key)
    assert system.ask(key, "POST", "/tokenize", json={"prompt": "hello"}).status_code == 200, "it is there to be asked"
    attempt = system.open_attempt(key)
    system.delete(key)
    assert system.status(key) == "cancelled"
    record = next((system.folder / "run").glob(f"*/{key}/{attempt['token']}/exit.json")).read_text()
    assert "Terminated" in record


def test_two_ranks_open_nothing_to_others(system: System) -> None:
    """Split over two processes, as over two GPUs of a node."""
    threads, few = {"VLLM_CPU_OMP_THREADS_BIND": "0|0"}, ["--enforce-eager", "--num-gpu-blocks-override", "16"]
    key, _ = serve(system, "two", tensor_parallel_size=2, environment=threads, extra_args=few)
    check_sockets(system, key)
    system.delete(key)

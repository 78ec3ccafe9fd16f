"""What public recipes give `vllm serve` can be said to ours, and vLLM itself reads the same from it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import Any

import pytest

from api.contract.configuration import shared_folder
from api.contract.recipes.book import Library
from api.contract.recipes.resolve import resolve
from api.contract.settings import SlurmSettings
from controller.core.attempt import Attempt
from controller.core.script import Site, parameters
from controller.wrapper.sandbox.environment import Runtime
from tests.cluster.system import ROOT
from tests.e2e.launch_lines import LINES

pytestmark = pytest.mark.e2e

VLLM = ROOT / ".local" / "tools" / "vllm"
READ = """
import json, sys
from vllm.entrypoints.cli import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser(prog="vllm")
commands = parser.add_subparsers(dest="subparser")
for command in serve.cmd_init():
    command.subparser_init(commands)
said = []
for words in json.load(sys.stdin):
    try:
        said.append({name: repr(value) for name, value in vars(parser.parse_args(words)).items()})
    except (SystemExit, Exception) as error:
        said.append({"error": repr(error)})
print("\\n" + json.dumps(said))
"""
REACHED = ("host", "port", "uds")
"""How an engine is reached is the recipe's affair."""
SITE = Site(apptainer="apptainer", image_cache="/i", port_range=None, volumes="/v", python="python3")
ATTEMPT = Attempt(token="t", service_id="s", replica=0, incarnation=1, generation=1, digest="d", intent_at=0.0)
FILE = "tensor-parallel-size: 4\nkv-cache-dtype: fp8\nmax-num-seqs: 512\nserved-model-name: [a, b]\n"


def config_of(line: str) -> dict[str, Any]:
    """Say a launch line to the recipe, as people would; where it has a parameter, by that."""
    words = shlex.split(line)
    start = words.index("serve")
    config: dict[str, Any] = {"model": words[start + 1], "extra_args": []}
    config["environment"] = dict(word.split("=", 1) for word in words[: start - 1])
    rest = words[start + 2 :]
    while rest:
        option = rest.pop(0)
        if option in ("--served-model-name", "--config"):
            values = []
            while rest and not rest[0].startswith("-"):
                values.append(rest.pop(0))
            key = "config_file" if option == "--config" else "served_model_name"
            config[key] = values if len(values) > 1 else values[0]
        elif option in ("--host", "--port"):
            rest.pop(0)
        elif option in ("--tensor-parallel-size", "--max-model-len"):
            config[option.removeprefix("--").replace("-", "_")] = int(rest.pop(0))
        else:
            config["extra_args"].append(option)
    return config


def words_of(config: dict[str, Any]) -> list[str]:
    """Return the words that the job runs in its container."""
    recipe = Library([shared_folder("recipes")], {}).book().recipes["inference/vllm"]
    spec = resolve(recipe, config, replicas=None, site=SlurmSettings())
    assert not [text for text in spec.warnings or () if not text.startswith("resources.gpu")]
    told = parameters(spec, ATTEMPT, None, SITE)
    runtime = Runtime(port=None, socket="/engine/socket", host="127.0.0.1", files="/recipe")
    assert config["environment"].items() <= told.environment.items()
    return [runtime.join(text) for text in told.command]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """What vLLM reads from each public line, and from ours: all in one process, whose start takes long."""
    if not (VLLM / "bin" / "python").exists():
        pytest.skip("there is no vLLM in .local/tools: `make test` installs it")
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "arguments.yaml").write_text(FILE)
    lines = [line.replace("Llama3.3_Hopper.yaml", f"{folder}/arguments.yaml") for line in LINES.values()]
    public = [shlex.split(line) for line in lines]
    both = [words[words.index("serve") :] for words in public] + [words_of(config_of(line))[1:] for line in lines]
    done = subprocess.run(
        [str(VLLM / "bin" / "python"), "-c", READ],
        input=json.dumps(both),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "HOME": str(folder)},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    return dict(zip(LINES, zip(said[: len(LINES)], said[len(LINES) :], strict=True), strict=True))


@pytest.mark.parametrize("name", LINES)
def test_a_public_launch_line_means_the_same_here(
    read: dict[str, tuple[dict[str, str], dict[str, str]]], name: str
) -> None:
    theirs, ours = read[name]
    assert "error" not in theirs, theirs
    assert "error" not in ours, ours
    assert ours["uds"] == "'/engine/socket'"
    assert {key: ours[key] for key in ours if key not in REACHED} == {
        key: theirs[key] for key in theirs if key not in REACHED
    }

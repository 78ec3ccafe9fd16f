"""Where the demo keeps its things, and the settings that it is run with."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.trouble import Trouble

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / ".local"
SCRIPTS = ROOT / "deploy" / "local"
PROGRAM = ROOT / ".venv" / "bin" / "ai-factory"

SERVICE = "demo"
RECIPE = "inference/vllm"
DEFAULT_PORT = 8001
QUESTION = "What is the capital of France?"


class Tools:
    """What is installed once and shared with the tests."""

    folder = LOCAL / "tools"
    apptainer = folder / "apptainer"
    apptainer_command = apptainer / "bin" / "apptainer"
    vllm = folder / "vllm"
    model = folder / "models" / "smollm2"
    log = folder / "log"


class Folders:
    """The demo's own; apart for each kind of cluster, whose jobs the other's state must not mean."""

    def __init__(self) -> None:
        self.select(existing=False)

    def select(self, *, existing: bool) -> None:
        """Turn to the folders for this kind of cluster."""
        self.existing = existing
        self.folder = LOCAL / ("demo-existing" if existing else "demo")
        self.slurm = self.folder / "slurm"
        self.state = self.folder / "state"
        self.run = self.folder / "run"
        self.log = self.folder / "log"
        self.cache = self.folder / "cache"
        self.config = self.folder / "ai-factory.toml"
        self.server = self.folder / "server.json"


Demo = Folders()


@dataclass(frozen=True)
class Choices:
    """What the environment asks for.

    AI_FACTORY_DEMO_CLUSTER    private (default) or existing: the Slurm whose sbatch is on PATH
    AI_FACTORY_DEMO_PARTITION  of an existing cluster; its default one otherwise
    AI_FACTORY_DEMO_PORT       8001, or the next free one
    AI_FACTORY_DEMO_ONCE       1: end after the answer instead of waiting for Ctrl-C
    AI_FACTORY_DEMO_TIMEOUT    seconds that the model may take to start (600)
    """

    existing: bool
    partition: str
    port: int
    once: bool
    timeout: float


KEYS = ("CLUSTER", "PARTITION", "PORT", "ONCE", "TIMEOUT")


def choices() -> Choices:
    """Read them from the environment."""
    value = {key: os.environ.get(f"AI_FACTORY_DEMO_{key}", "") for key in KEYS}
    if value["CLUSTER"] not in ("", "private", "existing"):
        raise Trouble("AI_FACTORY_DEMO_CLUSTER has a bad value", value["CLUSTER"], advice="private or existing")
    existing = value["CLUSTER"] == "existing"
    try:
        return Choices(
            existing=existing,
            partition=value["PARTITION"] or ("" if existing else "main"),
            port=int(value["PORT"] or DEFAULT_PORT),
            once=value["ONCE"] not in ("", "0"),
            timeout=float(value["TIMEOUT"] or 600),
        )
    except ValueError as error:
        raise Trouble("a number was expected in AI_FACTORY_DEMO_PORT and AI_FACTORY_DEMO_TIMEOUT", str(error)) from None


def program_environment() -> dict[str, str]:
    """Return the environment for ai-factory: only the demo's file sets anything."""
    return {key: value for key, value in os.environ.items() if not key.startswith("AI_FACTORY_")}


def check_place() -> None:
    """Refuse early what Slurm and Apptainer would refuse late and obscurely."""
    if not re.fullmatch(r"[A-Za-z0-9_./+-]+", str(ROOT)):
        raise Trouble(
            f"the demo cannot run in {ROOT}",
            "Slurm's configuration takes no blanks or special characters in a path",
            advice="move the checkout to a folder with a plain name",
        )
    if not PROGRAM.exists():
        raise Trouble(f"there is no {PROGRAM}", advice="make install")


def write_config(wanted: Choices) -> None:
    """Write the settings file: this machine's Slurm, image, program and model."""

    def table(name: str, **values: object) -> str:
        lines = [f"{key} = {toml(value)}" for key, value in values.items()]
        return "\n".join([f"[{name}]" if name else "", *lines]) + "\n"

    def toml(value: object) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
        return json.dumps(value, ensure_ascii=False)

    slurm = {"partition": wanted.partition} if wanted.partition else {}
    if not wanted.existing:
        slurm["conf"] = str(Demo.slurm / "etc" / "slurm.conf")
    recipe = f'recipe."{RECIPE}"'
    text = "# Written by `make demo` at every start.\n" + "\n".join(
        [
            table("", state_dir=str(Demo.state), run_dir=str(Demo.run)).lstrip(),
            table("slurm", **slurm),
            table("apptainer", command=str(Tools.apptainer_command)),
            table(
                recipe,
                # the machine's own /usr: vLLM lies in a virtual environment that is bound into it
                container_def="../host.def",
                program=[str(Tools.vllm / "bin" / "vllm")],
                binds=[
                    "/usr:/usr:ro",
                    f"{Tools.vllm}:{Tools.vllm}:ro",
                    f"{Tools.model}:{Tools.model}:ro",
                    f"{Demo.cache}:{Demo.cache}",
                ],
                environment={
                    "HF_HUB_OFFLINE": "1",
                    "VLLM_CPU_KVCACHE_SPACE": "1",
                    # one process instead of two: a quicker start and less memory
                    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                    # its look at the model's code takes 10 s, and is kept here for the next start
                    "VLLM_CACHE_ROOT": str(Demo.cache),
                },
                resources={"cpu": min(2, os.cpu_count() or 1), "memory": "4G", "gpu": 0, "time_limit": "08:00:00"},
            ),
            table(f"{recipe}.parameters.model", default=str(Tools.model)),
            table(f"{recipe}.parameters.served_model_name", default="smollm2-135m-instruct"),
            table(f"{recipe}.parameters.max_model_len", default=2048),
            # Half precision makes so small a model talk nonsense on some processors.
            table(f"{recipe}.parameters.dtype", default="float32"),
            table(
                f"{recipe}.parameters.extra_args",
                default=["--enforce-eager", "--distributed-executor-backend", "uni"],
            ),
        ]
    )
    Demo.config.parent.mkdir(parents=True, exist_ok=True)
    new = Demo.config.with_suffix(".new")
    new.write_text(text)
    new.rename(Demo.config)

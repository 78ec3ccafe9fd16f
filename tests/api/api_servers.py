"""Real processes for tests of the API: the program itself, and engines behind it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api_world import RECIPES

from tests.descriptors import limited_to

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PROGRAM = ROOT / "recipes/inference/vllm_dummy_engine.py"


@dataclass
class RunningEngine:
    port: int
    token: str


def wait_for(pattern: str, log: Path, process: subprocess.Popen[Any]) -> int:
    """Wait until a log names a port."""
    while (match := re.search(pattern, log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    return int(match[1])


@dataclass
class LiveServer:
    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    errors: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def start_server(folder: Path, *, descriptors: int | None = None, **flags: str) -> LiveServer:
    """Start the program itself on a free port, and wait until it listens; it may have so many descriptors."""
    process, errors = spawn_server(folder, descriptors=descriptors, api__port="0", **flags)
    return LiveServer(process, wait_for(r"listening on \S+ port (\d+)", errors, process), folder, errors)


def spawn_server(folder: Path, *, descriptors: int | None = None, **flags: str) -> tuple[subprocess.Popen[bytes], Path]:
    values = {"state_dir": str(folder / "state"), "run_dir": str(folder / "run"), "recipes": str(RECIPES), **flags}
    errors = folder / f"stderr-{len(list(folder.glob('stderr-*')))}.log"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [
                *limited_to(descriptors),
                sys.executable,
                "-m",
                "api.http",
                *(word for name, value in values.items() for word in ("--set", f"{name.replace('__', '.')}={value}")),
            ],
            cwd=ROOT,
            stderr=stderr,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
    return process, errors

"""Jobs as Slurm would start them: the shipped bundle, a job folder, Slurm's minimal environment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from controller.wrapper.signals import StoppedError

ENGINE = Path(__file__).parents[3] / "recipes/inference/vllm_dummy_engine.py"
Result = TypeVar("Result")


def until(look: Callable[[], Result], seconds: float = 60.0) -> Result:
    """Poll until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = look()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {look}")


class Calm:
    """Signals that never come, and time that passes at once."""

    stop: signal.Signals | None = None
    waited = 0.0

    def wait(self, seconds: float) -> None:
        self.waited += seconds
        time.sleep(0.005)

    def check(self) -> None:
        if self.stop is not None:
            raise StoppedError(self.stop.name)


class Job:
    """One job folder, and the wrapper at work in it."""

    def __init__(self, folder: Path, wrapper: Path, temporary: Path) -> None:
        self.folder = folder
        self.wrapper = wrapper
        self.temporary = temporary
        self.process: subprocess.Popen[bytes] | None = None
        self.parameters: dict[str, Any] = {
            "version": 1,
            "token": f"af-i-{folder.name}-0-1",
            "listens": False,
            "host": "127.0.0.1",
        }
        folder.mkdir(mode=0o700)
        temporary.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SLURM_JOB_ID": "77",
            "PATH": "/usr/sbin:/usr/bin:/bin",
            "TMPDIR": str(self.temporary),
            "CUDA_VISIBLE_DEVICES": "0,3",
            "ROCR_VISIBLE_DEVICES": "GPU-5a1d,GPU-77f0",
            "HIP_VISIBLE_DEVICES": "1",
            "GPU_DEVICE_ORDINAL": "1",
            "ZE_AFFINITY_MASK": "0.1",
            "UNRELATED": "stays outside",
        }

    def write(self, **parameters: Any) -> None:
        path = self.folder / "params.json"
        path.write_text(json.dumps({**self.parameters, **parameters}))
        path.chmod(0o600)

    def start(self, *arguments: str, argv: list[str] | None = None, **environment: str) -> subprocess.Popen[bytes]:
        argv = argv or [sys.executable, "-I", str(self.wrapper), str(self.folder), *arguments]
        with (self.folder / "stdout.log").open("ab") as out, (self.folder / "stderr.log").open("ab") as err:
            self.process = subprocess.Popen(
                argv, env={**self.environment, **environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        return self.process

    def run(self, *arguments: str, seconds: float = 60.0, **environment: str) -> int:
        return self.start(*arguments, argv=None, **environment).wait(seconds)

    def run_command(self, *command: Any, **parameters: Any) -> int:
        self.write(command=list(command), **parameters)
        return self.run()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 60.0) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def read(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            return {}
        return content

    @property
    def state(self) -> dict[str, Any]:
        return self.read("state.json")

    @property
    def exit(self) -> dict[str, Any]:
        return self.read("exit.json")

    def until_step(self, step: str, seconds: float = 60.0) -> dict[str, Any]:
        return until(lambda: self.state if self.state.get("step") == step else {}, seconds)

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout.log").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr.log").read_text()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def running(marker: str) -> list[int]:
    """Return the processes in whose command line this stands, in whatever namespace."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            if marker in path.read_text(errors="replace"):
                found.append(int(path.parent.name))
    return found

"""What must be there before anything can be served: Slurm, Apptainer, vLLM, a model."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.places import SCRIPTS, Demo, Tools
from deploy.demo.progress import Board, last_line
from deploy.demo.trouble import Trouble

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


@dataclass
class Step:
    """One script of deploy/local."""

    title: str
    command: list[str | Path]
    log: Path
    """Where the script writes what it does, for the live line."""
    environment: dict[str, str] = field(default_factory=dict)


def chains(existing: bool) -> list[list[Step]]:
    """List the steps; each chain may run beside the others."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    slurm = Step(
        "Slurm",
        [SCRIPTS / "slurm-up", Demo.slurm],
        Demo.slurm / "log" / "apt.log",
        {"NODES": "2", "CPUS": str(os.cpu_count() or 1), "MEM": str(memory), "GPUS": "0"},
    )
    steps = [
        [
            Step("Apptainer", [SCRIPTS / "install-apptainer", Tools.apptainer], Tools.log / "install-apptainer.log"),
        ],
        [
            Step(
                "vLLM for CPUs (420 MB the first time)",
                [SCRIPTS / "install-vllm", Tools.vllm],
                Tools.log / "install-vllm.log",
            ),
            Step(
                "Model SmolLM2-135M-Instruct",
                [SCRIPTS / "make-model", "smollm2", Tools.model, Tools.vllm],
                Tools.model.with_suffix(".log"),
            ),
        ],
    ]
    return steps if existing else [[slurm], *steps]


def check_machine(existing: bool) -> None:
    """Refuse early what would fail late."""
    if existing and not shutil.which("sbatch"):
        raise Trouble("there is no sbatch on PATH", "AI_FACTORY_DEMO_CLUSTER=existing uses the machine's own Slurm")
    Tools.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(Tools.folder).free / 2**30
    if free < 6 and not Tools.vllm.exists():
        raise Trouble(
            f"only {free:.1f} GB are free at {Tools.folder}", "vLLM and the model take 3 GB, their download 1 GB"
        )
    if os.geteuid() != 0 and _packages_missing(existing):
        sudo = shutil.which("sudo")
        # asked now, before the live lines would hide sudo's question
        if not sudo or subprocess.run([sudo, "-v"], check=False).returncode:
            raise Trouble(
                "some packages of the distribution are missing, and only root can install them",
                advice="run `make demo` as root or as a user who may use sudo",
            )


def _packages_missing(existing: bool) -> bool:
    needed = [] if existing else ["slurmctld", "slurmd", "slurmdbd", "sbatch", "munged", "mariadbd"]
    if not shutil.which("apptainer") and not Tools.apptainer_command.exists():
        needed += ["patchelf", "newuidmap", "unsquashfs", "squashfuse", "fuse2fs", "fuse-overlayfs", "fusermount3"]
    return not all(shutil.which(name, path=PATH) for name in needed) or not any(
        Path(folder).glob("libnuma.so.1")
        for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")
    )


def install(board: Board, existing: bool) -> None:
    """Run all chains side by side; the first failure ends the others."""
    stop = threading.Event()
    started: list[subprocess.Popen[bytes]] = []
    todo = chains(existing)
    with ThreadPoolExecutor(len(todo)) as pool:
        futures = [pool.submit(_run_chain, chain, board, stop, started) for chain in todo]
        try:
            while unfinished := wait(futures, timeout=0.2).not_done:
                if any(future.exception() for future in futures if future not in unfinished):
                    break
        finally:
            stop.set()
            for process in started:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
    # of several failures, the one that is not merely "ended because of another"
    failures = [error for future in futures if (error := future.exception())]
    for error in sorted(failures, key=lambda error: isinstance(error, _Stopped)):
        raise error


class _Stopped(Exception):  # noqa: N818
    pass


def _silent(step: Step, code: int) -> Trouble:
    return Trouble(f"{step.command[0]} ended with {code}", last_line(step.log), step.log, "read the log")


def _run_chain(chain: list[Step], board: Board, stop: threading.Event, started: list[subprocess.Popen[bytes]]) -> None:
    for step in chain:
        if stop.is_set():
            raise _Stopped
        with board.step(step.title, log=step.log):
            process = subprocess.Popen(
                step.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | step.environment,
                process_group=0,  # so that all of it can be ended at once; the terminal stays, for sudo's sake
            )
            started.append(process)
            _, stderr = process.communicate()
            if stop.is_set() and process.returncode:
                raise _Stopped
            if process.returncode:
                text = stderr.decode(errors="replace").strip()
                raise Trouble(text) if text else _silent(step, process.returncode)

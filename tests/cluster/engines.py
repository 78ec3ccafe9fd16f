"""Engines that tell on themselves: each holds a lock of its replica for as long as it lives, and writes down its start.

An engine that finds its replica's lock held is a second one at that very moment, however short it lasts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tests.cluster.system import ROOT, System

RECIPE = "chaos/engine"
DUMMY = ROOT / "recipes" / "inference"

RECORDED = """
import fcntl, os, pathlib, sys, time
journal = pathlib.Path(sys.argv[1])
token = pathlib.Path(__file__).resolve().parent.parent.name
replica = token.rpartition("-")[0]
lock = os.open(journal / f"{replica}.lock", os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    met = "alone"
except BlockingIOError:
    met, pid = os.pread(lock, 200, 0).decode().split()
    if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
        met = "suspended"
else:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{token} {os.getpid()}".encode(), 0)
os.set_inheritable(lock, True)
line = f"{time.time():.3f} {os.getpid()} {os.environ['SLURM_JOB_ID']} {token} {met}\\n"
with open(journal / "starts", "a") as starts:
    starts.write(line)
engine = str(pathlib.Path(__file__).with_name("vllm_dummy_engine.py"))
os.execv(sys.executable, [sys.executable, engine, *sys.argv[2:]])
"""


@dataclass(frozen=True)
class Start:
    """An engine's start, as it wrote it down itself."""

    at: float
    pid: int
    job_id: int
    token: str
    met: str
    """The token of the engine that ran already; `alone` if none did, `suspended` if that one did not work."""

    @property
    def replica(self) -> str:
        """The token less its incarnation."""
        return self.token.rpartition("-")[0]


class Journal:
    """All starts of the engines of one installation."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._folder = system.folder / "journal"
        self._folder.mkdir()
        recipe = (DUMMY / "vllm_dummy.yaml").read_text()
        recipe = recipe.replace("name: vllm_dummy", "name: engine").replace("category: inference", "category: chaos")
        recipe = recipe.replace("container_def: ../host.def\n", "").replace('binds: ["/usr:/usr:ro"]\n', "")
        program = f'[python3, "{{files}}/recorded.py", "{self._folder}"]'
        recipe = recipe.replace('[python3, "{files}/vllm_dummy_engine.py"]', program)
        recipe = recipe.replace("files: [", "files: [recorded.py, ")
        folder = system.folder / "recipes" / "chaos"
        folder.mkdir()
        (folder / "engine.yaml").write_text(recipe)
        (folder / "recorded.py").write_text(RECORDED)
        (folder / "vllm_dummy_engine.py").write_text((DUMMY / "vllm_dummy_engine.py").read_text())

    def starts(self) -> list[Start]:
        """Return all starts so far."""
        try:
            lines = (self._folder / "starts").read_text().splitlines()
        except FileNotFoundError:
            return []
        words = [line.split(" ") for line in lines]
        return [Start(float(at), int(pid), int(job), token, met) for at, pid, job, token, met in words]

    def doubles(self) -> list[Start]:
        """Return the engines that met another of their replica, and those of a second job under one token."""
        jobs: dict[str, set[int]] = defaultdict(set)
        found = []
        for start in self.starts():
            jobs[start.token].add(start.job_id)
            if start.met not in ("alone", "suspended") or len(jobs[start.token]) > 1:
                found.append(start)
        return found

"""Engines that tell on themselves: each holds a lock of its own for as long as it lives, and writes down its start.

An engine that finds another one's lock held, of its replica, is a second one at that very moment, however short it
lasts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tests.cluster.beside import by_their_rows
from tests.cluster.system import ROOT, System

RECIPE = "chaos/engine"
DUMMY = ROOT / "recipes" / "inference"

RECORDED = """
import fcntl, os, pathlib, sys, time
journal = pathlib.Path(sys.argv[1])
token = pathlib.Path(__file__).resolve().parent.parent.name
locks = journal / token.rpartition("-")[0]
locks.mkdir(exist_ok=True)
turn = os.open(locks, os.O_RDONLY)
fcntl.flock(turn, fcntl.LOCK_EX)
met = []
for file in locks.iterdir():
    other = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        theirs, pid = file.name.split(".")
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        if stat.rpartition(")")[2].split()[0] != "T":
            met.append(theirs)
    os.close(other)
lock = os.open(locks / f"{token}.{os.getpid()}", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)
line = f"{time.time():.3f} {os.getpid()} {os.environ['SLURM_JOB_ID']} {token} {','.join(met)}\\n"
with open(journal / "starts", "a") as starts:
    starts.write(line)
os.close(turn)
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
    met: tuple[str, ...]
    """The tokens of the engines of its replica that worked already."""


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
        return [
            Start(float(at), int(pid), int(job), token, tuple(filter(None, met.split(","))))
            for at, pid, job, token, met in words
        ]

    def doubles(self) -> list[tuple[Start, str]]:
        """Return the engines that met another of their replica without a recorded reason, each with that one's token.

        So are those of a second job under one token.
        """
        may_live = by_their_rows(self.system)
        jobs: dict[str, set[int]] = defaultdict(set)
        found = []
        for start in self.starts():
            jobs[start.token].add(start.job_id)
            found += [(start, met) for met in start.met if not may_live(met, start.token)]
            if len(jobs[start.token]) > 1:
                found.append((start, start.token))
        return found

"""The controller killed while its jobs go on, and while its sbatch outlives it: same ids, no second engine, no orphan.

The moments of its own work have names: see test_failpoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.system import PATIENCE, System, wait_for

pytestmark = pytest.mark.cluster

SLOW_START = {"startup_delay": 3}


def has(system: System, key: str, column: str) -> Callable[[], bool]:
    """Return a condition: the newest attempt has reached that step."""
    return lambda: bool(system.attempts(key)) and system.attempts(key)[-1][column] is not None


@pytest.mark.parametrize("step", ["started_at", "launched_at", "ready_at"])
def test_killed_after(system: System, step: str) -> None:
    key = system.create(**SLOW_START)
    wait_for(has(system, key, step), f"{step} is known", PATIENCE, lambda: system.story(key))
    system.kill("controller")
    before = system.attempts(key)[-1]
    system.start("controller")
    system.wait_status(key, "running")
    after = system.attempts(key)
    assert [a["token"] for a in after] == [before["token"]]
    assert before["job_id"] in (None, after[0]["job_id"])
    assert system.running_of(key) == [after[0]["job_id"]]
    system.delete(key)


def test_killed_while_a_dead_job_is_replaced(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    system.slurm("scancel", str(system.open_attempt(key)["job_id"]))
    wait_for(lambda: system.attempts(key)[0]["closed_at"], "its end is seen", PATIENCE, lambda: system.story(key))
    system.kill("controller")
    system.start("controller")
    wait_for(lambda: len(system.attempts(key)) == 2, "it is replaced", PATIENCE, lambda: system.story(key))
    system.wait_status(key, "running")
    assert len(system.running_of(key)) == 1
    system.delete(key)


@pytest.fixture
def slow_sbatch(system: System) -> Path:
    """An sbatch in front of the real one, which waits as long as a file says: before the call and after it."""
    folder = system.folder / "bin"
    folder.mkdir(exist_ok=True)
    real = shutil.which("sbatch")
    script = folder / "sbatch"
    script.write_text(
        "#!/bin/bash\n"
        f'touch "{folder}/called"\n'
        f'sleep "$(cat {folder}/before)"\n'
        f'{real} "$@"; code=$?\n'
        f'touch "{folder}/submitted"\n'
        f'sleep "$(cat {folder}/after)"\n'
        "exit $code\n"
    )
    script.chmod(0o755)
    return folder


@pytest.mark.parametrize(("before", "after", "mark"), [(3, 0, "called"), (0, 3, "submitted")])
def test_killed_in_the_middle_of_sbatch(system: System, slow_sbatch: Path, before: int, after: int, mark: str) -> None:
    """The sbatch outlives the controller that started it: its job is adopted, or its token is never used."""
    (slow_sbatch / "before").write_text(str(before))
    (slow_sbatch / "after").write_text(str(after))
    for name in ("called", "submitted"):
        (slow_sbatch / name).unlink(missing_ok=True)
    system.kill("controller")
    original = system.config.read_text()
    system.config.write_text(original.replace("[slurm]", f'[slurm]\nbin_dir = "{slow_sbatch}"'))
    system.start("controller")
    key = system.create()
    wait_for((slow_sbatch / mark).exists, f"sbatch was {mark}", PATIENCE, lambda: system.story(key))
    system.kill("controller")
    system.config.write_text(original)
    system.start("controller")
    wait_for((slow_sbatch / "submitted").exists, "the slow sbatch submitted")
    system.wait_status(key, "running")
    wait_for(lambda: len(system.jobs()) == 1, "one job is left", PATIENCE, lambda: system.story(key))
    assert system.running_of(key) == [system.open_attempt(key)["job_id"]]
    system.delete(key)

"""Each failpoint is listed once and stands in the code; nothing happens but where one is armed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from api.contract.configuration import load
from controller.failpoints import POINTS, arm, reach

CONTROLLER = Path(__file__).parents[2] / "controller"
PROGRAM = """
import sys
from controller.failpoints import arm, reach
arm(sys.argv[1])
for n in range(9):
    reach("before sbatch")
    print(n, flush=True)
"""


def test_the_code_reaches_what_is_listed_and_nothing_else() -> None:
    code = "\n".join(path.read_text() for path in CONTROLLER.rglob("*.py"))
    spelled = re.findall(r'reach\("([^"]+)"\)', code)
    assert len(spelled) == len(set(spelled))
    commits = {
        f"{when} {name}" for when in ("before", "after") for name in re.findall(r'"(record(?: an? \w+)?)"', code)
    }
    assert set(spelled) | commits == set(POINTS)


def test_nothing_happens_where_nothing_is_armed() -> None:
    for point in POINTS:
        reach(point)


@pytest.mark.parametrize(("setting", "survived"), [("before sbatch", 0), ("before sbatch 3", 2), ("after sbatch", 9)])
def test_it_dies_at_the_armed_point(setting: str, survived: int) -> None:
    command = [sys.executable, "-c", PROGRAM, setting]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=CONTROLLER.parent)
    assert done.returncode == (0 if survived == 9 else -signal.SIGKILL), done.stderr
    assert len(done.stdout.splitlines()) == survived


def test_it_stops_there_instead() -> None:
    command = [sys.executable, "-c", PROGRAM, "stop before sbatch 2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CONTROLLER.parent) as program:
        assert os.WIFSTOPPED(os.waitpid(program.pid, os.WUNTRACED)[1])
        program.send_signal(signal.SIGCONT)
        assert program.communicate(timeout=10)[0].splitlines() == list("012345678")


@pytest.mark.parametrize("setting", ["sbatch", "before sbatch 0", "before lunch"])
def test_one_that_is_not_there_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="There is no failpoint"):
        arm(setting)


def test_it_is_armed_by_a_setting_or_the_environment(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "AI_FACTORY_CONTROLLER_FAILPOINT": "before sbatch"}
    assert load(environ=environment).controller.failpoint == "before sbatch"
    assert not load(environ={"HOME": str(tmp_path)}).controller.failpoint

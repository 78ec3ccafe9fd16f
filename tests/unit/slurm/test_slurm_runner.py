import asyncio
import os
import time
from pathlib import Path

import pytest

from controller.slurm.runner import SUBMISSIONS_AT_ONCE, NotStartedError, ProcessRunner
from tests.descriptors import none_left

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def make(seconds: float = 30.0, limit: int = 1_000_000) -> ProcessRunner:
    return ProcessRunner(
        ENVIRONMENT | {"KIND": "reading"},
        ENVIRONMENT | {"KIND": "submitting"},
        reading_seconds=seconds,
        changing_seconds=seconds,
        output_limit=limit,
    )


def program(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_what_came_of_it() -> None:
    runner = make()
    done = await runner.read(("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (done.exit_code, done.stdout, done.stderr, done.command) == (3, "out\n", "err\n", "sh")
    await runner.read(("true",))
    assert runner.calls == {("sh", "failed"): 1, ("true", "ok"): 1}


async def test_arguments_are_not_read_by_a_shell_and_there_is_no_input() -> None:
    done = await make().read(("sh", "-c", 'printf "%s|" "$@"; cat', "sh", "a b", "$HOME", "'\n"))
    assert done.stdout == "a b|$HOME|'\n|"


async def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert (await make().read(("printf", "a\\377b"))).stdout == "a�b"


async def test_only_sbatch_gets_the_environment_for_jobs(tmp_path: Path) -> None:
    runner = make()
    path = f"{tmp_path}:{os.environ['PATH']}"
    for name in ("sbatch", "scancel"):
        program(tmp_path, name, 'echo "$KIND $AI_FACTORY_TEST"')
    runner = ProcessRunner({"PATH": path, "KIND": "reading"}, {"PATH": path, "KIND": "submitting"})
    assert (await runner.change(("sbatch",))).stdout == "submitting \n"
    assert (await runner.change(("scancel",))).stdout == "reading \n"


async def test_time_up_kills_the_whole_group(tmp_path: Path) -> None:
    runner, pids = make(seconds=3.0), tmp_path / "pids"
    done = await runner.read(("sh", "-c", f"echo before; sleep 300 & echo $! $$ > {pids}; wait"))
    assert (done.exit_code, done.stdout) == (None, "before\n")
    for pid in map(int, pids.read_text().split()):
        await until(lambda pid=pid: not alive(pid))
    assert runner.calls == {("sh", "killed"): 1}


async def test_a_cancelled_caller_leaves_no_process(tmp_path: Path) -> None:
    runner, pids = make(), tmp_path / "pids"
    task = asyncio.create_task(
        runner.read(("sh", "-c", f"sleep 300 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"))
    )
    await until(pids.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in map(int, pids.read_text().split()):
        await until(lambda pid=pid: not alive(pid))
    assert runner.calls == {("sh", "killed"): 1}


async def test_too_much_output_is_no_answer() -> None:
    done = await make(limit=1000).read(("sh", "-c", "yes"))
    assert done.exit_code is None


@pytest.mark.parametrize(("mode", "missing"), [(None, True), (0o644, True)])
async def test_a_program_that_is_not_there(tmp_path: Path, mode: int | None, missing: bool) -> None:
    path = tmp_path / "squeue"
    if mode is not None:
        path.write_text("")
        path.chmod(mode)
    runner = make()
    with pytest.raises(NotStartedError) as raised:
        await runner.read((str(path),))
    assert raised.value.missing is missing
    assert raised.value.is_certain
    assert runner.calls == {(str(path), "not started"): 1}


async def test_only_so_many_changes_at_once(tmp_path: Path) -> None:
    """Each waits for a file that is made when the others have had every chance to come too."""
    go, begun = tmp_path / "go", tmp_path / "begun"
    begun.mkdir()
    text = f"touch {begun}/$$; while [ ! -e {go} ]; do sleep 0.02; done"
    runner = make()
    tasks = [asyncio.create_task(runner.change(("sh", "-c", text))) for _ in range(SUBMISSIONS_AT_ONCE + 3)]
    await until(lambda: len(list(begun.iterdir())) == SUBMISSIONS_AT_ONCE)
    assert (await runner.read(("true",))).exit_code == 0  # reading waits for nobody
    assert len(list(begun.iterdir())) == SUBMISSIONS_AT_ONCE
    go.touch()
    assert {done.exit_code for done in await asyncio.gather(*tasks)} == {0}
    assert len(list(begun.iterdir())) == SUBMISSIONS_AT_ONCE + 3


async def test_what_is_lacking_for_a_start_is_no_missing_program() -> None:
    runner = make()
    await runner.read(("true",))
    with none_left(), pytest.raises(NotStartedError, match="Too many open files") as raised:
        await runner.read(("true",))
    assert not raised.value.missing
    assert (await runner.read(("true",))).exit_code == 0


def test_a_descriptor_may_be_lacking_for_what_runs_already() -> None:
    assert not NotStartedError("sbatch", OSError(24, "Too many open files")).is_certain


async def test_what_exec_refuses_has_surely_not_run(tmp_path: Path) -> None:
    with pytest.raises(NotStartedError) as raised:
        await make().read(("true", "x" * 4_000_000))
    assert (raised.value.missing, raised.value.is_certain) == (False, True)

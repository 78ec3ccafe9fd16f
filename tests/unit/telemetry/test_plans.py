"""The log of plans: every plan that is not empty, within its size, for its owner only, and never in a pass's way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from api.contract.doorless import secret
from api.contract.launch import LaunchSpec, Resources
from api.contract.log import about
from api.contract.traces import PLANS
from controller.commands.replay import ReplayError, replay
from controller.core.codec import decide_again, decode
from controller.core.plan import Plan
from controller.telemetry.plans import PlanLog

from .passes import NOW, a_pass


@pytest.fixture
def plans(tmp_path: Path) -> PlanLog:
    return PlanLog(tmp_path / "state", 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / PLANS


def test_a_plan_is_written_with_all_that_it_was_decided_on(plans: PlanLog, file: Path) -> None:
    done = a_pass()
    with about(pass_id="3.7"):
        plans.report(done)
    (line,) = file.read_bytes().splitlines()
    made = decode(line)
    assert (made.epoch, made.pass_id, made.now, made.plan) == (3, "3.7", NOW, done.plan)
    assert (made.desired, made.seen, made.limits) == (done.record.desired, done.seen, done.limits)
    assert decide_again(made) == done.plan


def test_an_empty_plan_is_not_worth_a_line(plans: PlanLog, file: Path) -> None:
    plans.report(a_pass(Plan(look_again_at=5.0)))
    assert not file.exists()


def test_nobody_else_may_read_it(plans: PlanLog, file: Path) -> None:
    plans.report(a_pass())
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_secrets_are_not_in_it(plans: PlanLog, file: Path) -> None:
    key = b"k" * 32
    spec = LaunchSpec(
        recipe="a/b",
        kind="service",
        engine="vllm",
        model="m",
        image=None,
        command=("vllm",),
        environment={"HF_TOKEN": "hunter2"},
        environment_from={"OTHER": "/home/u/token"},
        resources=Resources(),
        health=None,
        secret_variable="VLLM_API_KEY",
    )
    plans.report(a_pass(spec=spec))
    text = file.read_text()
    assert secret(key, "af-i9-one-0-1") not in text
    assert "hunter2" not in text
    assert "/home/u/token" in text


def test_two_files_of_limited_size_are_kept(plans: PlanLog, file: Path) -> None:
    done = a_pass(name="n" * 20_000)
    for _ in range(160):
        plans.report(done)
    sizes = {path.name: path.stat().st_size for path in file.parent.iterdir()}
    assert set(sizes) == {PLANS, f"{PLANS}.1"}
    assert all(size < 1_100_000 for size in sizes.values())
    assert all(decode(line) for path in file.parent.iterdir() for line in path.read_bytes().splitlines())


def test_what_prevents_it_is_said_once_and_stops_nothing(
    plans: PlanLog, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.mkdir()
    with caplog.at_level(logging.WARNING):
        plans.report(a_pass())
        plans.report(a_pass())
        plans.report(a_pass(name="\ud800"))
    assert len(caplog.records) == 1
    file.rmdir()
    plans.report(a_pass())
    assert file.is_file()


# replay


def test_replay_tells_the_same_from_the_different(plans: PlanLog, file: Path) -> None:
    plans.report(a_pass())
    plans.report(a_pass(service_id="two", name="other"))
    assert [(r.line, r.differences) for r in replay(file)] == [(1, ()), (2, ())]
    assert [r.line for r in replay(file, service="other")] == [2]
    assert [r.line for r in replay(file, service="one")] == [1]
    assert [r.text().endswith(": same") for r in replay(file, line=2)] == [True]

    file.write_bytes(file.read_bytes().replace(b'"observed_generation":1', b'"observed_generation":7'))
    (first, _) = replay(file)
    assert first.differences == ("status.observed_generation: 7 → 1",)
    assert "DIFFERS\n  status.observed_generation" in first.text()


def test_replay_of_what_is_no_plan(plans: PlanLog, file: Path) -> None:
    plans.report(a_pass())
    with file.open("ab") as more:
        more.write(b'{"half a li')
    assert [bool(r.differences) for r in replay(file)] == [False, True]
    assert "no plan of this version" in list(replay(file))[1].text()


@pytest.mark.parametrize("chosen", [{"line": 9}, {"service": "nobody"}])
def test_replay_of_what_is_not_there(plans: PlanLog, file: Path, chosen: dict[str, int | str]) -> None:
    with pytest.raises(ReplayError, match="can't be read"):
        list(replay(file))
    plans.report(a_pass())
    with pytest.raises(ReplayError, match="There is no"):
        list(replay(file, **chosen))  # type: ignore[arg-type]

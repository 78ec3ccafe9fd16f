"""Decisions as lines: read again they are the same, and decided again they come to the same plan."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given

from api.contract.job.parameters import Image
from api.contract.job.token import Token
from controller.core.codec import (
    HIDDEN,
    CodecError,
    Decision,
    decide_again,
    decode,
    encode,
    of_one_service,
    without_private,
)
from controller.core.compare import changes, differences
from controller.core.desired import Desired
from controller.core.observed import Observed
from controller.core.plan import Action, Cancel, Plan, Shorten, Submit

from .builders import LIMITS, NOW, RUNNING, desired, intended, job, plan, ready, see, see_running, snapshot, spec
from .test_properties import observations, wishes


def decision(want: Desired, seen: Observed) -> Decision:
    return Decision(epoch=3, pass_id="3.7", now=NOW, desired=want, seen=seen, limits=LIMITS, plan=plan(want, seen))


@given(wishes, observations())
def test_what_is_read_again_is_the_same_and_decides_the_same(want: Desired, seen: Observed) -> None:
    made = decision(want, seen)
    line = encode(made)
    assert b"\n" not in line
    again = decode(line)
    assert again == made
    assert decide_again(again) == made.plan


@given(wishes, observations())
def test_what_is_left_out_of_a_line_decides_nothing(want: Desired, seen: Observed) -> None:
    cut = decision(without_private(want), of_one_service(seen))
    assert decide_again(cut) == plan(want, seen)


@pytest.mark.parametrize("action", get_args(Action))
def test_every_action_is_told_from_the_others(action: type) -> None:
    more: dict[type, dict[str, float]] = {Cancel: {"job_id": 5}, Shorten: {"minutes": 5, "before": 9.0}}
    made = action(token="t", **more.get(action, {}))
    line = msgspec.json.encode(Plan(actions=(made,)))
    assert msgspec.json.decode(line, type=Plan).actions == (made,)
    assert type(msgspec.json.decode(line, type=Plan).actions[0]) is action


def test_strays_survive() -> None:
    made = decision(desired(), see(strays=(Token("i9", "s4", 0, 3),)))
    assert decode(encode(made)) == made


def test_what_others_have_on_the_cluster_is_left_out() -> None:
    mine, other = ready(), replace(ready(), token="af-i9-other-0-1")
    seen = see_running(mine, snapshot=snapshot(job(mine, RUNNING), job(other, RUNNING)))
    cut = of_one_service(seen).snapshot
    assert cut is not None
    assert set(cut.jobs) == {mine.token}
    assert of_one_service(see(mine, snapshot=None)).snapshot is None


def test_values_of_the_environment_and_files_are_hidden() -> None:
    held = spec(environment={"HF_TOKEN": "hunter2"}, files={"engine.py": "hunter2"}, image=Image(definition="hunter2"))
    line = encode(decision(without_private(desired(spec=held)), see()))
    assert b"hunter2" not in line
    assert line.count(HIDDEN.encode()) == 3
    assert without_private(desired(spec=None)) == desired(spec=None)
    kept = desired(spec=spec(image=Image(source="/images/x.sif")))
    assert without_private(kept) == kept


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b'{"epoch": "x"}', b"\xff", b'{"plan"'])
def test_what_is_no_decision_is_refused(line: bytes) -> None:
    with pytest.raises(CodecError):
        decode(line)


def test_differences_name_the_value() -> None:
    before = Plan(actions=(Submit(token="a"),), look_again_at=5.0)
    assert differences(before, before) == ()
    assert differences(before, replace(before, look_again_at=6.0)) == ("look_again_at: 5.0 → 6.0",)
    assert differences(before, Plan(look_again_at=5.0)) == ('actions[0]: {"kind":"submit","token":"a"} → nothing',)


def test_changes_of_an_attempt() -> None:
    attempt = intended()
    assert changes(attempt, replace(attempt, job_id=5)) == ("job_id: nothing → 5",)
    assert "incarnation: nothing → 1" in changes(None, attempt)


@pytest.mark.parametrize(("change", "empty"), [({}, True), ({"look_again_at": 1.0}, True), ({"endpoints": ()}, False)])
def test_an_empty_plan(change: dict[str, Any], empty: bool) -> None:
    assert Plan(**change).is_empty is empty
    known = {"attempts", "endpoints", "status", "events", "actions", "look_again_at", "wants_turn", "wants_gpus"}
    assert {f.name for f in fields(Plan)} == known

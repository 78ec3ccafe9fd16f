"""What is said of a job's end."""

from __future__ import annotations

from typing import Any

import pytest

from api.contract.endings import HANDED_OVER, what_follows
from api.contract.launch import LaunchSpec, Resources, Volume


def spec(**changes: Any) -> LaunchSpec:
    values: dict[str, Any] = {
        "recipe": "r", "kind": "service", "engine": "vllm", "model": "m", "image": None, "command": ("vllm",),
        "resources": Resources(), "health": None,
    }  # fmt: skip
    return LaunchSpec(**{**values, **changes})


@pytest.mark.parametrize(
    ("launch", "told"),
    [
        (spec(), HANDED_OVER),
        (spec(kind="job"), "started anew"),
        (
            spec(volumes=(Volume(name="data", target="/data"),), update_strategy="recreate"),
            "its volume allows no second",
        ),
        (spec(update_strategy="recreate"), "update.strategy: recreate"),
        (None, ""),
    ],
    ids=["service", "job", "volume", "recreate", "refused"],
)
def test_what_follows_the_end_of_a_job(launch: LaunchSpec | None, told: str) -> None:
    said = what_follows(launch, wanted=True, ends=True, draining=False)
    assert (told in said, bool(said)) == (True, bool(told))
    assert what_follows(launch, wanted=True, ends=False, draining=False) == ""
    assert "stopped" in what_follows(launch, wanted=False, ends=True, draining=False)
    assert "another attempt" in what_follows(launch, wanted=True, ends=True, draining=True)


@pytest.mark.parametrize("launch", [spec(), spec(kind="job"), spec(update_strategy="recreate")])
def test_it_says_what_deciding_does(launch: LaunchSpec) -> None:
    said = what_follows(launch, wanted=True, ends=True, draining=False)
    assert (said == HANDED_OVER) == (launch.may_overlap and launch.kind == "service")

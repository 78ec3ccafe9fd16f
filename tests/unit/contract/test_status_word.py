"""The one word of a service, and the one message, from its conditions."""

from __future__ import annotations

import pytest

from api.contract.status import Condition, Progress, Truth, explanation, find, word


def condition(kind: str, status: Truth, reason: str = "X", message: str = "") -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message, since=0.0, generation=1)


ACCEPTED, REFUSED = condition("Accepted", Truth.TRUE), condition("Accepted", Truth.FALSE, "BadConfig", "Mend it.")
ANSWERS, SILENT = condition("Available", Truth.TRUE), condition("Available", Truth.FALSE)
SEEN, UNSEEN = condition("Observed", Truth.TRUE), condition("Observed", Truth.UNKNOWN, "SlurmSilent", "Slurm is away.")


def progress(reason: str, message: str = "") -> Condition:
    return condition("Progressing", Truth.TRUE, reason, message)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Progress.SUBMITTING, "pending"),
        (Progress.QUEUED, "pending"),
        (Progress.BACK_OFF, "pending"),
        (Progress.STOPPING, "pending"),
        (Progress.STOPPED, "pending"),
        (Progress.BUILDING_IMAGE, "building"),
        (Progress.STARTING, "starting"),
        (Progress.AS_WANTED, "pending"),
        (Progress.COMPLETED, "completed"),
        (Progress.FAILED, "failed"),
        ("OfALaterVersion", "pending"),
    ],
)
def test_while_nobody_answers_the_word_is_how_far_it_is(reason: str, expected: str) -> None:
    assert word(wanted=True, conditions=[ACCEPTED, SILENT, progress(reason)]) == expected


@pytest.mark.parametrize("reason", list(Progress))
def test_what_answers_is_running(reason: str) -> None:
    assert word(wanted=True, conditions=[ACCEPTED, ANSWERS, progress(reason)]) == "running"


@pytest.mark.parametrize("conditions", [[], [REFUSED], [ANSWERS], [progress("Failed")]])
def test_what_is_not_wanted_is_cancelled(conditions: list[Condition]) -> None:
    assert word(wanted=False, conditions=conditions) == "cancelled"


def test_before_the_controller_looked_it_is_pending() -> None:
    assert word(wanted=True, conditions=[]) == "pending"


def test_what_is_refused_is_failed() -> None:
    assert word(wanted=True, conditions=[REFUSED, SILENT, progress("Failed")]) == "failed"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ""),
        ([ACCEPTED, SEEN, progress("Queued", "It waits.")], "It waits."),
        ([ACCEPTED, UNSEEN, progress("Queued", "It waits.")], "Slurm is away."),
        ([REFUSED, UNSEEN, progress("Failed", "It failed.")], "Mend it."),
        ([ACCEPTED, condition("Observed", Truth.UNKNOWN, "NotYet"), progress("Queued", "It waits.")], "It waits."),
        ([ACCEPTED, SEEN, progress("AsWanted")], ""),
    ],
)
def test_the_message_that_matters_most(conditions: list[Condition], expected: str) -> None:
    assert explanation(conditions) == expected


def test_a_condition_is_found_by_its_type() -> None:
    assert find([ACCEPTED, ANSWERS], "Available") is ANSWERS
    assert find([ACCEPTED], "Available") is None

from pathlib import Path

import pytest

from controller.core.jobs import JobPhase
from controller.slurm.states import ENDS, PHASES, end_of, phase_of, state_word

SAMPLES = Path(__file__).parent / "samples"
VERSIONS = ("22.05", "24.11", "26.05")


def rows(version: str, command: str) -> list[list[str]]:
    return [line.split("|") for line in (SAMPLES / version / f"{command}.txt").read_text().splitlines()]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_state_that_a_real_slurm_printed_is_in_the_table(version: str) -> None:
    words = {state_word(row[1]) for row in rows(version, "squeue")} | {state_word(r[3]) for r in rows(version, "sacct")}
    assert {"PENDING", "RUNNING", "CANCELLED", "COMPLETING", "SPECIAL_EXIT", "NODE_FAIL", "PREEMPTED"} <= words
    assert words <= PHASES.keys() | ENDS.keys()


@pytest.mark.parametrize("version", VERSIONS)
def test_squeue_s_short_codes_agree_with_the_phases(version: str) -> None:
    """The samples hold the compact code (`%t`) beside the word: an independent spelling of the same state."""
    ended = {"CA", "CD", "F", "NF", "OOM", "PR", "TO", "BF", "DL"}
    for row in rows(version, "squeue"):
        assert (phase_of(state_word(row[1])) is JobPhase.ENDED) == (row[2] in ended), row


@pytest.mark.parametrize(
    ("text", "word", "phase"),
    [
        ("CANCELLED by 1000", "CANCELLED", JobPhase.ENDED),
        ("CANCELLED+", "CANCELLED", JobPhase.ENDED),
        ("CONFIGURING", "CONFIGURING", JobPhase.PENDING),
        ("SPECIAL_EXIT", "SPECIAL_EXIT", JobPhase.PENDING),
        ("REQUEUED", "REQUEUED", JobPhase.PENDING),
        ("SIGNALING", "SIGNALING", JobPhase.RUNNING),
        ("STOPPED", "STOPPED", JobPhase.SUSPENDED),
        ("STAGE_OUT", "STAGE_OUT", JobPhase.COMPLETING),
        ("OUT_OF_MEMORY", "OUT_OF_MEMORY", JobPhase.ENDED),
        ("BOOT_FAIL", "BOOT_FAIL", JobPhase.ENDED),
        ("DEADLINE", "DEADLINE", JobPhase.ENDED),
    ],
)
def test_words(text: str, word: str, phase: JobPhase) -> None:
    assert state_word(text) == word
    assert phase_of(word) is phase
    assert (end_of(word) is not None) is (phase is JobPhase.ENDED)


@pytest.mark.parametrize("word", ["", "REVOKED", "TELEPORTING", "completed?"])
def test_an_unknown_word_is_neither_ended_nor_pending(word: str) -> None:
    assert phase_of(word) is JobPhase.RUNNING


def test_no_state_is_empty_and_blanks_do_no_harm() -> None:
    assert state_word("  ") == ""
    assert state_word(" running ") == "RUNNING"

"""The words of a job: written as they are, and told apart from what is none."""

from __future__ import annotations

import json
import re

import pytest

from api.contract.job.words import ExitReason, Step, Word
from controller.bundle import WRAPPER

WORDS = [*Step, *ExitReason]


@pytest.mark.parametrize("word", WORDS, ids=str)
def test_a_word_is_its_text(word: Word) -> None:
    assert f"{word}" == str(word) == word.value
    assert json.dumps({"word": word}) == json.dumps({"word": word.value})
    assert {word.value: 1}[word] == 1
    assert word.value in {word}


BY_THE_SCRIPT = (ExitReason.PYTHON_MISSING, ExitReason.WRAPPER_CHANGED)


@pytest.mark.parametrize("word", WORDS, ids=repr)
def test_each_word_is_said(word: Word) -> None:
    source = "".join(file.read_text() for suffix in ("py", "sh") for file in WRAPPER.rglob(f"*.{suffix}"))
    said = f"{type(word).__name__}.{word.name}" if word not in BY_THE_SCRIPT else word.value
    assert re.search(rf"\b{re.escape(said)}\b", source)


def test_a_word_of_another_release_is_none_of_ours() -> None:
    assert "hibernating" not in {*Step}

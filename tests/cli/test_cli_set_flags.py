from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.cli.errors import CliError
from api.cli.set_flags import config_from, value_of
from api.contract.exits import Exit


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8), ("1.5", 1.5), ("true", True), ("null", None), ('"8"', "8"), ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
        ("12:00:00", "12:00:00"), ("yes", "yes"), ("a=b", "a=b"), ("", ""), ("NaN", "NaN"), ("True", "True"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"), ("007", "007"), ("-1-00:00:00", "-1-00:00:00"),
    ],
)  # fmt: skip
def test_a_value_is_json_or_itself(text: str, value: Any) -> None:
    found = value_of(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["[1, 2", "{a: 1}", '"half'])
def test_what_begins_like_json_must_be_json(text: str) -> None:
    with pytest.raises(CliError, match="begins like JSON"):
        value_of(text)


def test_assignments_are_stronger_than_the_file_and_dots_lead_inwards(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: a\nresources: {gpu: 1, time_limit: 12:00:00}\n")
    assert config_from(str(file), ["resources.gpu=4", "environment.A=x", "model=b"]) == {
        "model": "b",
        "resources": {"gpu": 4, "time_limit": "12:00:00"},
        "environment": {"A": "x"},
    }


def test_a_json_file_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"replicas": 2, "a": [null, "é"]}')
    assert config_from(str(file), []) == {"replicas": 2, "a": [None, "é"]}


@pytest.mark.parametrize("content", ["- a list", "a: [", "a: 2026-01-01", "a: .nan", "\x00", "text"])
def test_a_file_that_is_no_config(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(CliError) as raised:
        config_from(str(file), [])
    assert raised.value.code is Exit.USAGE


@pytest.mark.parametrize("assignment", ["a", "=1", "a..b=1", ".a=1"])
def test_assignments_need_a_key(assignment: str) -> None:
    with pytest.raises(CliError, match="key=value"):
        config_from(None, [assignment])


def test_a_value_has_no_inner_keys() -> None:
    with pytest.raises(CliError, match="value of its own"):
        config_from(None, ["a=1", "a.b=2"])

"""What is wanted, from a row: resolved, or refused in words, never an exception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.contract.recipes.book import Library
from api.contract.recipes.spec import digest, encode_spec
from api.contract.settings import SlurmSettings
from controller.wanted import ServiceRow, Wanted


def row(**changes: Any) -> ServiceRow:
    values: dict[str, Any] = {
        "id": "s1",
        "name": "chat",
        "recipe_name": "test/demo",
        "config": {},
        "replicas": None,
        "desired_state": "running",
        "deletion_requested": False,
        "generation": 3,
        "stored_spec": None,
    }
    return ServiceRow(**{**values, **changes})


@pytest.fixture
def wanted(write: Callable[..., Path], tmp_path: Path) -> Wanted:
    write("replicas: 2\n")
    write(b"\xff", path="test/broken")
    return Wanted("i1", Library([tmp_path / "recipes"], {}), SlurmSettings(partition="main"))


def test_a_row_is_resolved(wanted: Wanted) -> None:
    found = wanted.of(row())
    assert found.spec is not None
    assert (found.installation, found.service_id, found.name, found.generation) == ("i1", "s1", "chat", 3)
    assert (found.running, found.replicas, found.refusal) == (True, 2, None)
    assert (found.spec.recipe, found.spec.resources.partition) == ("test/demo", "main")
    assert found.digest == digest(found.spec)


@pytest.mark.parametrize(
    ("changes", "running"),
    [
        ({}, True),
        ({"desired_state": "stopped"}, False),
        ({"deletion_requested": True}, False),
        ({"desired_state": "stopped", "deletion_requested": True}, False),
    ],
)
def test_what_is_stopped_or_deleted_does_not_run(wanted: Wanted, changes: dict[str, Any], running: bool) -> None:
    assert wanted.of(row(**changes)).running is running


@pytest.mark.parametrize(("replicas", "expected"), [(None, 2), (5, 5), (0, 0)])
def test_the_rows_replicas_outweigh_the_recipes(wanted: Wanted, replicas: int | None, expected: int) -> None:
    assert wanted.of(row(replicas=replicas)).replicas == expected


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"recipe_name": "none"}, "BadRecipe", "There is no recipe 'none'. There are: test/demo."),
        ({"recipe_name": "\ud800'\n"}, "BadRecipe", "There is no recipe"),
        ({"recipe_name": "broken"}, "BadRecipe", "broken.yaml:1: not UTF-8"),
        ({"config": {"resources": {"memory": "lots"}}}, "BadConfig", "resources.memory: must be an amount of memory"),
        ({"config": {"environment": {"\ud800": 1}}}, "BadConfig", "is not the name of an environment variable"),
        ({"config": {"a": "x" * 65_530}}, "BadConfig", "config: It has 65,538 bytes, and may have 65,536."),
        ({"config": {f"key{n}": n for n in range(60_000)}}, "BadConfig", "and may have 65,536"),
        ({"stored_spec": "{}"}, "BadRecipe", "The stored launch spec can't be read"),
    ],
)
def test_what_can_not_be_resolved_is_a_refusal(
    wanted: Wanted, changes: dict[str, Any], reason: str, words: str
) -> None:
    found = wanted.of(row(**changes))
    assert found.refusal is not None
    assert (found.spec, found.digest, found.refusal.reason) == (None, "", reason)
    assert words in found.refusal.message
    assert found.refusal.message.isprintable()


def test_the_largest_config_is_taken(wanted: Wanted) -> None:
    assert wanted.of(row(config={"a": "ä" * 32_764})).refusal is None


def test_a_config_nested_beyond_reading_is_a_refusal(wanted: Wanted) -> None:
    config: dict[str, Any] = {}
    for _ in range(100_000):
        config = {"a": config}
    found = wanted.of(row(config=config)).refusal
    assert found is not None
    assert found.message == "config: It is nested too deeply. Take levels out."


def test_a_refused_service_keeps_its_number_of_replicas_and_can_be_stopped(wanted: Wanted) -> None:
    found = wanted.of(row(recipe_name="none", replicas=4, desired_state="stopped"))
    assert (found.replicas, found.running) == (4, False)


def test_a_generation_is_resolved_once(wanted: Wanted, write: Callable[..., Path]) -> None:
    first = wanted.of(row())
    assert first.spec is not None
    write("replicas: 2\nenvironment: {NEW: 1}\n")
    stored = encode_spec(first.spec).decode()
    assert wanted.of(row(stored_spec=stored)).digest == first.digest
    assert wanted.of(row()).digest != first.digest


def test_a_stored_spec_needs_no_recipe(wanted: Wanted, tmp_path: Path) -> None:
    first = wanted.of(row())
    assert first.spec is not None
    (tmp_path / "recipes/test/demo.yaml").unlink()
    assert wanted.of(row(stored_spec=encode_spec(first.spec).decode())) == first


def test_what_sql_writes_is_warned_of_and_never_refused(wanted: Wanted) -> None:
    found = wanted.of(row(config={"enviroment": {}, "team": "nlp", "resources": {"cpu": 2}}))
    assert found.refusal is None
    assert found.spec is not None
    assert found.spec.warnings == (
        "enviroment: this recipe has no such key: it is kept, and has no effect. Did you mean environment?",
        "team: this recipe has no such key: it is kept, and has no effect.",
    )
    assert found.digest == wanted.of(row(config={"resources": {"cpu": 2}})).digest


def test_a_spec_that_an_older_release_has_stored_is_warned_of_too(wanted: Wanted) -> None:
    known = wanted.of(row(config={"team": "nlp"}))
    assert known.spec is not None
    older = replace(known.spec, warnings=None)
    found = wanted.of(row(config={"team": "nlp"}, stored_spec=encode_spec(older).decode()))
    assert found.spec == known.spec
    gone = wanted.of(row(config={"team": "nlp"}, recipe_name="none", stored_spec=encode_spec(older).decode()))
    assert gone.spec == replace(older, warnings=())


@pytest.mark.parametrize(("name", "is_warned_of"), [("Chat", True), ("a b", True), ("chat", False), ("d_x-s1", False)])
def test_a_name_that_only_sql_gives(wanted: Wanted, name: str, is_warned_of: bool) -> None:
    found = wanted.of(row(name=name))
    assert found.spec is not None
    assert [text.partition(":")[0] for text in found.spec.warnings or ()] == ["name"] * is_warned_of

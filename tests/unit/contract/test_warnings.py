"""What is probably not meant in a config: told, and refused only where it is plainly a slip that is written now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract.recipes.book import Book, Library
from api.contract.recipes.engine_arguments import arguments, files, gpus_wanted
from api.contract.recipes.keys import OF_OLDER_CLIENTS, MisspeltError, check_spelling
from api.contract.recipes.resolve import resolve
from api.contract.settings import SlurmSettings
from api.contract.spelling import did_you_mean, distance, misspelt


def warned(book: Book, config: dict[str, Any], recipe: str = "inference/vllm") -> list[str]:
    return list(resolve(book.recipes[recipe], config, replicas=None, site=SlurmSettings()).warnings or ())


@pytest.fixture
def book(write: Callable[..., Path], tmp_path: Path) -> Book:
    """Two recipes of a category: one has the parameters that older clients send, the other has none of them."""
    head = "category: test\ndescription: d\nversion: 1.0.0\n"
    names = "".join(f"  {name}: {{type: string}}\n" for name in (*sorted(OF_OLDER_CLIENTS), "own_thing"))
    write(f"parameters:\n{names}", path="test/rich", head=f"name: rich\n{head}")
    write("parameters: {greeting: {type: string}}\n", path="test/poor", head=f"name: poor\n{head}")
    return Library([tmp_path / "recipes"], {}).book()


@pytest.mark.parametrize("key", sorted(OF_OLDER_CLIENTS))
def test_what_older_clients_send_is_never_a_slip(book: Book, key: str) -> None:
    check_spelling(book.recipes["test/poor"], book, [key])


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("greting", "Did you mean greeting?"),
        ("greeeeting", "Did you mean greeting?"),
        ("grooting", "Did you mean greeting?"),
        ("own_thing", "test/poor has no such parameter, test/rich has."),
        ("enviroment_from", "Did you mean environment_from?"),
    ],
)
def test_a_slip(book: Book, key: str, words: str) -> None:
    with pytest.raises(MisspeltError) as caught:
        check_spelling(book.recipes["test/poor"], book, [key])
    assert (caught.value.key, words in caught.value.message) == (key, True)


@pytest.mark.parametrize("key", ["note", "greetings_to", "team", "nods", "gre", "", "x" * 10_000])
def test_what_is_none(book: Book, key: str) -> None:
    check_spelling(book.recipes["test/poor"], book, [key])


def test_a_short_word_is_no_slip_for_another() -> None:
    assert misspelt("gpus", ["gpu", "cpu", "cpus"]) is None
    assert misspelt("memroy", ["memory"]) == "memory"
    assert misspelt("memory", ["memory", "memory1"]) is None


@given(one=st.text("abc", max_size=8), other=st.text("abc", max_size=8))
def test_a_distance_is_one(one: str, other: str) -> None:
    assert distance(one, other) == distance(other, one)
    assert (distance(one, other) == 0) is (one == other)
    assert abs(len(one) - len(other)) <= distance(one, other) <= max(len(one), len(other))
    assert distance(f"{one}x", other) <= distance(one, other) + 1


def test_who_is_far_off_is_asked_nothing() -> None:
    assert did_you_mean("zzz", ["services", "logs"]) == ""
    assert did_you_mean("service", ["services", "logs"]) == " Did you mean services?"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"environment": {"HF_TOKEN": "hf_secret"}}, "environment_from.HF_TOKEN"),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "hf_secret"}}, "environment_from.AWS_SECRET_ACCESS_KEY"),
        ({"environment": {"DB_PASSWORD": "hf_secret"}}, "environment_from.DB_PASSWORD"),
        ({"extra_args": ["--hf-token", "hf_secret"]}, "environment_from.HF_TOKEN"),
        ({"extra_args": ["--max-num-seqs 64"]}, 'Write one item a word: ["--max-num-seqs", "64"]'),
        ({"extra_args": ["--a 1 --b '{\"c\": 2}'"]}, """["--a", "1", "--b", "{\\"c\\": 2}"]"""),
        ({"extra_args": ["--speculative-config", """'{"a": 1}'"""]}, 'Write {"a": 1}.'),
        ({"extra_args": ["""--speculative-config='{"a": 1}'"""]}, 'Write {"a": 1}.'),
        ({"extra_args": ["--hf-overrides", '"{\\"a\\": 1}"']}, 'Write {"a": 1}.'),
        ({"parameters": {"extra_args": ["--hf-overrides", "{'a': 1}"]}}, "begins like JSON, and is none"),
        ({"extra_args": ["--hf-overrides={a: 1}"]}, "begins like JSON, and is none"),
        ({"tensor_parallel_size": 4}, "is to use 4 GPUs, and the job asks for 1. Write resources.gpu=4."),
        ({"extra_args": ["-tp", "2", "-dp=2"]}, "is to use 4 GPUs"),
        ({"extra_args": ["--tensor_parallel", "2"]}, "is to use 2 GPUs"),
        ({"resources": {"gpu": 2}}, "the job asks for 2 GPUs, and the engine uses 1"),
    ],
)
def test_what_is_told(shipped: Book, config: dict[str, Any], words: str) -> None:
    (told,) = warned(shipped, config)
    assert words in told
    assert "hf_secret" not in told


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"environment": {"HF_TOKEN": "", "TOKENIZERS_PARALLELISM": "false", "KEY_FILE": "x", "API_KEY": "/a/file"}},
        {"environment_from": {"HF_TOKEN": "/secret"}},
        {"extra_args": ["--chat-template", "{% for m in messages %}{{ m }}{% endfor %}", "--chat-template={{ a }}"]},
        {"extra_args": ["--hf-overrides", '{"a": 1}', "--override", "{}", "it's", "a b", "--x=a b"]},
        {"tensor_parallel_size": 2, "resources": {"gpu": 2}},
        {"resources": {"gpu": 0}, "tensor_parallel_size": 2},
        {"applied_as": "team", "restarted_at": "now", "replicas": 2},
    ],
)
def test_what_is_well_is_not_told(shipped: Book, config: dict[str, Any]) -> None:
    assert warned(shipped, config) == []


def test_there_are_not_more_than_people_read(shipped: Book) -> None:
    told = warned(shipped, {f"key{number}": "x" for number in range(3000)})
    assert len(told) == 21
    assert told[-1].endswith("warnings more.")
    assert all(len(text) <= 500 for text in warned(shipped, {"y" * 5000: 1}))


def test_the_paths_of_a_command_line() -> None:
    command = (
        "vllm", "serve", "/m/q", "--tokenizer=/m/t", "--served-model-name", "/no/path", "--lora-modules", "a=/l/a",
        '[{"name": "b", "path": "/l/b"}]', "c=org/name", "--chat_template", "t/x.jinja", "--speculative-config",
        '{"model": "/s", "method": "/no"}', "--config", "/c.yaml", "--uds", ({"runtime": "socket"},),
    )  # fmt: skip
    found = arguments(command)
    assert list(files(found)) == ["/c.yaml", "/l/a", "/l/b", "/m/q", "/m/t", "/s", "t/x.jinja"]
    assert gpus_wanted(found) == 1


def test_what_another_program_is_told_before_its_options_is_no_model() -> None:
    found = arguments(("python3", "engine.py", "/health=slow", "/any/thing", "--model", "/m/q"))
    assert list(files(found)) == ["/m/q"]

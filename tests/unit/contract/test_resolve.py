"""A recipe under a config: what outweighs what, and that no value of a user's is ever more than a value."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.contract.job.parameters import Image
from api.contract.job.words import Network
from api.contract.launch import Health, LaunchSpec, Resources
from api.contract.recipes.book import Recipe, read_recipe
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.parameters import MOST_ITEMS
from api.contract.recipes.resolve import FIXED_BY_RECIPE, resolve
from api.contract.recipes.spec import decode_spec, digest, encode_spec
from api.contract.recipes.values import LONGEST_VALUE
from api.contract.settings import SlurmSettings
from tests.examples import examples

Launch = Callable[..., LaunchSpec]
Refusal = Callable[..., ConfigError]

LISTENS = "ports: [1]\nenvironment: {AT: '{socket}'}\n"
DIRECT = "ports: [1]\naccess: direct\n"
PARAMETERS = """\
parameters:
  text: {type: string}
  size: {type: integer, minimum: 1, maximum: 64}
  share: {type: number, minimum: 0, maximum: 1}
  loud: {type: boolean}
  args: {type: list, default: [], forbidden: [--port, --served-model-name]}
  word: {type: string, pattern: "[a-z]{1,4}", default: abc}
  level: {type: string, choices: [low, high]}
command:
  - [--text, "{text}"]
  - [--size, "{size}"]
  - [--share, "{share}"]
  - [--loud, "{loud}"]
  - "--level={level}"
  - "{args}"
"""
HOSTILE = [
    pytest.param(value, id=name)
    for name, value in {
        "single quotes": "'; reboot; '",
        "double quotes": '" && reboot && "',
        "substitution": "$(reboot) `reboot` ${HOME} $HOME",
        "newline": "a\nreboot\n#SBATCH --uid=0\r\n",
        "braces": "{port} {text} {{x}} {0}",
        "percent": "%j %(x)s \\n \\0",
        "glob": "* ? [a-z] ~ !",
        "blanks": " \t leading and trailing ",
        "unicode": "żółć 模型 🦙 \u202e\u200b",
        "control": "\x01\x07\x1b[31m\x7f",
        "10 kB": "x" * 10_000,
        "empty": "",
    }.items()
]
NO_TEXT = [
    pytest.param("a\0b", id="NUL"),
    pytest.param("\ud800", id="lone surrogate"),
    pytest.param("x" * (LONGEST_VALUE + 1), id="too long"),
]


# Parameters


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a|aa)+$", "(.*)*x"])
def test_a_pattern_that_takes_for_ever_is_given_up(refusal: Refusal, pattern: str) -> None:
    text = f"parameters:\n  a: {{type: string, pattern: '{pattern}'}}\ncommand: ['{{a}}']\n"
    begun = time.monotonic()
    told = refusal(text, {"a": "a" * 5000 + "!"})
    assert time.monotonic() - begun < 10
    assert told.key == "a"
    assert pattern in told.message


@pytest.mark.parametrize("value", HOSTILE)
def test_a_text_is_carried_through_as_one_word(launch: Launch, value: str) -> None:
    assert launch(PARAMETERS, {"text": value}).command[:3] == ("run", "--text", value)


@pytest.mark.parametrize("value", HOSTILE)
def test_items_of_a_list_are_words_of_their_own(launch: Launch, value: str) -> None:
    assert launch(PARAMETERS, {"args": [value, "-x", value]}).command[-3:] == (value, "-x", value)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_within_a_word_stays_within_it(launch: Launch, value: str) -> None:
    body = 'parameters: {text: {type: string}}\ncommand: ["--a={text}", "--a={text}{port}!"]\n'
    whole, open_ = launch(body, {"text": value}).command[1:]
    assert whole == f"--a={value}"
    assert open_ == ("--a=", value, {"runtime": "port"}, "!")


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_of_the_environment_is_carried_through(launch: Launch, value: str) -> None:
    assert launch("", {"environment": {"A": value}}).environment == {"A": value}


@pytest.mark.parametrize("value", NO_TEXT)
@pytest.mark.parametrize(
    ("key", "config"),
    [
        ("text", lambda value: {"text": value}),
        ("parameters.text", lambda value: {"parameters": {"text": value}}),
        ("args.1", lambda value: {"args": ["x", value]}),
        ("environment.A", lambda value: {"environment": {"A": value}}),
        ("environment_from.A", lambda value: {"environment_from": {"A": "/" + value}}),
    ],
)
def test_what_no_process_can_be_given_is_refused(refusal: Refusal, key: str, config: Any, value: str) -> None:
    assert refusal(PARAMETERS, config(value)).key == key


@pytest.mark.parametrize("value", ["-x", "--port=1", "-", "--"])
def test_a_text_that_would_be_taken_for_an_option_is_refused(refusal: Refusal, value: str) -> None:
    assert "hyphen" in refusal(PARAMETERS, {"text": value}).message


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ("run", "--level=")),
        ({"size": 4}, ("run", "--size", "4", "--level=")),
        ({"size": "4"}, ("run", "--size", "4", "--level=")),
        ({"size": 4.0}, ("run", "--size", "4", "--level=")),
        ({"share": 0.5}, ("run", "--share", "0.5", "--level=")),
        ({"share": "1e-3"}, ("run", "--share", "1e-3", "--level=")),
        ({"loud": True}, ("run", "--loud", "true", "--level=")),
        ({"loud": False}, ("run", "--loud", "false", "--level=")),
        ({"level": "high"}, ("run", "--level=high")),
        ({"args": ["a", 1, 2.5]}, ("run", "--level=", "a", "1", "2.5")),
        ({"parameters": {"size": 4}}, ("run", "--size", "4", "--level=")),
        ({"size": 3, "parameters": {"size": 4}}, ("run", "--size", "4", "--level=")),
        ({"size": None}, ("run", "--level=")),
        ({"parameters": {"size": None}}, ("run", "--level=")),
        ({"parameters": None}, ("run", "--level=")),
    ],
)
def test_a_group_is_left_out_where_its_parameter_is_not_set(
    launch: Launch, config: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert launch(PARAMETERS, config).command == expected


@pytest.mark.parametrize(
    ("config", "key", "words"),
    [
        ({"size": 0}, "size", "at least 1"),
        ({"size": 65}, "size", "at most 64"),
        ({"size": "65"}, "size", "at most 64"),
        ({"size": 1.5}, "size", "whole number"),
        ({"size": True}, "size", "whole number"),
        ({"size": "four"}, "size", "whole number"),
        ({"size": [4]}, "size", "whole number"),
        ({"size": 10**5000}, "size", ""),
        ({"share": 1.5}, "share", "at most 1"),
        ({"share": -0.1}, "share", "at least 0"),
        ({"share": "half"}, "share", "a number"),
        ({"share": "1e999"}, "share", "at most 1"),
        ({"share": float("nan")}, "share", "a number"),
        ({"share": float("inf")}, "share", "a number"),
        ({"share": True}, "share", "a number"),
        ({"share": "١"}, "share", "a number"),
        ({"share": 10**5000}, "share", ""),
        ({"loud": "true"}, "loud", "true or false"),
        ({"loud": 1}, "loud", "true or false"),
        ({"text": 5}, "text", "must be text"),
        ({"text": ["a"]}, "text", "must be text"),
        ({"text": {"a": 1}}, "text", "must be text"),
        ({"args": "a b"}, "args", "a list"),
        ({"args": {"a": 1}}, "args", "a list"),
        ({"args": ["a", None]}, "args.1", "text"),
        ({"args": ["a", ["b"]]}, "args.1", "text"),
        ({"args": [True]}, "args.0", "text"),
        ({"args": [10**5000]}, "args.0", ""),
        ({"args": ["x"] * (MOST_ITEMS + 1)}, "args", "at most"),
        ({"word": "toolong"}, "word", "match"),
        ({"word": "abc\n"}, "word", "match"),
        ({"word": "ABC"}, "word", "match"),
        ({"level": "middle"}, "level", "one of low, high"),
        ({"parameters": {"size": 0}}, "parameters.size", "at least 1"),
        ({"parameters": {"length": 1}}, "parameters.length", "no such parameter. It has: args, level"),
        ({"parameters": ["size"]}, "parameters", "an object"),
    ],
)
def test_a_bad_parameter_is_named(refusal: Refusal, config: dict[str, Any], key: str, words: str) -> None:
    error = refusal(PARAMETERS, config)
    assert error.key == key
    assert words in error.message
    assert str(error) == f"{key}: {error.message}"


def test_a_parameter_that_is_needed(launch: Launch, refusal: Refusal) -> None:
    body = "parameters: {model: {type: string, required: true, description: A name.}}\n"
    for config in ({}, {"model": None}, {"parameters": {"model": None}}):
        assert refusal(body, config).message == "This recipe needs it. A name."
    assert launch(body, {"model": ""}).command == ("run",)


@pytest.mark.parametrize(
    "argument",
    ["--port", "--port=1", "--por", "--p", "--p=1", "--", "-", "--served_model_name=x", "--served-model", "--served"],
)
def test_arguments_that_the_recipe_sets_are_refused_abbreviated_too(refusal: Refusal, argument: str) -> None:
    error = refusal(PARAMETERS, {"args": ["--fine", argument]})
    assert error.key == "args.1"
    assert "set by the recipe" in error.message


@pytest.mark.parametrize("argument", ["--port-range", "--seed=--port", "port", "--x", "-p", "--PORT", "x --port=1"])
def test_other_arguments_are_not(launch: Launch, argument: str) -> None:
    assert launch(PARAMETERS, {"args": [argument]}).command[-1] == argument


# Words of the recipe


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("{port}", ({"runtime": "port"},)),
        ("--port={port}", ("--port=", {"runtime": "port"})),
        ("{files}/engine.py", ({"runtime": "files"}, "/engine.py")),
        ("http://{host}:{port}/", ("http://", {"runtime": "host"}, ":", {"runtime": "port"}, "/")),
        ("plain", "plain"),
        ("{{port}}", "{port}"),
        ("{x.y}", "{x.y}"),
        ("", ""),
    ],
)
def test_what_only_the_job_knows_stays_open(launch: Launch, word: str, expected: Any) -> None:
    assert launch(f"command: [{json.dumps(word)}]\n").command[1] == expected


# Resources

SITE = SlurmSettings(partition="main", account="lab", qos="normal", extra_options=("--exclusive",))


def resources(launch: Launch, body: str, config: dict[str, Any], site: SlurmSettings = SITE) -> Resources:
    return launch(body, config, site=site).resources


def test_the_site_then_the_recipe_then_the_service(launch: Launch) -> None:
    recipe = "resources: {partition: gpu, memory: 8G, extra_options: [--contiguous]}\n"
    assert resources(launch, "", {}) == Resources(
        partition="main", account="lab", qos="normal", extra_options=("--exclusive",)
    )
    found = resources(launch, recipe, {"resources": {"memory": "16G", "qos": "high", "extra_options": ["--nice=5"]}})
    assert (found.partition, found.account, found.qos, found.memory_mb) == ("gpu", "lab", "high", 16384)
    assert found.extra_options == ("--exclusive", "--contiguous", "--nice=5")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"nodes": 2}, {"nodes": 2}),
        ({"cpu": 4}, {"cpu": 4}),
        ({"cpus": "4"}, {"cpu": 4}),
        ({"memory": "2G"}, {"memory_mb": 2048}),
        ({"gpu": "a100:2"}, {"gpu": 2, "gpu_type": "a100"}),
        ({"time": "01:00:00"}, {"time_limit": 60}),
        ({"time_limit": "30:00"}, {"time_limit": 30}),
        ({"resources": {"cpus": 4, "time": 5}}, {"cpu": 4, "time_limit": 5}),
        ({"cpu": 2, "resources": {"cpu": 8}}, {"cpu": 8}),
        ({"time": 5, "resources": {"time_limit": 6}}, {"time_limit": 6}),
        ({"cpu": None, "resources": {"memory": None}}, {}),
        ({"resources": None}, {}),
    ],
)
def test_older_spellings_and_the_nested_ones_above_them(
    launch: Launch, config: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert resources(launch, "", config, SlurmSettings()) == Resources(**expected)


@pytest.mark.parametrize(
    ("recipe", "config", "expected"),
    [
        ("", {}, None),
        ("time_min: 2h", {}, 120),
        ("time_min: 2h", {"resources": {"time_min": 90}}, 90),
        ("time_min: 2h", {"resources": {"time_min": "site"}}, None),
        ("time_min: 2h", {"resources": {"time_limit": "1h"}}, 60),
        ("time_min: 2h", {"time": 30}, 30),
        ("time_min: 2h", {"resources": {"time_limit": "site"}}, 120),
    ],
)
def test_the_least_time_limit_is_no_more_than_what_a_service_says(
    launch: Launch, recipe: str, config: dict[str, Any], expected: int | None
) -> None:
    assert resources(launch, f"resources: {{time_limit: 4h, {recipe}}}\n", config).time_min == expected


def test_an_older_spelling_outweighs_the_recipe(launch: Launch) -> None:
    assert resources(launch, "resources: {cpu: 8}\n", {"cpus": 2}).cpu == 2


def test_a_parameter_of_that_name_is_no_older_spelling(launch: Launch) -> None:
    body = "parameters: {nodes: {type: integer}}\ncommand: [[--nodes, '{nodes}']]\n"
    found = launch(body, {"nodes": 3})
    assert (found.command, found.resources.nodes) == (("run", "--nodes", "3"), 1)


@pytest.mark.parametrize(
    ("body", "config", "expected"),
    [
        (
            "resources: {gpu: 1}",
            {"resources": {"extra_options": ["--gpus-per-node=4"]}},
            (0, None, "--gpus-per-node=4"),
        ),
        ("resources: {gpu: 1}", {"resources": {"gres": "gpu:a100:4"}}, (0, "gpu:a100:4", None)),
        ("resources: {gpu: 1}", {"resources": {"gres": "nvme:1"}}, (1, "nvme:1", None)),
        ("resources: {gres: 'gpu:2,nvme:1'}", {"gpu": 4}, (4, "nvme:1", None)),
        ("resources: {extra_options: [--gpus=8]}", {"gpu": "h100:2"}, (2, None, None)),
        ("resources: {extra_options: [--gpus=8]}", {"gpu": 0}, (0, None, None)),
        ("", {"gpu": 1, "resources": {"extra_options": ["--gpus=2"]}}, (0, None, "--gpus=2")),
        ("", {"resources": {"gpu": 0, "extra_options": ["--gpus-per-node=4"]}}, (0, None, "--gpus-per-node=4")),
        ("", {"resources": {"gpu": 1, "extra_options": ["--gpus-per-node=4"]}}, (0, None, "--gpus-per-node=4")),
        ("", {"resources": {"gpu": 1, "gres": "shard:3"}}, (0, "shard:3", None)),
        ("", {}, (0, "gpu:1,lscratch:9", None)),
        ("", {"gpu": 3}, (3, "lscratch:9", None)),
    ],
)
def test_gpus_are_asked_for_once_by_who_outweighs(
    launch: Launch, body: str, config: dict[str, Any], expected: tuple[int, str | None, str | None]
) -> None:
    site = SlurmSettings(gres="" if body or "resources" in config else "gpu:1,lscratch:9")
    found = resources(launch, f"{body}\n", config, site)
    assert (found.gpu, found.gres, next(iter(found.extra_options), None)) == expected


def test_options_about_gpus_go_with_those_who_ask_for_them(launch: Launch) -> None:
    site = SlurmSettings(extra_options=("--gpus-per-node=1", "--gpu-bind=closest"))
    found = resources(launch, "", {"resources": {"extra_options": ["--gpus=4", "--gpus-per-node=2"]}}, site)
    assert found.extra_options == ("--gpu-bind=closest", "--gpus=4", "--gpus-per-node=2")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"resources": {"memory": "site"}}, "memory_mb"),
        ({"memory": "site"}, "memory_mb"),
        ({"resources": {"cpus": "site"}}, "cpu"),
        ({"time": "site"}, "time_limit"),
    ],
)
def test_a_service_may_leave_to_slurm_what_the_recipe_asks_for(
    launch: Launch, config: dict[str, Any], field: str
) -> None:
    found = resources(launch, "resources: {memory: 8G, cpu: 4, time_limit: 1d12h}\n", config)
    known = {"memory_mb": 8192, "cpu": 4, "time_limit": 2160} | {field: None}
    assert {name: getattr(found, name) for name in known} == known


def test_what_a_site_leaves_out_nobody_asks_for(launch: Launch) -> None:
    site = SlurmSettings(leave_out=("memory", "cpu"))
    found = resources(launch, "resources: {memory: 8G}\n", {"memory": "16G", "cpu": 2}, site)
    assert (found.memory_mb, found.cpu, found.time_limit) == (None, None, 60)


@pytest.mark.parametrize(
    ("body", "site", "expected"),
    [
        ("resources: {gpu: 1}", "auto", None),
        ("resources: {gpu: 1}", "amd", "amd"),
        ("gpu_vendor: intel\nresources: {gpu: 1}", "amd", "intel"),
        ("resources: {cpu: 1}", "amd", None),
        ("gpu_vendor: nvidia", "auto", "nvidia"),
    ],
)
def test_whose_gpus_it_is_for_says_the_recipe_then_the_site(
    launch: Launch, body: str, site: Any, expected: str | None
) -> None:
    assert launch(f"{body}\n", {}, site=SlurmSettings(gpu_vendor=site)).gpu_vendor == expected


def test_an_empty_text_leaves_it_to_slurm(launch: Launch) -> None:
    assert resources(launch, "", {"resources": {"partition": ""}}).partition is None


FIELDS = ["partition", "account", "qos", "constraint", "reservation", "gres"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "a;b",
        "a\nb",
        "$(a)",
        "`a`",
        "a'b",
        'a"b',
        "a\0b",
        "\ud800",
        "x" * 10_000,
        "a\\b",
        "é",
        "a>b",
        5,
        True,
        [],
        {},
        ["a"],
    ],
)
def test_no_value_for_slurm_has_anything_odd_in_it(refusal: Refusal, field: str, value: Any) -> None:
    error = refusal("", {"resources": {field: value}})
    assert error.key == f"resources.{field}"
    assert error.message.encode()


@pytest.mark.parametrize("field", [f for f in FIELDS if f not in ("gres", "constraint")])
def test_no_value_for_slurm_begins_with_a_hyphen(refusal: Refusal, field: str) -> None:
    assert refusal("", {"resources": {field: "--uid=0"}}).key == f"resources.{field}"


@pytest.mark.parametrize(
    "option",
    [
        "--array=1-9",
        "--dependency=singleton",
        "--requeue",
        "--export=ALL",
        "--output=/x",
        "--wrap=x",
        "--uid=0",
        "-a1",
        "--arr=1",
        "job.sh",
        "",
        "--nice=1 --wrap=x",
        "--exclude=a\nb",
        "--exclude=$(x)",
        "--job-name=x",
        "--comment=x",
        "--mem=1G",
        "--time=1",
    ],
)
def test_options_off_the_list_are_refused(refusal: Refusal, option: str) -> None:
    assert refusal("", {"resources": {"extra_options": [option]}}).key == "resources.extra_options"


@pytest.mark.parametrize("value", ["--exclusive", [5], [None], {"a": 1}, 5])
def test_options_are_a_list_of_texts(refusal: Refusal, value: Any) -> None:
    assert refusal("", {"resources": {"extra_options": value}}).key == "resources.extra_options"


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"resources": {"memory": "lots"}}, "resources.memory"),
        ({"memory": "lots"}, "memory"),
        ({"time": "1x"}, "time"),
        ({"resources": {"time_limit": "25:61:00"}}, "resources.time_limit"),
        ({"resources": {"time_min": "soon"}}, "resources.time_min"),
        ({"resources": {"time_min": 61}}, "resources.time_min"),
        ({"resources": {"time_min": 6}, "time": 5}, "resources.time_min"),
        ({"cpus": 0}, "cpus"),
        ({"nodes": -1}, "nodes"),
        ({"nodes": 10**9}, "nodes"),
        ({"gpu": "a b:1"}, "gpu"),
        ({"resources": {"disk": 5}}, "resources.disk"),
        ({"resources": [1]}, "resources"),
        ({"resources": "cpu=1"}, "resources"),
        ({"replicas": -1}, "replicas"),
        ({"replicas": 1001}, "replicas"),
        ({"replicas": 1.5}, "replicas"),
        ({"replicas": True}, "replicas"),
        ({"replicas": "two"}, "replicas"),
    ],
)
def test_a_bad_resource_is_named_as_it_was_written(refusal: Refusal, config: dict[str, Any], key: str) -> None:
    assert refusal("", config).key == key


def test_a_bad_default_of_the_site_is_named(refusal: Refusal) -> None:
    assert refusal("", {}, site=SlurmSettings(partition="a b")).key == "partition"


# What only a recipe may set, and what has no effect


@pytest.mark.parametrize("key", sorted(FIXED_BY_RECIPE))
def test_what_only_a_recipe_may_set_is_refused(refusal: Refusal, key: str) -> None:
    assert refusal("", {key: "x"}).key == key


def test_unless_the_recipe_declares_it(launch: Launch) -> None:
    body = "parameters: {image: {type: string}}\ncommand: ['{image}']\n"
    assert launch(body, {"image": "cat.png"}).command == ("run", "cat.png")


@pytest.mark.parametrize("key", [*FIELDS, "extra_options"])
def test_a_resource_in_the_wrong_place_is_refused_not_ignored(refusal: Refusal, key: str) -> None:
    error = refusal("", {key: "x"})
    assert (error.key, error.message) == (key, f"It has no effect here. Give it as resources.{key}.")


def test_unknown_keys_that_inform_are_let_be(launch: Launch) -> None:
    known, noted = launch("", {}), launch("", {"team": "nlp", "note": {"a": ["b"]}, "": None, "\ud800": 1})
    assert replace(noted, warnings=()) == known
    assert digest(noted) == digest(known)
    assert [text.partition(":")[0] for text in noted.warnings or ()] == ["", "note", "team", "\\ud800"]


# Environment


def test_the_services_environment_outweighs_the_recipes_key_by_key(launch: Launch) -> None:
    found = launch("environment: {A: 1, B: 2, C: true}\n", {"environment": {"B": 3, "C": None, "D": False, "E": 1.5}})
    assert found.environment == {"A": "1", "B": "3", "D": "false", "E": "1.5"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1A",
        "A B",
        "A=B",
        "A\nB",
        "A\0",
        "é",
        "A-B",
        "x" * 129,
        "\ud800",
        "$(x)",
        "SLURM_JOB_ID",
        "SBATCH_ARRAY_INX",
        "APPTAINER_BIND",
        "APPTAINERENV_X",
        "SINGULARITY_BIND",
        "SINGULARITYENV_X",
        "LD_PRELOAD",
        "AF_TOKEN",
    ],
)
@pytest.mark.parametrize("table", ["environment", "environment_from"])
def test_names_that_no_service_may_set(refusal: Refusal, table: str, name: str) -> None:
    error = refusal("", {table: {name: "/x"}})
    assert error.key.startswith(f"{table}.")
    assert str(error).encode()
    assert len(error.key) <= 200


STEERING = (
    "PATH", "HOME", "ENV", "BASH_ENV", "IFS", "LD_LIBRARY_PATH", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "PERL5LIB",
    "RUBYOPT", "NODE_OPTIONS", "GCONV_PATH", "LOCPATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "XDG_CONFIG_HOME",
    "GIT_SSH_COMMAND", "PIP_INDEX_URL", "R_LIBS", "OPENSSL_CONF", "MODULEPATH", "MODULES_CMD", "LMOD_CMD",
)  # fmt: skip


@pytest.mark.parametrize("table", ["environment", "environment_from"])
@pytest.mark.parametrize("name", STEERING)
def test_without_a_container_no_variable_steers_what_is_run(
    launch: Launch, refusal: Refusal, table: str, name: str
) -> None:
    error = refusal("", {table: {name: "/x"}})
    assert (error.key, "Only the recipe may set it" in error.message) == (f"{table}.{name}", True)
    assert refusal("", {"environment": {name: None}}).key == f"environment.{name}"
    if name != "LD_PRELOAD":
        assert getattr(launch("image: /x.sif\n", {table: {name: "/x"}}), table) == {name: "/x"}
    assert launch(f"environment: {{{name}: /of/recipe}}\n", {}).environment == {name: "/of/recipe"}


@pytest.mark.parametrize("name", ["HF_HOME", "RANK", "NODE_RANK", "PYTORCH_CUDA_ALLOC_CONF", "TMPDIR", "MY_PATH"])
def test_other_variables_are_a_services_to_set(launch: Launch, name: str) -> None:
    assert launch("", {"environment": {name: "x"}}).environment == {name: "x"}


def test_what_a_recipe_offers_as_a_parameter_may_be_set(launch: Launch) -> None:
    offered = "parameters:\n  packages: {type: string, variable: PYTHONPATH}\n"
    assert launch(offered, {"environment": {"PYTHONPATH": "/x"}}).environment == {"PYTHONPATH": "/x"}


@pytest.mark.parametrize("path", ["/other/token", "/secrets", "/secrets-of-others/x", "/secrets/../etc/x"])
def test_secrets_lie_below_the_sites_folders(launch: Launch, refusal: Refusal, path: str) -> None:
    site = SlurmSettings(secret_roots=("/secrets", "/home/me/keys"))
    by_parameter = 'parameters:\n  file: {type: string}\nenvironment_from: {TOKEN: "{file}"}\n'
    for body, config in (("", {"environment_from": {"TOKEN": path}}), (by_parameter, {"file": path})):
        error = refusal(body, config, site=site)
        assert error.key in ("environment_from.TOKEN", "file")
        assert "below one of /secrets, /home/me/keys (slurm.secret_roots)" in error.message
        assert launch(body, config).environment_from == {"TOKEN": path}
    inside = {"environment_from": {"TOKEN": "/home/me/keys/hub"}}
    assert launch("", inside, site=site).environment_from == {"TOKEN": "/home/me/keys/hub"}


def test_the_engines_secret_can_not_be_set(refusal: Refusal) -> None:
    vllm = f"{LISTENS}engine: vllm\nmodel: m\n"
    for table in ("environment", "environment_from"):
        assert "reserved" in refusal(vllm, {table: {"VLLM_API_KEY": "/x"}}).message
    own = "secret_variable: TOKEN\n"
    assert "reserved" in refusal(own, {"environment": {"TOKEN": "x"}}).message


@pytest.mark.parametrize("value", [[], {}, ["a"], {"a": 1}])
def test_values_of_the_environment_are_texts(refusal: Refusal, value: Any) -> None:
    assert refusal("", {"environment": {"A": value}}).key == "environment.A"


@pytest.mark.parametrize("table", ["environment", "environment_from", "resources", "parameters"])
@pytest.mark.parametrize("value", [[], "A=1", 5, True])
def test_tables_are_objects(refusal: Refusal, table: str, value: Any) -> None:
    assert refusal("", {table: value}).message == "must be an object."


@pytest.mark.parametrize("path", ["relative", "", "~/x", 5, None, ["/x"]])
def test_a_secret_is_in_a_file_with_an_absolute_path(refusal: Refusal, path: Any) -> None:
    assert refusal("", {"environment_from": {"HF_TOKEN": path}}).key == "environment_from.HF_TOKEN"


def test_the_services_secrets_join_the_recipes(launch: Launch) -> None:
    found = launch("environment_from: {A: /a, B: /b}\n", {"environment_from": {"B": "/c"}})
    assert found.environment_from == {"A": "/a", "B": "/c"}


# The rest of the spec


@pytest.mark.parametrize(
    ("body", "config", "given", "expected"),
    [
        ("", {}, None, 1),
        ("replicas: 3\n", {}, None, 3),
        ("replicas: 3\n", {"replicas": 2}, None, 2),
        ("replicas: 3\n", {"replicas": "2"}, None, 2),
        ("replicas: 3\n", {"replicas": 0}, None, 0),
        ("replicas: 3\n", {"replicas": None}, None, 3),
        ("replicas: 3\n", {"replicas": 2}, 5, 5),
        ("replicas: 3\n", {"replicas": 2}, 0, 0),
    ],
)
def test_replicas(launch: Launch, body: str, config: dict[str, Any], given: int | None, expected: int) -> None:
    assert launch(body, config, replicas=given).replicas == expected


def test_a_check_is_spelled_like_the_command(launch: Launch) -> None:
    check = LISTENS + "health_check:\n  command: [ready, [--text, '{text}'], [--size, '{size}']]\n"
    health = launch(PARAMETERS + check, {"text": "'; $(reboot)\n"}).health
    assert health is not None
    assert health.command == ("ready", "--text", "'; $(reboot)\n")


@pytest.mark.parametrize(
    ("engine", "health", "expected"),
    [
        ("vllm", Health(), "fd29d53f044a85d622a88d7c0dbf71f8"),
        ("vllm", None, "28912f115653da9a5b96eb8a86395960"),
    ],
)
def test_an_upgrade_changes_the_digest_of_nothing_that_runs(engine: Any, health: Health | None, expected: str) -> None:
    """The expected values are those of the first version: a service of another digest would be restarted."""
    first = LaunchSpec(recipe="a/b", kind="service", engine=engine, model="m", image=Image(source="x.sif"),
                       command=("run", ("--port=", {"runtime": "port"})), resources=Resources(),
                       health=health)  # fmt: skip
    assert digest(first) == expected
    assert digest(replace(first, access="door")) != expected
    if health is not None:
        assert digest(replace(first, health=replace(health, kind="tcp"))) != expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", None),
        (LISTENS, Health(kind="tcp")),
        (LISTENS + "engine: vllm\nmodel: m\n", Health()),
        (LISTENS + "engine: vllm\nmodel: m\nhealth_check: {retries: 9}\n", Health(retries=9)),
        (LISTENS + "health_check: {endpoint: /ok, retries: 9}\n", Health(path="/ok", retries=9)),
        (LISTENS + "health_check: {kind: http}\n", Health()),
        (LISTENS + "health_check: {interval: 9}\n", Health(kind="tcp", interval=9)),
        (
            DIRECT + "health_check: {command: [ready, -p, '{port}']}\n",
            Health(kind="command", command=("ready", "-p", ({"runtime": "port"},))),
        ),
    ],
)
def test_health_is_for_what_listens(launch: Launch, body: str, expected: Health | None) -> None:
    assert launch(body).health == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", None),
        ("image: docker://a\n", Image(source="docker://a")),
        ("container_def: demo.def\n", Image(definition="Bootstrap: scratch\n")),
    ],
)
def test_image(launch: Launch, tmp_path: Path, body: str, expected: Image | None) -> None:
    (tmp_path / "recipes/test").mkdir(parents=True)
    (tmp_path / "recipes/test/demo.def").write_text("Bootstrap: scratch\n")
    assert launch(body).image == expected


@pytest.mark.parametrize(
    ("config", "model"),
    [({"model": "a/b"}, "a/b"), ({"model": "a/b", "alias": "c"}, "c"), ({"alias": "c"}, "c"), ({}, None)],
)
def test_the_model_is_the_name_under_which_it_serves(launch: Launch, config: dict[str, Any], model: str | None) -> None:
    body = 'parameters: {model: {type: string}, alias: {type: string}}\nmodel: "{alias}"\n'
    assert launch(body, config).model == model


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", None),
        (f"{DIRECT}engine: vllm\nmodel: m\n", "VLLM_API_KEY"),
        (f"{DIRECT}engine: vllm\nmodel: m\nsecret_variable: null\n", None),
        (f"{LISTENS}engine: vllm\nmodel: m\n", None),
        (f"{LISTENS}secret_variable: TOKEN\n", None),
        (f"{DIRECT}secret_variable: TOKEN\n", "TOKEN"),
        ("secret_variable: TOKEN\n", "TOKEN"),
    ],
)
def test_through_which_variable_the_engine_takes_its_secret(launch: Launch, body: str, expected: str | None) -> None:
    assert launch(body).secret_variable == expected


@pytest.mark.parametrize(
    ("body", "access"), [("", "direct"), ("access: door\n", "direct"), (LISTENS, "door"), (DIRECT, "direct")]
)
def test_what_listens_is_behind_a_door_unless_its_recipe_says_otherwise(launch: Launch, body: str, access: str) -> None:
    assert launch(body).access == access


# The spec as it is stored


@pytest.mark.parametrize("value", HOSTILE)
def test_a_spec_is_read_back_as_it_was_written(launch: Launch, value: str) -> None:
    body = PARAMETERS + '  - "--at={port}"\nenvironment: {P: "{port}"}\nports: [1]\n'
    spec = launch(body, {"text": value, "args": [value], "environment": {"A": value}, "gpu": "a100:2"})
    again = decode_spec(encode_spec(spec))
    assert encode_spec(again) == encode_spec(spec)
    assert digest(again) == digest(spec)
    assert (again.command[2], again.environment["A"], again.resources) == (value, value, spec.resources)


def test_whose_network_an_engine_has_is_its_recipes_to_say(launch: Launch) -> None:
    assert launch(LISTENS).network is Network.HOST
    assert launch(f"{LISTENS}network: private\n").network is Network.PRIVATE


def test_the_nodes_network_is_what_was_before_there_were_others(launch: Launch) -> None:
    spec = launch(PARAMETERS, {})
    stored = json.loads(encode_spec(spec))
    del stored["network"]
    assert decode_spec(json.dumps(stored)) == spec
    assert digest(replace(spec, network=Network.PRIVATE)) != digest(spec)


def test_direct_access_is_what_was_before_there_were_doors(launch: Launch) -> None:
    spec = launch(PARAMETERS, {})
    stored = json.loads(encode_spec(replace(spec, access="direct")))
    del stored["access"]
    before = decode_spec(json.dumps(stored))
    assert (before.access, digest(before)) == ("direct", digest(replace(spec, access="direct")))
    assert digest(replace(spec, access="door")) != digest(before)


def test_the_digest_tells_launches_apart_and_not_numbers_of_replicas(launch: Launch) -> None:
    base = digest(launch(PARAMETERS, {}))
    assert base == digest(launch(PARAMETERS, {"replicas": 9}))
    assert base == digest(launch(PARAMETERS, {"note": "x"}))
    others = [{"size": 1}, {"environment": {"A": "1"}}, {"resources": {"cpu": 2}}, {"args": [""]}, {"text": ""}]
    assert len({base, *(digest(launch(PARAMETERS, config)) for config in others)}) == len(others) + 1


def test_a_restart_is_another_launch_of_the_same(launch: Launch) -> None:
    base, once, twice = (launch(PARAMETERS, c) for c in ({}, {"restarted_at": "2026-01-02"}, {"restarted_at": 3}))
    assert len({digest(base), digest(once), digest(twice)}) == 3
    assert replace(once, restarted_at=None) == replace(twice, restarted_at=None) == base
    assert digest(launch(PARAMETERS, {"restarted_at": None})) == digest(base)
    own = launch("parameters:\n  restarted_at: {type: string, default: x}\n", {"restarted_at": "y"})
    assert own.restarted_at is None


@pytest.mark.parametrize("value", [True, [], {}, "x" * 65, "a\0"])
def test_a_restart_has_a_time(launch: Launch, value: object) -> None:
    with pytest.raises(ConfigError, match=r"^restarted_at: "):
        launch(PARAMETERS, {"restarted_at": value})


def test_how_a_change_is_rolled_out_is_no_other_launch(launch: Launch) -> None:
    base, given = launch(PARAMETERS, {}), launch(PARAMETERS, {"update": {"surge": "3", "max_unavailable": 0}})
    assert (base.surge, base.max_unavailable) == (1, 1)
    assert (given.surge, given.max_unavailable) == (3, 0)
    assert digest(given) == digest(base)
    recipe = launch(f"update: {{surge: 0}}\n{PARAMETERS}", {"update": {"max_unavailable": 4}})
    assert (recipe.surge, recipe.max_unavailable) == (0, 4)
    smaller = launch(f"update: {{no_room: shrink}}\n{PARAMETERS}", {"update": {"surge": 2}})
    assert (base.no_room, smaller.no_room, digest(smaller)) == ("gap", "shrink", digest(base))
    assert launch(f"update: {{no_room: shrink}}\n{PARAMETERS}", {"update": {"no_room": "gap"}}).no_room == "gap"
    own = launch("parameters:\n  update: {type: string, default: x}\n", {"update": "y"})
    assert own.surge == 1


@pytest.mark.parametrize(
    ("update", "key"),
    [
        ({"surge": -1}, "update.surge"),
        ({"surge": 0.5}, "update.surge"),
        ({"max_unavailable": True}, "update.max_unavailable"),
        ({"surge": 0, "max_unavailable": 0}, "update"),
        ({"strategy": "recreate"}, "update.strategy"),
        ({"surges": 1}, "update.surges"),
        ({"no_room": "wait"}, "update.no_room"),
        ({"no_room": ["gap"]}, "update.no_room"),
        ("fast", "update"),
    ],
)
def test_how_a_change_is_rolled_out_is_checked(refusal: Refusal, update: object, key: str) -> None:
    assert refusal("", {"update": update}).key == key


def test_the_order_of_keys_makes_no_other_launch(launch: Launch) -> None:
    one = {"environment": {"A": "1", "B": "2"}}
    other = {"environment": {"B": "2", "A": "1"}}
    assert digest(launch("", one)) == digest(launch("", other))


@pytest.mark.parametrize("text", ["", "{}", "null", "[]", '{"recipe": 1}', b"\xff"])
def test_a_stored_spec_that_is_none_is_refused(text: str | bytes) -> None:
    with pytest.raises(ConfigError, match="stored launch spec"):
        decode_spec(text)


# Whatever is sent

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("--port=1")
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(
    [
        "text",
        "size",
        "share",
        "loud",
        "args",
        "word",
        "level",
        "parameters",
        "resources",
        "environment",
        "replicas",
        "environment_from",
        "volumes",
        "cpu",
        "cpus",
        "memory",
        "time",
        "gpu",
        "nodes",
        "image",
        "name",
    ]
)
inner_keys = st.sampled_from(
    ["A", "cpu", "memory", "gpu", "partition", "extra_options", "text", "args", "size", "time_limit"]
)
configs = st.dictionaries(keys, values | st.dictionaries(inner_keys, values, max_size=3), max_size=4)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    file = tmp_path_factory.mktemp("recipes") / "test" / "demo.yaml"
    file.parent.mkdir()
    file.write_text("name: demo\ncategory: test\ndescription: d\nversion: '1'\nprogram: [run]\n" + PARAMETERS)
    return read_recipe(file, "test/demo", {})


@settings(max_examples=examples(50))
@given(config=configs)
def test_whatever_is_sent_it_is_launched_as_words_or_refused_in_words(demo: Recipe, config: dict[str, Any]) -> None:
    try:
        spec = resolve(demo, config, replicas=None, site=SlurmSettings())
    except ConfigError as error:
        assert error.message
        assert str(error).isprintable()
        assert len(str(error)) < 5000
        return
    assert decode_spec(encode_spec(spec)).resources == spec.resources
    assert all(isinstance(word, str) and "\0" not in word for word in spec.command)
    assert not any(word.startswith("--port") for word in spec.command if isinstance(word, str))
    assert 1 <= spec.resources.nodes <= 10_000
    assert spec.resources.time_limit >= 1


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--served-model-name", "main", "also"], ("also",)),
        (["--lora-modules", "sql=/models/sql", "law=/models/law", "--enable-lora"], ("sql", "law")),
        (["--lora-modules=sql=/models/sql"], ("sql",)),
        (["--lora_modules", '{"name": "sql", "path": "/models/sql", "base_model_name": "main"}'], ("sql",)),
        (["--lora-modules", '[{"name": "sql"}, {"name": "law"}, {"path": "x"}, 5]', "{not json"], ("sql", "law")),
        (["--lora-modules", "main=/models/x"], ()),
    ],
)
def test_all_names_that_an_engine_answers_to(launch: Launch, words: list[str], names: tuple[str, ...]) -> None:
    engine = "engine: vllm\nmodel: main\n"
    body = "parameters:\n  words: {type: list, default: []}\ncommand: [serve, '{words}']\n"
    spec = launch(LISTENS + engine + body, {"words": words})
    assert (spec.model, spec.further_models) == ("main", names)
    assert decode_spec(encode_spec(spec)) == spec


def test_what_is_no_matter_of_the_job_restarts_nothing(launch: Launch) -> None:
    spec = launch(LISTENS, {})
    assert digest(spec) == digest(replace(spec, exposed=True)) == digest(replace(spec, further_models=("x",)))

"""Volumes and secrets in recipes and configs: where they may lie, who may say so, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from api.contract.launch import LaunchSpec, Volume
from api.contract.recipes.book import read_recipe
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.located import RecipeError
from api.contract.recipes.spec import decode_spec, digest, encode_spec
from api.contract.settings import SlurmSettings

Launch = Callable[..., LaunchSpec]
Refusal = Callable[..., ConfigError]
Write = Callable[..., Any]

KEPT = "image: x.sif\nupdate: {strategy: recreate}\n"
ONE = KEPT + "volumes:\n  - {name: data, target: /data}\n"
OWN = KEPT + "volumes:\n  - {name: 'data-{replica}', target: /data}\n"
SITE = SlurmSettings(volume_roots=("/shared/volumes", "/scratch"))


# Recipes


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (KEPT + "volumes:\n  - {target: /data}\n", "8: volumes.0: a volume needs either a name or a path."),
        (KEPT + "volumes:\n  - {target: /d, name: a, path: /x}\n", "8: volumes.0: a volume needs either a name or a"),
        (KEPT + "volumes:\n  - {name: a}\n", "8: volumes.0.target: it is missing."),
        (KEPT + "volumes:\n  - {name: a, target: /d, mode: rw}\n", "8: volumes.0.mode: there is no such key."),
        (KEPT + "volumes: {name: a}\n", "7: volumes: Expected"),
        (KEPT + "volumes:\n  - name: a\n    target: data\n", "9: volumes.0.target: must be a plain absolute path"),
        (KEPT + "volumes:\n  - {name: a, target: /}\n", "8: volumes.0.target: must be a plain absolute path"),
        (KEPT + "volumes:\n  - {name: a, target: /x/../y}\n", "8: volumes.0.target: must be a plain absolute path"),
        (KEPT + 'volumes:\n  - {name: a, target: "/x\\ny"}\n', "8: volumes.0.target: must be a path of at most"),
        (KEPT + 'volumes:\n  - {name: a, target: "/x\\0y"}\n', "8: volumes.0.target: it has a NUL"),
        (KEPT + "volumes:\n  - {path: x, target: /x}\n", "8: volumes.0.path: must be a plain absolute path"),
        (KEPT + "volumes:\n  - {path: //x, target: /x}\n", "8: volumes.0.path: must be a plain absolute path"),
        (KEPT + f"volumes:\n  - {{path: /{'x' * 1024}, target: /x}}\n", "8: volumes.0.path: must be a path of at most"),
        (KEPT + "volumes:\n  - {name: ../x, target: /x}\n", "8: volumes.0.name: Expected"),
        (KEPT + "volumes:\n  - {name: -x, target: /x}\n", "8: volumes.0.name: Expected"),
        (KEPT + "volumes:\n  - {name: 'a{size}', target: /x}\n", "8: volumes.0.name: Expected"),
        (KEPT + 'volumes:\n  - {name: "a\\n", target: /x}\n', "8: volumes.0.name: Expected"),
        (KEPT + "volumes: [{name: a, target: /x}, {name: b, target: /x}]\n", "7: volumes: /x is given twice."),
        (KEPT + "volumes: [{name: a, target: /x}, {name: a, target: /y}]\n", "7: volumes: a is given twice."),
        (
            "image: x.sif\nvolumes: [{name: a, target: /x}]\n",
            "6: volumes: a volume is written by one job at a time: set update: {strategy: recreate}.",
        ),
        (
            "update: {strategy: recreate}\nvolumes: [{name: a, target: /x}]\n",
            "6: volumes: without a container nothing can be bound: give image or container_def.",
        ),
        (ONE + "replicas: 2\n", "9: replicas: only one may write to a volume: put {replica} into its name or path."),
        ('environment_from: {A: "{size}"}\n', "5: environment_from: {size} is not a parameter of this recipe."),
    ],
)
def test_what_is_wrong_is_told_with_its_line(write: Write, body: str, expected: str) -> None:
    file = write(body)
    with pytest.raises(RecipeError) as caught:
        read_recipe(file, "test/demo", {})
    assert str(caught.value).removeprefix(f"{file}:").startswith(expected)


def test_a_recipe_may_name_any_place(launch: Launch) -> None:
    body = KEPT + "volumes: [{path: '/x, y/{replica}', target: '/a b'}, {name: n, target: /data}]\n"
    assert launch(body).volumes == (
        Volume(target="/a b", path="/x, y/{replica}"),
        Volume(target="/data", name="n"),
    )


def test_one_of_each_replicas_own_lets_there_be_many(launch: Launch) -> None:
    assert launch(OWN + "replicas: 3\n").replicas == 3
    assert launch(OWN, {"replicas": 5}).volumes[0].name == "data-{replica}"


# Configs


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], Volume(target="/data", name="data")),
        (None, Volume(target="/data", name="data")),
        ([{"target": "/data", "name": "mine"}], Volume(target="/data", name="mine")),
        (
            [{"target": "/data", "path": "/shared/volumes/a b"}],
            Volume(target="/data", path="/shared/volumes/a b", root="/shared/volumes"),
        ),
        (
            [{"target": "/data", "path": "/scratch/'$(x)"}],
            Volume(target="/data", path="/scratch/'$(x)", root="/scratch"),
        ),
    ],
)
def test_a_service_may_say_where_a_volume_lies(launch: Launch, given: Any, expected: Volume) -> None:
    spec = launch(ONE, {"volumes": given}, site=SITE)
    assert spec.volumes == (expected,)
    assert decode_spec(encode_spec(spec)) == spec
    assert digest(spec) != digest(replace(spec, volumes=()))


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        ({}, "volumes", "must be a list"),
        ("data", "volumes", "must be a list"),
        (["data"], "volumes.0", "must be an object of texts"),
        ([{"target": "/data", "name": 7}], "volumes.0", "must be an object of texts"),
        ([{"target": "/data", "name": "a", "root": "/"}], "volumes.0.root", "There is no such key"),
        ([{"name": "a"}], "volumes.0", "needs target"),
        ([{"target": "/data"}], "volumes.0", "either a name or a path"),
        ([{"target": "/data", "name": "a", "path": "/scratch/a"}], "volumes.0", "either a name or a path"),
        ([{"target": "/usr", "name": "a"}], "volumes.0.target", "The recipe has no volume there. It has: /data."),
        ([{"target": "/data", "name": ".."}], "volumes.0.name", "must be at most 64 letters"),
        ([{"target": "/data", "name": "../s/data"}], "volumes.0.name", "must be at most 64 letters"),
        ([{"target": "/data", "name": "-x"}], "volumes.0.name", "must be at most 64 letters"),
        ([{"target": "/data", "name": "a\n"}], "volumes.0.name", "must be at most 64 letters"),
        ([{"target": "/data", "name": "a\0"}], "volumes.0.name", "must be at most 64 letters"),
        ([{"target": "/data", "name": "x" * 65}], "volumes.0.name", "must be at most 64 letters"),
        ([{"target": "/data", "path": "/home/u"}], "volumes.0.path", "below one of /shared/volumes, /scratch"),
        ([{"target": "/data", "path": "/scratch"}], "volumes.0.path", "below one of"),
        ([{"target": "/data", "path": "/scratch2/x"}], "volumes.0.path", "below one of"),
        ([{"target": "/data", "path": "/scratch/../home/u"}], "volumes.0.path", "must be a plain absolute path"),
        ([{"target": "/data", "path": "scratch/x"}], "volumes.0.path", "must be a plain absolute path"),
        ([{"target": "/data", "path": "/scratch/x\ny"}], "volumes.0.path", "without control characters"),
        ([{"target": "/data", "path": "/scratch/\0"}], "volumes.0.path", "without control characters"),
        ([{"target": "/data", "path": "/scratch/\ud800"}], "volumes.0.path", "without control characters"),
    ],
)
def test_what_a_service_may_not_say(refusal: Refusal, given: Any, key: str, message: str) -> None:
    error = refusal(ONE, {"volumes": given}, site=SITE)
    assert error.key == key
    assert message in error.message
    assert str(error).isprintable()


def test_where_the_site_opened_no_folder_a_path_is_refused(refusal: Refusal) -> None:
    error = refusal(ONE, {"volumes": [{"target": "/data", "path": "/scratch/x"}]})
    assert "nowhere on this site (slurm.volume_roots); give a name" in error.message


def test_a_recipe_without_volumes_takes_none(refusal: Refusal) -> None:
    assert "It has: none." in refusal("", {"volumes": [{"target": "/data", "name": "a"}]}).message


def test_two_volumes_may_not_become_one(refusal: Refusal) -> None:
    body = KEPT + "volumes: [{name: a, target: /a}, {name: b, target: /b}]\n"
    assert "a is given twice" in refusal(body, {"volumes": [{"target": "/b", "name": "a"}]}).message


@pytest.mark.parametrize(("config", "given"), [({"replicas": 2}, None), ({}, 2)])
def test_replicas_that_would_share_a_volume_are_refused(refusal: Refusal, config: Any, given: int | None) -> None:
    error = refusal(ONE, config, replicas=given)
    assert error.key == "replicas"
    assert error.message == (
        "Only one replica may write to the volume data: ask for one, or put {replica} into the volume's name or path."
    )


# Secrets

SECRET = """\
parameters:
  key_file: {type: string}
environment_from:
  KEY: "{key_file}"
"""


def test_a_parameter_may_name_the_file_of_a_secret(launch: Launch) -> None:
    assert launch(SECRET, {"key_file": "/home/me/a b"}).environment_from == {"KEY": "/home/me/a b"}
    assert launch(SECRET).environment_from == {}, "one that is not set is left out"
    outweighed = launch(SECRET, {"key_file": "/a", "environment_from": {"KEY": "/b"}})
    assert outweighed.environment_from == {"KEY": "/b"}


@pytest.mark.parametrize("value", ["relative", "", "~/key", "-x", "/a\0b", " /x"])
def test_the_file_of_a_secret_is_an_absolute_path(refusal: Refusal, value: str) -> None:
    assert refusal(SECRET, {"key_file": value}).key == "key_file"

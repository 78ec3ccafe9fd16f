"""The recipes of this repository."""

from __future__ import annotations

import re
from typing import Any

import pytest

from api.contract.configuration import shared_folder
from api.contract.job.parameters import Image
from api.contract.launch import LaunchSpec, Volume
from api.contract.recipes.book import Book, Library
from api.contract.recipes.checks import placeholders
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.resolve import resolve
from api.contract.recipes.spec import decode_spec, digest, encode_spec
from api.contract.settings import SlurmSettings


def launch(book: Book, name: str, config: dict[str, Any] | None = None) -> LaunchSpec:
    recipe = book.find(name)
    assert recipe is not None
    return resolve(recipe, config or {}, replicas=None, site=SlurmSettings())


def test_all_of_them_can_be_used(shipped: Book) -> None:
    assert shipped.problems == {}
    assert {"inference/vllm", "inference/vllm_dummy", "simple/hello"} <= shipped.recipes.keys()


def test_all_of_them_can_be_launched_with_their_defaults(shipped: Book) -> None:
    for path in shipped.recipes:
        needed = {n: "/x" for n, p in shipped.recipes[path].content.parameters.items() if p.required}
        spec = launch(shipped, path, needed)
        assert digest(decode_spec(encode_spec(spec))) == digest(spec)
        assert [p for word in spec.command if isinstance(word, str) for p in placeholders(word)] == []


def test_every_one_says_what_it_is_and_what_its_parameters_are(shipped: Book) -> None:
    for recipe in shipped.recipes.values():
        assert recipe.content.description.endswith(".")
        assert all(p.description.endswith(".") for p in recipe.content.parameters.values())
        assert recipe.path == f"{recipe.content.category}/{recipe.file.stem}"


@pytest.mark.parametrize(("name", "replicas"), [("vllm-single-node", 1), ("vllm-replicas", 2)])
@pytest.mark.parametrize("form", ["inference/{}", "{}"])
def test_other_names_of_vllm(shipped: Book, form: str, name: str, replicas: int) -> None:
    spec = launch(shipped, form.format(name), {"model": "m"})
    plain = launch(shipped, "inference/vllm", {"model": "m"})
    assert (spec.recipe, spec.replicas) == (f"inference/{name}", replicas)
    assert (spec.command, spec.image, spec.resources, spec.health) == (
        plain.command,
        plain.image,
        plain.resources,
        plain.health,
    )


def test_vllm_by_default(shipped: Book) -> None:
    spec = launch(shipped, "vllm")
    assert spec.command == ("vllm", "serve", "Qwen/Qwen2.5-0.5B-Instruct", "--uds", ({"runtime": "socket"},))
    assert (spec.model, spec.engine, spec.kind) == ("Qwen/Qwen2.5-0.5B-Instruct", "vllm", "service")
    assert (spec.resources.gpu, spec.resources.time_limit, spec.secret_variable) == (1, 1440, None)


def test_vllm_is_the_one_that_the_tests_run(shipped: Book) -> None:
    installs = (shared_folder("recipes").parent / "deploy/local/install-vllm").read_text()
    (version,) = re.findall(r"VLLM_VERSION:-([\d.]+)", installs)
    assert launch(shipped, "vllm").image == Image(source=f"docker://vllm/vllm-openai:v{version}")


@pytest.mark.parametrize(
    ("recipe", "access"),
    [
        ("inference/vllm", "door"),
        ("inference/vllm_dummy", "door"),
        ("vector-db/chroma", "door"),
        ("vector-db/qdrant", "door"),
        ("storage/minio", "direct"),
        ("storage/postgres", "direct"),
        ("simple/hello", "direct"),
    ],
)
def test_how_they_are_reached(shipped: Book, recipe: str, access: str) -> None:
    needed = {n: "/x" for n, p in shipped.recipes[recipe].content.parameters.items() if p.required}
    spec = launch(shipped, recipe, needed)
    assert spec.access == access
    assert not spec.is_on_loopback
    assert (spec.network == "private") == recipe.startswith("vector-db/"), "these can't listen on a socket"


def test_vllm_with_everything(shipped: Book) -> None:
    config = {
        "served_model_name": "chat",
        "tensor_parallel_size": 2,
        "max_model_len": "4096",
        "gpu_memory_utilization": 0.9,
        "dtype": "bfloat16",
        "extra_args": ["--enable-prefix-caching", "--seed", 7],
        "time": "12:00:00",
        "gpu": 2,
    }
    spec = launch(shipped, "inference/vllm", config)
    words = [w for w in spec.command if isinstance(w, str)]
    assert words == [
        *["vllm", "serve", "Qwen/Qwen2.5-0.5B-Instruct", "--served-model-name", "chat"],
        *["--tensor-parallel-size", "2", "--max-model-len", "4096", "--gpu-memory-utilization", "0.9"],
        *["--dtype", "bfloat16", "--uds", "--enable-prefix-caching", "--seed", "7"],
    ]
    assert (spec.model, spec.resources.time_limit, spec.resources.gpu) == ("chat", 720, 2)


@pytest.mark.parametrize(
    "argument",
    [
        "--port=1",
        "--port",
        "--por=1",
        "--host=::",
        "--api-key=x",
        "--api_key",
        "--api",
        "--served_model_name=x",
        "--uds=x",
        "--root-path=/x",
        "--ssl-keyfile=x",
        "--ssl-cert=x",
        "--middleware=x.y",
        "--",
    ],
)
def test_vllm_takes_no_argument_that_would_cut_it_off(shipped: Book, argument: str) -> None:
    with pytest.raises(ConfigError, match=r"^extra_args\.0: "):
        launch(shipped, "vllm", {"extra_args": [argument]})


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model": "-m"}, "model"),
        ({"served_model_name": "a b"}, "served_model_name"),
        ({"served_model_name": "$(x)"}, "served_model_name"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"dtype": "int3"}, "dtype"),
        ({"max_model_len": "long"}, "max_model_len"),
        ({"environment": {"VLLM_API_KEY": "mine"}}, "environment.VLLM_API_KEY"),
        ({"command": ["sh"]}, "command"),
        ({"image": "docker://mine"}, "image"),
        ({"binds": ["/:/host"]}, "binds"),
    ],
)
def test_vllm_refuses(shipped: Book, config: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launch(shipped, "vllm", config)
    assert caught.value.key == key


SMALL = "Qwen/Qwen2.5-0.5B-Instruct"
OLDER = {"VLLM_MODEL": "org/older"}


@pytest.mark.parametrize("name", ["vllm", "inference/vllm", "inference/vllm-single-node", "inference/vllm-replicas"])
@pytest.mark.parametrize(
    ("config", "model", "environment"),
    [
        ({}, SMALL, {}),
        ({"model": None}, SMALL, {}),
        ({"environment": {"VLLM_MODEL": None}}, SMALL, {}),
        ({"environment": OLDER}, "org/older", OLDER),
        ({"environment": OLDER, "model": None}, "org/older", OLDER),
        ({"environment": OLDER, "model": "org/plain"}, "org/plain", {"VLLM_MODEL": "org/plain"}),
        ({"environment": OLDER, "parameters": {"model": "org/named"}}, "org/named", {"VLLM_MODEL": "org/named"}),
    ],
)
def test_vllm_has_a_model_whoever_names_it(
    shipped: Book, name: str, config: dict[str, Any], model: str, environment: dict[str, str]
) -> None:
    spec = launch(shipped, name, config)
    assert (spec.command[:3], spec.model) == (("vllm", "serve", model), model)
    assert {k: v for k, v in spec.environment.items() if k == "VLLM_MODEL"} == environment


@pytest.mark.parametrize("changed", ["inference/vllm", "inference/vllm-replicas"])
def test_a_site_names_the_model(changed: str) -> None:
    changes = {changed: {"parameters": {"model": {"default": "site/model"}}}}
    book = Library([shared_folder("recipes")], changes).book()
    assert book.problems == {}
    assert launch(book, changed).model == "site/model"
    assert launch(book, "inference/vllm-replicas").model == "site/model"
    assert launch(book, "inference/vllm-replicas", {"environment": OLDER}).model == "org/older"


@pytest.mark.parametrize(("value", "what"), [("-m", "must not begin with a hyphen"), (5, "must be text")])
def test_a_model_that_can_not_be_is_refused_under_its_older_spelling_too(
    shipped: Book, value: object, what: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^environment\.VLLM_MODEL: {what}"):
        launch(shipped, "vllm", {"environment": {"VLLM_MODEL": value}})


@pytest.mark.parametrize("config", [{"model": ""}, {"model": " "}, {"environment": {"VLLM_MODEL": ""}}])
def test_a_model_without_a_name_costs_no_job(shipped: Book, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must match"):
        launch(shipped, "vllm", config)


def test_a_nested_null_leaves_the_model_to_who_names_it_elsewhere(shipped: Book) -> None:
    assert launch(shipped, "vllm", {"parameters": {"model": None}, "model": "x/y"}).model == "x/y"


def test_the_dummy_travels_with_its_engine_and_takes_what_vllm_takes(shipped: Book) -> None:
    spec = launch(shipped, "vllm_dummy", {"max_model_len": 128, "model": "echo", "startup_delay": 0.5})
    assert spec.model == "echo"
    assert spec.files.keys() == {"vllm_dummy_engine.py"}
    assert spec.command[:2] == ("python3", ({"runtime": "files"}, "/vllm_dummy_engine.py"))
    assert spec.command[-2:] == ("--startup-delay", "0.5")


def test_hello_is_a_job(shipped: Book) -> None:
    spec = launch(shipped, "hello", {"greeting": "$(id)"})
    assert (spec.kind, spec.health, spec.command[-2:]) == ("job", None, ("$(id)", "1"))


@pytest.mark.parametrize(
    ("recipe", "config", "kind", "target", "secrets"),
    [
        (
            "storage/postgres",
            {"password_file": "/s"},
            "command",
            "/var/lib/postgresql/data",
            {"POSTGRES_PASSWORD": "/s"},
        ),
        ("storage/minio", {"password_file": "/s"}, "http", "/data", {"MINIO_ROOT_PASSWORD": "/s"}),
        ("vector-db/qdrant", {}, "http", "/qdrant/storage", {}),
        ("vector-db/qdrant", {"api_key_file": "/s"}, "http", "/qdrant/storage", {"QDRANT__SERVICE__API_KEY": "/s"}),
        ("vector-db/chroma", {}, "http", "/data", {}),
    ],
)
def test_stores_listen_on_their_jobs_port_and_keep_their_data(
    shipped: Book, recipe: str, config: dict[str, Any], kind: str, target: str, secrets: dict[str, str]
) -> None:
    spec = launch(shipped, recipe, config)
    assert spec.health is not None
    assert (spec.health.kind, spec.environment_from, spec.update_strategy) == (kind, secrets, "recreate")
    assert spec.volumes == (Volume(target=target, name="data"),)
    texts = [*spec.command, *spec.environment.values()]
    assert any({"runtime": "port"} in text for text in texts if not isinstance(text, str))
    for refused in ({"replicas": 2}, {"ports": [1]}, {"image": "docker://mine"}, {"health_check": {"command": ["x"]}}):
        if "health_check" in refused:
            assert launch(shipped, recipe, {**config, **refused}).health == spec.health, "a config says nothing of it"
        else:
            with pytest.raises(ConfigError):
                launch(shipped, recipe, {**config, **refused})


@pytest.mark.parametrize(
    ("recipe", "config", "key"),
    [
        ("storage/postgres", {}, "password_file"),
        ("storage/postgres", {"password_file": "secret"}, "password_file"),
        ("storage/postgres", {"password_file": "/s", "user": "a; DROP"}, "user"),
        ("storage/postgres", {"password_file": "/s", "database": 'x"'}, "database"),
        ("storage/postgres", {"password_file": "/s", "shared_buffers": "128MB -c fsync=off"}, "shared_buffers"),
        ("storage/minio", {}, "password_file"),
        ("storage/minio", {"password_file": "/s", "user": "a:b"}, "user"),
        ("vector-db/qdrant", {"log_level": "LOUD"}, "log_level"),
        ("vector-db/chroma", {"environment": {"APPTAINERENV_X": "1"}}, "environment.APPTAINERENV_X"),
    ],
)
def test_stores_refuse(shipped: Book, recipe: str, config: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launch(shipped, recipe, config)
    assert caught.value.key == key

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract.job import typed
from api.contract.job.parameters import HealthCommand, Image, Parameters, VolumeMount
from controller.wrapper import parameters
from controller.wrapper.report import FailedError

LEAST: dict[str, Any] = {"version": 1, "command": ["true"]}


def read(tmp_path: Path, content: object) -> Parameters:
    path = tmp_path / "params.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return parameters.read(path)


def test_reads_all_of_it(tmp_path: Path) -> None:
    read_back = read(
        tmp_path,
        {
            "version": 1,
            "token": "af-1",
            "image": {"source": "/images/x.sif", "definition": None},
            "image_cache": "/run/images",
            "apptainer": "/opt/apptainer",
            "command": ["serve", ["--port=", {"runtime": "port"}]],
            "environment": {"A": "b"},
            "environment_from": {"HF_TOKEN": "/home/me/token"},
            "binds": ["/data:/data:ro"],
            "volumes": [{"source": "/v/x", "target": "/data", "root": "/v"}, {"source": "/v/y", "target": "/more"}],
            "files": {"serve.py": "print()"},
            "nv": True,
            "listens": True,
            "host": "127.0.0.1",
            "secret": "00ff",
            "secret_variable": "VLLM_API_KEY",
            "port_range": [8000, 8999],
            "stop_grace": 5,
            "home": "/srv/home",
            "check": {"command": ["ready", [{"runtime": "port"}]], "interval": 3, "timeout": 2.5},
            "something_newer": {"is": "ignored"},
        },
    )
    assert read_back.image == Image(source="/images/x.sif", definition=None)
    assert read_back.command == ("serve", ("--port=", {"runtime": "port"}))
    assert (read_back.port_range, read_back.stop_grace, read_back.home) == ((8000, 8999), 5.0, "/srv/home")
    assert read_back.volumes == (VolumeMount("/v/x", "/data", "/v"), VolumeMount("/v/y", "/more", None))
    assert read_back.check == HealthCommand(("ready", ({"runtime": "port"},)), 3.0, 2.5)
    assert (read_back.nv, read_back.secret_variable) == (True, "VLLM_API_KEY")


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    least = read(tmp_path, {**LEAST, "image": None, "secret": None, "port_range": None})
    assert (least.image, least.listens, least.stop_grace, least.check) == (None, True, 30.0, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": []},
        {"command": "true"},
        {"command": [1]},
        {"command": [[{"runtime": "moon"}]]},
        {"command": ["nul\0"]},
        {"environment": {"A;touch x": "1"}},
        {"environment": {"A=B": "1"}},
        {"environment": {"": "1"}},
        {"environment": {"A\n": "1"}},
        {"environment": ["A"]},
        {"environment": {"A": None}},
        {"environment_from": {"A B": "/x"}},
        {"secret_variable": "A-B"},
        {"files": {"../x": ""}},
        {"files": {"a/b": ""}},
        {"files": {"..": ""}},
        {"image": {"source": None, "definition": None}},
        {"image": {"source": "a", "definition": "b"}},
        {"port_range": [10]},
        {"port_range": [2000, 1000]},
        {"port_range": [0, 70000]},
        {"stop_grace": "30"},
        {"stop_grace": -1},
        {"nv": 1},
        {"gpu_vendor": "matrox"},
        {"host": 5},
        {"volumes": {}},
        {"volumes": ["/v"]},
        {"volumes": [{"source": "/v"}]},
        {"volumes": [{"target": "/v"}]},
        {"volumes": [{"source": "v", "target": "/data"}]},
        {"volumes": [{"source": "/v/../x", "target": "/data"}]},
        {"volumes": [{"source": "/v", "target": "/a\nb"}]},
        {"volumes": [{"source": "/v\0", "target": "/data"}]},
        {"volumes": [{"source": "/v", "target": "/data", "root": "v"}]},
        {"check": []},
        {"check": {}},
        {"check": {"command": "true"}},
        {"check": {"command": ["nul\0"]}},
        {"check": {"command": ["true"], "timeout": -1}},
        {"check": {"command": ["true"], "interval": "1"}},
        {"version": None},
        {"version": "1"},
    ],
)
def test_refuses_nonsense_by_name(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(FailedError) as failed:
        read(tmp_path, {**LEAST, **wrong})
    assert failed.value.ending.reason == "ParametersBad"
    assert next(iter(wrong)) in failed.value.ending.message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nv": 1}, "nv: not true or false"),
        ({"host": 5}, "host: not a string"),
        ({"home": "a\0"}, "home: has a NUL character"),
        ({"log_bytes": True}, "log_bytes: not a whole number"),
        ({"log_bytes": -1}, "log_bytes: not a number of bytes"),
        ({"stop_grace": "30"}, "stop_grace: not a number"),
        ({"stop_grace": -1}, "stop_grace: not a number of seconds"),
        ({"port_range": [10]}, "port_range: not a list of 2"),
        ({"port_range": [2000, 1000]}, "port_range: not a range of ports"),
        ({"binds": {}}, "binds: not a list"),
        ({"environment": []}, "environment: not an object"),
        ({"environment": {"A B": ""}}, "environment: 'A B' can't name a variable"),
        ({"environment_from": {"A": 1}}, "environment_from: A: not a string"),
        ({"files": {"../x": ""}}, "files: '../x' is not a plain file name"),
        ({"command": [[{"runtime": "moon"}]]}, "command: unknown runtime value 'moon'"),
        ({"command": []}, "command: empty"),
        ({"image": {}}, "image: needs a source or a definition"),
        ({"volumes": [{"target": "/v"}]}, "volumes: source: missing"),
        ({"volumes": [{"source": "v", "target": "/v"}]}, "volumes: source: 'v' is no plain absolute path"),
        ({"check": {"command": []}}, "check: its command is empty"),
        ({"version": "1"}, "no version"),
    ],
)
def test_says_what_is_wrong_and_where(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(FailedError) as failed:
        read(tmp_path, {**LEAST, **wrong})
    assert failed.value.ending.message == f"{tmp_path}/params.json: {message}"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from([field.name for field in dataclasses.fields(Parameters)]), plain))
def test_whatever_is_written_there_is_read_or_refused(content: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        assert typed.read(Parameters, json.loads(typed.read(Parameters, content).to_json())) is not None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    told = Parameters(
        token="af-i-s-0-1",
        image=Image(definition="Bootstrap: scratch"),
        refresh=True,
        command=("a", ("--port=", {"runtime": "port"})),
        environment={"A": ("b", {"runtime": "files"})},
        volumes=(VolumeMount("/v", "/data"), VolumeMount("/w", "/more", "/")),
        secret="hush",
        port_range=(1, 9),
        check=HealthCommand(("true",), timeout=2.0),
    )
    assert read(tmp_path, told.to_json()) == told
    assert "hush" not in repr(told)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "7"])
def test_refuses_what_is_no_object(tmp_path: Path, content: str) -> None:
    with pytest.raises(FailedError) as failed:
        read(tmp_path, content)
    assert failed.value.ending.reason == "ParametersBad"


def test_a_newer_version_is_left_to_a_newer_wrapper(tmp_path: Path) -> None:
    with pytest.raises(FailedError) as failed:
        read(tmp_path, {"version": 2, "command": {"is": "different"}})
    assert failed.value.ending.reason == "ParametersTooNew"


def test_an_absent_file_is_bad(tmp_path: Path) -> None:
    with pytest.raises(FailedError) as failed:
        parameters.read(tmp_path / "params.json")
    assert failed.value.ending.reason == "ParametersBad"

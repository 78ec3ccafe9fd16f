from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.wrapper import parameters
from controller.wrapper.report import FailedError

LEAST: dict[str, Any] = {"version": 1, "command": ["true"]}


def read(tmp_path: Path, content: object) -> parameters.Parameters:
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
    assert read_back.image == parameters.Image(source="/images/x.sif", definition=None)
    assert read_back.command == ("serve", ("--port=", {"runtime": "port"}))
    assert (read_back.port_range, read_back.stop_grace, read_back.home) == ((8000, 8999), 5.0, "/srv/home")
    assert read_back.volumes == (parameters.Volume("/v/x", "/data", "/v"), parameters.Volume("/v/y", "/more", None))
    assert read_back.check == parameters.Check(("ready", ({"runtime": "port"},)), 3.0, 2.5)
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

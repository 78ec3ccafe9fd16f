"""The parts of the demo that need no cluster."""

import io
import json
import os
import subprocess
import sys
import threading

import pytest

from api.contract.configuration import load
from deploy.demo import install, main, places, server, service
from deploy.demo.progress import Board, last_line
from deploy.demo.trouble import Trouble


@pytest.fixture
def demo(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "LOCAL", tmp_path / "none")
    places.Demo.select(existing=False)
    for name in ("state", "run", "log", "cache"):
        monkeypatch.setattr(places.Demo, name, tmp_path / name)
    monkeypatch.setattr(places.Demo, "slurm", tmp_path / "slurm")
    monkeypatch.setattr(places.Demo, "config", tmp_path / "ai-factory.toml")
    monkeypatch.setattr(places.Demo, "server", tmp_path / "server.json")
    for key in places.KEYS:
        monkeypatch.delenv(f"AI_FACTORY_DEMO_{key}", raising=False)
    return places.Demo


@pytest.mark.parametrize("cluster", ["private", "existing"])
def test_the_program_takes_the_settings_file(demo, monkeypatch, cluster):
    monkeypatch.setenv("AI_FACTORY_DEMO_CLUSTER", cluster)
    places.write_config(places.choices())
    settings = load(config=demo.config, environ={})
    assert settings.run_dir == demo.run
    assert settings.slurm.conf == ("" if cluster == "existing" else str(demo.slurm / "etc" / "slurm.conf"))
    assert settings.recipe["inference/vllm"]["parameters"]["model"]["default"] == str(places.Tools.model)


def test_bad_choices_are_refused(monkeypatch):
    monkeypatch.setenv("AI_FACTORY_DEMO_PORT", "eight")
    with pytest.raises(Trouble):
        places.choices()


def test_a_server_of_somebody_elses_is_left_alone(demo):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        demo.server.write_text(json.dumps({"pid": other.pid, "port": 8001}))
        try:
            assert server.find() is None
        finally:
            other.communicate(b"\n")


def fail(_):
    raise Trouble("vLLM can't be installed", "invalid peer certificate")


def test_a_demo_that_fails_says_what_it_left_running(demo, monkeypatch, capsys):
    monkeypatch.setattr(main, "up", fail)
    run = demo.slurm / "run"
    run.mkdir(parents=True)
    assert main.main(["up"]) == 1
    assert "left:" not in capsys.readouterr().err
    for name in ("slurmctld", "slurmd-node1", "slurmd-node2"):
        (run / f"{name}.pid").write_text(f"{os.getpid()}\n")
    (run / "munged.pid").write_text("99999999\n")
    assert main.main(["up"]) == 1
    told = capsys.readouterr().err
    assert "why:  invalid peer certificate" in told
    assert "left: slurmctld, slurmd, which may still run; `make demo-down` stops them" in told


def test_a_step_without_a_word_is_told_by_the_last_line_of_its_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("fetching\nno room on the disk\n\n")
    chain = [install.Step("Slurm", ["false"], log)]
    with pytest.raises(Trouble) as raised:
        install._run_chain(chain, Board(io.StringIO()), threading.Event(), [])
    assert "false ended with 1\n  why:  no room on the disk\n  log: " in raised.value.text


def test_down_with_nothing_there(demo, capsys):
    assert main.down(places.choices()) == 0
    assert capsys.readouterr().out == "nothing runs\n"


def test_usage(capsys):
    assert main.main(["sideways"]) == 2
    assert "usage" in capsys.readouterr().err


def test_lines_where_there_is_no_terminal(tmp_path):
    out = io.StringIO()
    with Board(out) as board:
        with board.step("Slurm"):
            pass
        with pytest.raises(ValueError, match="no"), board.step("Image"):
            raise ValueError("no")
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert [line[:2] for line in lines] == [["…", "Slurm"], ["✓", "Slurm"], ["…", "Image"], ["✗", "Image"]]
    log = tmp_path / "log"
    log.write_bytes(b"first\n10 %\r20 %\n\n")
    assert last_line(log) == "20 %"


class FakeApi:
    """A service that goes through these answers."""

    def __init__(self, *answers, logs=""):
        self.answers = list(answers)
        self.log_text = logs
        self.calls = []

    def services(self):
        return self.answers.pop(0)

    def get(self, _path):
        return self.answers.pop(0)

    def call(self, method, path, _body=None):
        self.calls.append((method, path))
        return self.answers.pop(0)

    def delete(self, service_id):
        self.calls.append(("DELETE", service_id))

    def logs(self, _service_id):
        return self.log_text


def test_a_living_service_is_taken_up_and_a_failed_one_replaced():
    living = {"id": "a", "name": "demo", "status": "starting"}
    assert service.declare(FakeApi([living])) == ("a", True)
    failed = {"id": "b", "name": "demo", "status": "failed"}
    other = {"id": "c", "name": "mine", "status": "running"}
    api = FakeApi([other, failed], (200, {"id": "d"}))
    assert service.declare(api) == ("d", False)
    assert api.calls == [("DELETE", "b"), ("POST", "/services")]


def test_each_stage_is_shown_once_and_a_failure_tells_why(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    out = io.StringIO()
    api = FakeApi(
        {"id": "a", "status": "pending"},
        {"id": "a", "status": "starting", "message": "Starting to load model (job 7 on n1)."},
        {"id": "a", "status": "starting", "message": "Starting to load model (job 7 on n1)."},
        {"id": "a", "status": "failed", "message": "no memory", "conditions": [{"type": "Ready", "status": "False"}]},
        logs="Killed",
    )
    with Board(out) as board, pytest.raises(Trouble) as trouble:
        service.follow(api, board, "a", 60)
    assert out.getvalue().count("Starting to load model") == 1
    assert "no memory" in trouble.value.text
    assert "| Killed" in trouble.value.text


def test_only_the_demos_file_sets_anything(monkeypatch):
    monkeypatch.setenv("AI_FACTORY_CONFIG", "/elsewhere")
    assert "AI_FACTORY_CONFIG" not in places.program_environment()
    assert places.program_environment()["PATH"] == os.environ["PATH"]

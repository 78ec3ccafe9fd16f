"""The systemd units and the Grafana dashboard name only what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.cli.arguments import build
from api.contract.exits import Exit
from controller.telemetry.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
RUN = {
    "systemd/ai-factory.service": "api.cli.programs.up:up",
    "systemd/ai-factory-gateway.service": "api.cli.programs.up:gateway",
    "systemd/user/ai-factory.service": "api.cli.programs.up:up",
}
UNITS = list(RUN)


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / name)
    return parser


@pytest.mark.parametrize("name", UNITS)
def test_units_start_a_command_that_there_is(name: str) -> None:
    program, *arguments = unit(name)["Service"]["ExecStart"].split()
    assert program.endswith("/.venv/bin/ai-factory")
    assert build().parse_args(arguments).run == RUN[name]


@pytest.mark.parametrize("name", UNITS)
def test_units_give_up_only_where_starting_again_mends_nothing(name: str) -> None:
    service = unit(name)["Service"]
    assert service["Restart"] == "always"
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == {Exit.USAGE, Exit.SETUP}


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_units(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: install the package systemd")
    text = (DEPLOY / name).read_text()
    (tmp_path / Path(name).name).write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    where = ["--user"] if "user" in name else []
    done = subprocess.run(
        ["systemd-analyze", *where, "--man=no", "verify", str(tmp_path / Path(name).name)],
        check=False, capture_output=True, text=True, env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if Path(name).name in line]
    assert told == []


def test_the_gateways_unit_says_what_its_chapter_says() -> None:
    """The file and the folders that the chapter writes, for the same user as everything else."""
    chapter = (DEPLOY.parent / "docs/gateway.md").read_text()
    service, beside = (unit(f"systemd/ai-factory{name}.service")["Service"] for name in ("-gateway", ""))
    config = service["ExecStart"].split()[2]
    assert f"ai-factory --config {config} gateway" in chapter
    assert "cp /opt/ai-factory/deploy/systemd/ai-factory-gateway.service /etc/systemd/system/" in chapter
    for key in ("User", "StateDirectory", "StateDirectoryMode", "Environment", "ExecReload", "KillMode", "UMask"):
        assert service[key] == beside[key]


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    text = Metrics(lambda: None, Counter()).text().decode()
    known = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    dashboard = json.loads((DEPLOY / "grafana" / "ai-factory.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ai_factory_\w+", target["expr"])
    }
    assert asked
    assert asked - known == set()
    assert {family for family in known if not family.endswith(("_sum", "_count"))} - asked <= {
        "ai_factory_epoch", "ai_factory_queue_keys", "ai_factory_readings_total",
    } | {name for name in known if not name.startswith("ai_factory_")}  # fmt: skip

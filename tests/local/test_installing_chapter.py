"""docs/installing.md: its configurations load, the paths in it fit together, and what it copies is there.

What needs root, systemd or nginx is not run. That its commands of ours are understood is tested in tests/cli.
"""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from api.cli.arguments import build
from api.contract.configuration import load
from api.contract.database import driver_url
from api.contract.settings import Settings
from api.http.waiting import MOST_SECONDS
from tests.pages import ROOT, blocks

PAGE = ROOT / "docs" / "installing.md"
TEXT = PAGE.read_text()
CONFIGS = [block for block in blocks(PAGE) if block.language == "toml"]
COMMANDS = re.findall(r"^\$ (.*)$", TEXT, re.MULTILINE)


def settings(text: str, folder: Path) -> Settings:
    (folder / "config.toml").write_text(text)
    return load(config=folder / "config.toml", environ={"HOME": str(folder)})


@pytest.mark.parametrize("block", CONFIGS, ids=lambda block: str(block.line))
def test_configurations_load(block: object, tmp_path: Path) -> None:
    settings(block.text, tmp_path)  # type: ignore[attr-defined]


def test_the_configurations_fit_into_one_file(tmp_path: Path) -> None:
    base, database, api, tls = CONFIGS
    loaded = settings(database.text + base.text + api.text, tmp_path)
    assert driver_url(loaded.database_url).get_backend_name() == "postgresql"
    assert loaded.api.admin_key_file == loaded.state_dir / "admin.key"
    with_tls = settings(database.text + base.text + tls.text, tmp_path)
    assert (with_tls.api.admin_key_file, with_tls.api.plain_http) == (loaded.api.admin_key_file, False)
    assert f"> {loaded.api.admin_key_file}" in TEXT
    made = next(command for command in COMMANDS if command.startswith("install -d -o ai-factory"))
    assert {str(loaded.state_dir), str(loaded.run_dir)} < set(made.split())
    assert base.file == next(c.partition("=")[2] for c in COMMANDS if c.startswith("export AI_FACTORY_CONFIG"))


def test_the_unit_says_the_same(tmp_path: Path) -> None:
    unit = ConfigParser(strict=False, interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / "deploy/systemd/ai-factory.service")
    service = unit["Service"]
    program, *arguments = service["ExecStart"].split()
    assert service["User"] == "ai-factory"
    assert f"ln -s {program} /usr/local/bin/" in COMMANDS
    assert f'git clone "$REPOSITORY" {program.removesuffix("/.venv/bin/ai-factory")}' in COMMANDS
    assert arguments[:2] == ["--config", CONFIGS[0].file]
    assert service["Environment"] == f"AI_FACTORY_STATE_DIR={settings(CONFIGS[0].text, tmp_path).state_dir}"
    (drop_in,) = [block.text for block in blocks(PAGE) if block.language == "ini"]
    alone = drop_in.split("ExecStart=")[-1].split()
    assert alone[0] == program
    assert build().parse_args(alone[1:]).run == "api.cli.programs.up:controller"


def test_what_is_copied_is_there() -> None:
    copied = [command.split()[1] for command in COMMANDS if command.startswith("cp ")]
    assert len(copied) == 2
    for source in copied:
        assert (ROOT / re.sub(r"^(/opt|~)/ai-factory/", "", source)).is_file()
    user = ROOT / "deploy/systemd/user/ai-factory.service"
    assert "ExecStart=%h/ai-factory/.venv/bin/ai-factory up" in user.read_text()


def test_the_proxy_leads_to_the_api_and_waits_for_it(tmp_path: Path) -> None:
    (proxy,) = [block.text for block in blocks(PAGE) if block.language == "nginx"]
    api = settings("", tmp_path).api
    assert f"proxy_pass http://{api.host}:{api.port};" in proxy
    assert int(re.findall(r"proxy_read_timeout (\d+)s;", proxy)[0]) > MOST_SECONDS
    assert "proxy_buffering off;" in proxy
    assert proxy.count("{") == proxy.count("}")

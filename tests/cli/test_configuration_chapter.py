"""docs/configuration.md names every setting there is and no other, each with its variable, type and default."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest

from api.cli.arguments import build
from api.contract.configuration import PREFIX, SettingsError, load
from api.contract.settings import Settings
from deploy.demo.places import KEYS
from tests.pages import ROOT, blocks

PAGE = ROOT / "docs" / "configuration.md"
COMPUTED = {
    "state_dir": "`~/.local/state/ai-factory`",
    "run_dir": "`~/.local/share/ai-factory`",
    "recipes": "the project's `recipes`",
    "database_url": "`sqlite:///STATE_DIR/ai-factory.db`",
    "key_file": "`STATE_DIR/installation.key`",
    "recipe": "none",
}


def rows() -> dict[str, tuple[str, ...]]:
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| `\w+(\.\w+)*` \| (`AI|\s*\|)", line)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {row[0].strip("`"): tuple(row[1:4]) for row in cells}
    assert len(found) == len(cells), "a setting is there twice"
    assert all(len(row) == 5 and row[4] for row in cells)
    return found


def expected(kind: type = Settings, prefix: str = "") -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    hints = get_type_hints(kind, include_extras=True)
    for item in fields(kind):
        path, hint = prefix + item.name, hints[item.name]
        if is_dataclass(hint):
            found |= expected(hint, f"{path}.")  # type: ignore[arg-type]
        elif path == "recipe":
            found[path] = ("", "tables", "none")
        else:
            variable = f"`{PREFIX}{path.replace('.', '_').upper()}`"
            found[path] = (variable, type_word(hint), COMPUTED.get(path) or default_word(item))
    return found


def type_word(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(hint))
    if get_origin(hint) is Annotated:
        bounds = get_args(hint)[1]
        assert isinstance(bounds, msgspec.Meta)
        if bounds.gt is not None:
            return f"more than {bounds.gt}"
        return "0 or more" if bounds.ge == 0 and bounds.le >= 10**6 else f"{bounds.ge} to {bounds.le}"
    if get_origin(hint) is tuple and get_origin(get_args(hint)[0]) is Literal:
        return f"list of {type_word(get_args(hint)[0])}"
    words = {bool: "`true`, `false`", str: "text", Path: "path", Path | None: "path", tuple[Path, ...]: "list of paths"}
    return (words | {tuple[str, ...]: "list of texts"}).get(hint, "two numbers from 1 to 65535")


def default_word(item: Field[Any]) -> str:
    assert item.default is not MISSING
    if item.default in ("", ()):
        return "empty"
    return (
        "none"
        if item.default is None
        else f"`{item.default:g}`"
        if isinstance(item.default, float)
        else f"`{str(item.default).lower() if isinstance(item.default, bool) else item.default}`"
    )


def test_the_tables_are_the_settings() -> None:
    assert rows() == expected()


def test_each_setting_stands_under_its_tables_heading() -> None:
    heading = ""
    for line in PAGE.read_text().splitlines():
        heading = line.removeprefix("## ") if line.startswith("## ") else heading
        named = re.match(r"\| `(?:(\w+)\.)?\w+` \|", line)
        assert named is None or heading == (f"[{named[1]}]" if named[1] else "In general")


def test_the_defaults_that_are_computed(tmp_path: Path) -> None:
    settings = load(environ={"HOME": str(tmp_path)}, config="/dev/null")
    state = tmp_path / ".local/state/ai-factory"
    assert (settings.state_dir, settings.key_file) == (state, state / "installation.key")
    assert settings.database_url == f"sqlite:///{state}/ai-factory.db"
    assert settings.run_dir == tmp_path / ".local/share/ai-factory"
    assert settings.recipes == (ROOT / "recipes",)


def test_the_example_is_a_configuration_file(tmp_path: Path) -> None:
    (example,) = [block.text for block in blocks(PAGE) if block.language == "toml"]
    (tmp_path / "config.toml").write_text(example)
    settings = load(config=tmp_path / "config.toml", environ={"HOME": str(tmp_path)})
    assert settings.slurm.extra_options == ("--exclusive",)
    assert settings.recipe["inference/vllm"]["resources"] == {"memory": "128G"}


def test_what_is_said_of_variables_and_flags(tmp_path: Path) -> None:
    text = PAGE.read_text()
    (example,) = re.findall(r"`(AI_FACTORY_SLURM_PORT_RANGE)=(\d+,\d+)`", text)
    assert load(environ={example[0]: example[1], "HOME": str(tmp_path)}).slurm.port_range == (20000, 20999)
    assert len(load(environ={"AI_FACTORY_RECIPES": "/a:/b", "HOME": str(tmp_path)}).recipes) == 2
    with pytest.raises(SettingsError, match="There is no setting nonsense"):
        load({"nonsense": "1"}, environ={"HOME": str(tmp_path)})
    flags = vars(build().parse_args(["up", "--host", "x", "--port", "1"]))
    assert {name for name in flags if name.startswith("flag_")} == {"flag_api.host", "flag_api.port"}
    assert set(re.findall(r"`AI_FACTORY_DEMO_(\w+)`", text)) == set(KEYS)

"""docs/recipes.md names every key of a recipe and no other, and its examples are recipes.

That its commands do what it says is tested on a real Slurm, in tests/cluster/test_pages.py.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from msgspec import UNSET, UnsetType
from ruamel.yaml import YAML

from api.contract.configuration import load
from api.contract.launch import Resources
from api.contract.recipes.book import Book, read_book, read_recipe
from api.contract.recipes.located import RecipeError
from api.contract.recipes.resolve import FIXED_BY_RECIPE, resolve
from api.contract.recipes.resources import OLDER_SPELLINGS
from api.contract.recipes.schema import (
    HealthPart,
    Parameter,
    RecipeFile,
    ResourcesPart,
    RestartPart,
    UpdatePart,
    VolumePart,
    Word,
)
from api.contract.sbatch_options import check_option
from api.contract.settings import SlurmSettings
from tests.pages import ROOT, blocks

PAGE = ROOT / "docs" / "recipes.md"
TEXT = PAGE.read_text()
PARTS: dict[str, type[msgspec.Struct]] = {
    "": RecipeFile,
    "parameters.NAME.": Parameter,
    "resources.": ResourcesPart,
    "health_check.": HealthPart,
    "volumes.": VolumePart,
    "update.": UpdatePart,
    "restart.": RestartPart,
}
COMPUTED = {
    "secret_variable": "`VLLM_API_KEY` for vllm",
    "health_check.kind": "by what is given",
    "health_check.endpoint": "`/health` for http",
    **{f"resources.{name}": f"`{value}`" for name, value in (
        ("nodes", Resources().nodes), ("cpu", Resources().cpu), ("memory", Resources().memory_mb),
        ("gpu", Resources().gpu), ("time_limit", Resources().time_limit),
    )},
    "resources.time_min": "none",
}  # fmt: skip
TYPES: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    float: "number",
    Any: "anything",
    list[str]: "list of texts",
    list[int]: "list of whole numbers",
    list[Any]: "list",
    list[str | list[str]]: "list of texts and groups",
    list[VolumePart]: "list of mappings",
    int | str: "number or text",
    dict[str, Parameter]: "mapping",
}


def rows() -> dict[str, tuple[str, str]]:
    lines = TEXT[TEXT.index("## Every key") :].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert all(len(row) == 4 and row[3] for row in cells)
    found = {row[0].strip("`"): (row[1], row[2]) for row in cells}
    assert len(found) == len(cells), "a key is there twice"
    return found


def expected() -> dict[str, tuple[str, str]]:
    found = {"extends": ("text", "none")}
    for prefix, part in PARTS.items():
        hints = get_type_hints(part, include_extras=True)
        for item in msgspec.structs.fields(part):
            key = prefix + item.name
            found[key] = (type_word(hints[item.name]), COMPUTED.get(key) or default_word(key, item))
    return found


def type_word(hint: Any) -> str:
    if hint == Word:
        return "word"
    if get_origin(hint) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(f"`{word}`" for word in hint)
    if get_origin(hint) is Annotated:
        kind, bounds = get_args(hint)
        if bounds.gt is not None:
            return f"more than {bounds.gt}"
        if bounds.ge is not None:
            return f"{bounds.ge} or more" if bounds.le is None else f"{bounds.ge} to {bounds.le}"
        return TYPES[kind]
    others = [kind for kind in get_args(hint) if kind not in (NoneType, UnsetType)]
    if get_origin(hint) is dict:
        return "mapping" if get_args(hint)[1] is Parameter else "mapping of texts"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "mapping"
    if hint in TYPES:
        return TYPES[hint]
    return TYPES[int | str] if set(others) == {int, str} else type_word(others[0])


def default_word(key: str, item: msgspec.structs.FieldInfo) -> str:
    if item.required:
        return "(needed)"
    value = item.default if item.default is not msgspec.NODEFAULT else item.default_factory()
    if key.startswith("resources."):
        return "the site's"
    if value in ("", [], {}) or isinstance(value, msgspec.Struct):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    assert value is not UNSET
    return "none" if value is None else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_the_tables_are_the_schema() -> None:
    assert rows() == expected()


def test_the_examples_are_recipes(tmp_path: Path) -> None:
    (tmp_path / "host.def").write_text((ROOT / "recipes" / "host.def").read_text())
    files = []
    for block in (block for block in blocks(PAGE) if block.language == "yaml"):
        assert block.file is not None, f"{block.where} names no file"
        file = tmp_path / block.file.removeprefix("recipes/")
        file.parent.mkdir(exist_ok=True)
        file.write_text(block.text)
        (file.parent / "counter.py").touch()
        files.append(file)
    assert len(files) == 5
    book = read_book([(tmp_path, file) for file in files], {})
    assert set(book.problems) == {"batch/wrong"}
    assert set(book.recipes) == {"batch/count", "web/counter", "web/polite", "web/coder"}


def test_the_configurations_fit(tmp_path: Path) -> None:
    changes, models = (block.text for block in blocks(PAGE) if block.language == "toml")
    (folders,) = [block.text for block in blocks(PAGE) if block.text.startswith("recipes = ")]
    (tmp_path / "config.toml").write_text(folders + models + changes)
    settings = load(config=tmp_path / "config.toml", environ={"HOME": str(tmp_path)})
    assert len(settings.recipes) == 2
    assert (settings.models.folders, settings.model_cache) == (("/shared/models",), "/scratch/ai-factory-models")
    changed = read_recipe(ROOT / "recipes/inference/vllm.yaml", "inference/vllm", settings.recipe["inference/vllm"])
    assert changed.content.image == "/shared/images/vllm.sif"
    assert changed.content.parameters["max_model_len"].default == 16384
    assert tomllib.loads(changes)["recipe"].keys() == {"inference/vllm"}


def test_a_launch_line_is_said_word_for_word(shipped: Book) -> None:
    (text,) = [block.text for block in blocks(PAGE) if "recipe_name: inference/vllm" in block.text]
    line = re.sub(r"\n#\s*", " ", text[text.index("# ") + 2 : text.index("\nname:")])
    declared = YAML(typ="safe", pure=True).load(text)
    recipe = shipped.recipes[declared["recipe_name"]]
    spec = resolve(recipe, declared["config"], replicas=None, site=SlurmSettings())
    assert spec.warnings == ()
    assert set(shlex.split(line)) == {word for word in spec.command if isinstance(word, str)} - {"--uds"}


def test_what_a_service_may_say() -> None:
    said = TEXT[TEXT.index("## What a service may say") : TEXT.index("## Every key")]
    (fixed,) = re.findall(r"Only a recipe may say what is run: (.*) are refused", said)
    assert set(re.findall(r"`(\w+)`", fixed)) == FIXED_BY_RECIPE
    (older,) = re.findall(r"\| (.*) \| older spellings", said)
    assert set(re.findall(r"`(\w+)`", older)) == set(OLDER_SPELLINGS)


def test_the_options_that_are_named() -> None:
    (refused,) = re.findall(r"Not on it is what the controller sets itself, such as (.*)\.", TEXT)
    for option in re.findall(r"`(--[\w-]+)`", refused):
        with pytest.raises(ValueError, match="is not allowed"):
            check_option(option)
    for option in ("--exclusive", "--nodelist=n[1-4]"):
        assert f"`{option}`" in TEXT
        check_option(option)


def test_the_mistake_is_one(tmp_path: Path) -> None:
    (wrong,) = [block for block in blocks(PAGE) if block.file == "recipes/batch/wrong.yaml"]
    file = tmp_path / "batch" / "wrong.yaml"
    file.parent.mkdir()
    file.write_text(wrong.text)
    with pytest.raises(RecipeError, match=re.escape("wrong.yaml:8: resources.cpus: there is no such key.")):
        read_recipe(file, "batch/wrong", {})

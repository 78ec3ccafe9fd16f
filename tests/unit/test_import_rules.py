"""The rules of pyproject.toml on who may import whom: each import that they forbid is planted, and must be found."""

from __future__ import annotations

import ast
import copy
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import grimp
import pytest
from importlinter import Contract
from importlinter.configuration import configure
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.layers import LayersContract

from tests.import_rules import OnlyContract, OutsideContract
from tests.pages import ROOT

KINDS = {
    "only": OnlyContract,
    "outside": OutsideContract,
    "layers": LayersContract,
    "acyclic_siblings": AcyclicSiblingsContract,
}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GRAPH = grimp.build_graph("api", "controller", include_external_packages=True, cache_dir=None)
OURS = sorted(name for name in GRAPH.modules if not GRAPH.is_module_squashed(name))
CONTROLLER = [name for name in OURS if name.startswith("controller.")]
FOR_THE_COMMAND_LINE = ("controller.commands", "controller.slurm")
CORE, WRAPPER, SHARED = "controller.core.retries", "controller.wrapper.files", "api.contract.job.token"
PACKAGES = sorted(
    {"ruamel.yaml": "ruamel"}.get(name, name.replace("-", "_"))
    for line in PYPROJECT["project"]["dependencies"]
    for name in re.findall(r"^[\w.-]+", line)
)
UNSEEN = ("tests.pages", "bench.figures", "migrations.env", "deploy.demo.main", "requests")
IMPURE = (
    *("asyncio", "datetime", "io", "logging", "os", "pathlib", "random", "secrets", "shutil", "socket", "subprocess"),
    *("sys", "tempfile", "threading", "time", "uuid", "urllib", "importlib"),
)


def lies_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def planted() -> Iterator[tuple[str, str]]:
    """Imports that are not there and must never be, as (who, whom)."""
    api = [name for name in OURS if name.startswith("api.")]
    job = ("api.contract.job.parameters", "api.contract.job.token", "api.contract.job.words")
    pure = (*job, "api.contract.gpus", "api.contract.launch", "api.contract.status")
    for name in (*CONTROLLER, *api, *IMPURE, *PACKAGES, *UNSEEN):
        if not lies_in(name, "controller.core", "msgspec", *pure):
            yield CORE, name
        if not lies_in(name, "controller.wrapper", "api.contract.job", *IMPURE):
            yield WRAPPER, name
            yield SHARED, name
    yield WRAPPER, "tomllib"
    yield SHARED, "tomllib"
    for name in OURS:
        if name != "controller.runtime.timers":
            yield name, "apscheduler"
        if lies_in(name, "api"):
            yield name, "controller.core.attempt"
        if lies_in(name, "api") and not lies_in(name, "api.cli"):
            yield name, "controller.commands.explain"
            yield name, "controller.slurm.argv"
        if lies_in(name, "controller"):
            yield name, "api.http.services"
            yield name, "api.web.errors"
            yield name, "api.cli.exits"
    for name in CONTROLLER:
        yield "api.http.app", name
        yield "api.contract.settings", name
        if not lies_in(name, *FOR_THE_COMMAND_LINE):
            yield "api.cli.main", name
            yield "api.cli.doctor.slurm", name
    for name in api:
        if lies_in(name, "api.http", "api.cli"):
            yield "api.web.errors", name
        if lies_in(name, "api.http", "api.cli", "api.web"):
            yield "api.contract.settings", name
            yield "controller.store", name
        if lies_in(name, "api.http"):
            yield "api.cli.context", name
        if lies_in(name, "api.cli"):
            yield "api.http.services", name
    for name in ("api.contract.tables", "api.contract.recipes.book", "api.contract.launch"):
        yield "api.web.errors", name
    for name in (
        "api.http.app",
        "api.web.auth",
        "api.cli.main",
        "api.contract.settings",
        "controller.app",
        "controller.slurm.argv",
    ):
        yield from ((name, unseen) for unseen in UNSEEN)
    for package in PACKAGES:
        if package != "msgspec":
            yield "api.contract.status", package if package != "sqlalchemy" else "litestar"
            yield "controller.slurm.states", package
    yield "controller.app", "importlib"
    # The controller's modules, upwards and sideways.
    yield "controller.ports", "controller.store"
    yield "controller.cluster.snapshots", "controller.reconciler"
    yield "controller.cluster.snapshots", "controller.slurm.scheduler"
    yield "controller.slurm.argv", "controller.store"
    yield "controller.lease", "controller.store"
    yield "controller.cluster.tracked_attempts", "controller.store"
    yield "controller.store", "controller.cluster.quotas"
    yield "controller.cluster.quotas", "controller.usage"
    yield "controller.act", "controller.reconciler"
    yield "controller.reconciler", "controller.images.jobs"
    yield "controller.images.make", "controller.app"
    yield "controller.queue", "controller.cluster.probes"
    yield "controller.telemetry.plans", "controller.app"
    yield "controller.commands.replay", "controller.app"
    yield "controller.failpoints", "controller.core.attempt"
    # Circles.
    yield "api.http.wire", "api.http.services"
    yield "api.web.request_id", "api.web.errors"
    yield "api.contract.settings", "api.contract.database"
    yield "controller.core.attempt", "controller.core.decide"
    yield "controller.wrapper.files", "controller.wrapper.supervisor"


def is_there(who: str, whom: str) -> bool:
    return {who, whom} <= GRAPH.modules and GRAPH.direct_import_exists(importer=who, imported=whom)


PLANTED = sorted({pair for pair in planted() if not is_there(*pair)})


@pytest.fixture(scope="module")
def contracts() -> list[Contract]:
    configure()
    options = PYPROJECT["tool"]["importlinter"]
    session = {key: value for key, value in options.items() if key != "contracts"}
    plain = [{k: str(v) if isinstance(v, bool) else v for k, v in each.items()} for each in options["contracts"]]
    return [KINDS[each["type"]](each["name"], session, each) for each in plain]


def broken(contracts: list[Contract], change: Callable[[grimp.ImportGraph], object]) -> str | None:
    """Return the first rule that a changed graph breaks."""
    for contract in contracts:
        graph = copy.deepcopy(GRAPH)
        change(graph)
        if not contract.check(graph, verbose=False).kept:
            return contract.name
    return None


def in_graph(name: str) -> str:
    """Return what stands for a module in the graph: of what is not ours, the package."""
    return name if lies_in(name, "api", "controller") else name.partition(".")[0]


def plant(graph: grimp.ImportGraph, who: str, whom: str) -> None:
    if in_graph(whom) not in graph.modules:
        graph.add_module(in_graph(whom), is_squashed=True)
    graph.add_import(importer=who, imported=in_graph(whom), line_number=1, line_contents=f"import {whom}")


def test_nothing_is_broken(contracts: list[Contract]) -> None:
    assert broken(contracts, lambda graph: None) is None


def test_each_planted_import_is_found(contracts: list[Contract]) -> None:
    assert len(PLANTED) > 1000
    graph = copy.deepcopy(GRAPH)
    for pair in PLANTED:
        plant(graph, *pair)
    # An allow-list judges each import by itself, whatever else is there; a rule on chains of imports does not.
    lists = [contract for contract in contracts if isinstance(contract, OnlyContract | OutsideContract)]
    found = {line for contract in lists for line in contract.refused(graph)}
    others = [(who, whom) for who, whom in PLANTED if f"{who} imports {in_graph(whom)} (line 1)" not in found]
    missed = [pair for pair in others if broken(contracts, lambda graph, pair=pair: plant(graph, *pair)) is None]
    assert missed == []


@pytest.mark.parametrize("name", ["api.fresh", "controller.fresh"])
def test_a_new_module_must_be_given_its_place(contracts: list[Contract], name: str) -> None:
    assert broken(contracts, lambda graph: graph.add_module(name)) is not None


@pytest.mark.parametrize("name", ["controller.core.fresh", "controller.wrapper.fresh", "api.contract.job.fresh"])
def test_a_new_module_in_a_package_is_under_its_rules(contracts: list[Contract], name: str) -> None:
    assert broken(contracts, lambda graph: graph.add_module(name)) is None
    assert broken(contracts, lambda graph: (graph.add_module(name), plant(graph, name, "aiohttp"))) is not None


def test_who_is_named_in_a_rule_must_be_there(contracts: list[Contract]) -> None:
    assert broken(contracts, lambda graph: graph.remove_module("controller.runtime.timers")) is not None
    assert broken(contracts, lambda graph: graph.remove_module("api.contract.status")) is not None


@pytest.mark.parametrize(
    ("file", "line"), [("controller/cluster/quotas.py", "import apscheduler"), ("controller/fresh.py", "import time")]
)
def test_lint_imports_itself_says_no(tmp_path: Path, file: str, line: str) -> None:
    for name in ("api", "controller"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "import_rules.py", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as planted:
        planted.write(f"\n{line}\n")
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 broken" in done.stdout


READS_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}
MAY_READ_IT = ("api/contract/configuration.py", "controller/wrapper/")
"""Where settings are built; and in jobs, whose environment is what Slurm says to them."""


def reads_environment(source: str) -> list[int]:
    """Return the lines on which a source reads its process's environment."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and node.attr in READS_ENVIRONMENT)
        or (isinstance(node, ast.ImportFrom) and {name.name for name in node.names} & {*READS_ENVIRONMENT, "*"})
    ]


@pytest.mark.parametrize(
    "source",
    [
        *("import os\nos.environ['A']", "import os\nos.getenv('A')", "import os as o\ndict(o.environb)"),
        *("from os import environ", "from os import path, getenv as g", "from os import *"),
    ],
)
def test_a_reading_of_the_environment_is_found(source: str) -> None:
    assert reads_environment(source)


def test_the_environment_is_read_where_settings_are_built() -> None:
    readers = {
        file.relative_to(ROOT).as_posix(): lines
        for folder in ("api", "controller")
        for file in (ROOT / folder).rglob("*.py")
        if re.search(r"environ|getenv|import \*", source := file.read_text()) and (lines := reads_environment(source))
    }
    assert {name: lines for name, lines in readers.items() if not name.startswith(MAY_READ_IT)} == {}
    assert MAY_READ_IT[0] in readers

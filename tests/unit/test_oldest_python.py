"""What runs in jobs needs no newer Python than the oldest one that nodes may have: judged by its text alone.

tests/unit/wrapper/test_every_python.py runs it; this holds the line for what is not come to there, and where there is
no such Python.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from api.cli.doctor.job import SCRIPT
from api.contract.job_shell import OLDEST
from controller.bundle import SHARED, WRAPPER
from tests.pages import ROOT

VERMIN = Path(sys.executable).with_name("vermin")
FILES = [*sorted(SHARED.rglob("*.py")), *sorted(WRAPPER.rglob("*.py")), *sorted((ROOT / "recipes").rglob("*.py"))]


class Evaluated(ast.NodeTransformer):
    """Leaves of a module what Python evaluates: no annotations, which are put off, and nothing for type checkers.

    Flags of the operating system (`os.O_CREAT | os.O_TRUNC`) go too, since vermin takes them for types.
    """

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return ast.Assign(targets=[node.target], value=self.visit(node.value), lineno=node.lineno)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        is_flag = isinstance(node.right, ast.Attribute) and node.right.attr.isupper()
        return self.visit(node.left) if isinstance(node.op, ast.BitOr) and is_flag else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.Pass()
        return self.generic_visit(node)


def needs_newer(folder: Path, *texts: str) -> str:
    """Return what in these modules needs a newer Python; "" if nothing does."""
    for number, text in enumerate(texts):
        tree = ast.parse(text)
        puts_off = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        evaluated = Evaluated().visit(tree) if puts_off else tree
        (folder / f"module{number}.py").write_text(ast.unparse(ast.fix_missing_locations(evaluated)))
    target = f"--target={'.'.join(map(str, OLDEST))}-"
    command = [VERMIN, "--no-config-file", target, "--violations", "--quiet", "--feature", "union-types", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_what_runs_in_jobs_is_for_the_oldest_python(tmp_path: Path) -> None:
    hello = YAML().load((ROOT / "recipes/simple/hello.yaml").read_text())["command"][0]
    within = re.findall(r"(?: -c |af_listen=)'([^']*)'", SCRIPT.read_text())
    assert len(FILES) > 25
    assert len(within) == 2
    assert needs_newer(tmp_path, hello, *within, *(file.read_text() for file in FILES)) == ""


@pytest.mark.parametrize(
    "planted",
    [
        "Lost = Callable[[], Ending | None]",
        "isinstance(1, int | str)",
        "dict(zip([1], [2], strict=True))",
        "match 1:\n    case 1: pass",
        "@dataclasses.dataclass(slots=True)\nclass Slim:\n    x: int",
        "from enum import StrEnum",
        "datetime.UTC",
        "def later() -> None:\n    import tomllib",
    ],
)
def test_what_is_newer_is_caught_in_the_midst_of_one(planted: str, tmp_path: Path) -> None:
    text = (ROOT / "controller/wrapper/supervisor.py").read_text()
    assert needs_newer(tmp_path, f"{text}\nimport dataclasses, datetime\n{planted}\n") != ""


def test_what_is_never_evaluated_is_let_be(tmp_path: Path) -> None:
    text = "def one(x: int | None) -> str | None:\n    y: int | None = x\n    return y\n"
    assert needs_newer(tmp_path, f"from __future__ import annotations\n{text}") == ""
    assert needs_newer(tmp_path, text) != ""

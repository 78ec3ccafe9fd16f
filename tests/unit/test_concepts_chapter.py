"""docs/concepts.md lists the words of the status, the conditions and their reasons that there are."""

from __future__ import annotations

import ast
import re

from api.contract.status import Continuity, Progress
from controller.core.attempt import HandOverReason
from controller.core.jobs import Bar
from tests.pages import ROOT

TEXT = (ROOT / "docs" / "concepts.md").read_text()
STATUS = ROOT / "controller" / "core" / "status.py"


def rows(heading: str) -> dict[str, str]:
    """Return the rows of the table whose heading begins so: the first cell, and all of the row."""
    lines = TEXT[TEXT.index(f"| {heading} |") :].splitlines()[2:]
    table = lines[: next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return {line.strip("|").split("|")[0].strip().strip("`"): line for line in table}


def told() -> dict[str, set[str]]:
    """Return the reasons that the code gives each condition, as far as they are written out there."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(STATUS.read_text())):
        if isinstance(node, ast.Tuple) and len(node.elts) == 4 and isinstance(node.elts[0], ast.Constant):
            reason = node.elts[2]
            said = found.setdefault(str(node.elts[0].value), set())
            if isinstance(reason, ast.Constant):
                said.add(str(reason.value))
    wanted = (ROOT / "controller" / "wanted.py").read_text()
    found["Accepted"] |= set(re.findall(r'"(Bad\w+)"', wanted))
    found["Progressing"] = {str(reason) for reason in Progress}
    found["Continuous"] |= {str(reason) for reason in Continuity}
    found["Startable"] |= {str(bar) for bar in Bar}
    return found


def test_the_status_words() -> None:
    source = (ROOT / "api" / "contract" / "status.py").read_text()
    words = set(re.findall(r'(?:return|: |, )\s*"([a-z]+)"', source)) & set(re.findall(r'"([a-z]+)"', source))
    assert rows("status").keys() == words


def test_the_conditions_and_their_reasons() -> None:
    code = told()
    conditions = rows("condition | True means")
    assert (
        conditions.keys()
        == code.keys()
        == {"Accepted", "Startable", "Observed", "Ready", "Available", "Progressing", "Continuous"}
    )
    for kind, row in conditions.items():
        named = set(re.findall(r"`([A-Z][A-Za-z]+)`", row)) - {kind, "False", "SlurmUnreachable"}
        assert named == code[kind], kind


def test_the_reasons_of_a_hand_over() -> None:
    assert rows("reason | meaning").keys() == set(HandOverReason)


def test_each_word_stands_once() -> None:
    words = [word for cell in rows("word") for word in cell.split(", ")]
    assert len(words) == len(set(words)) >= 17

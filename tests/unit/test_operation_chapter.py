"""docs/operation.md explains every reason and outcome that there is, and no other; the messages it cites are real."""

from __future__ import annotations

import re
from collections import Counter

from ruamel.yaml import YAML

from api.contract.job.words import ExitReason
from api.contract.status import Continuity, Progress
from controller.core.jobs import Bar
from controller.core.outcomes import Outcome
from controller.slurm.errors import _REFUSALS, _TABLE, Trouble
from controller.telemetry.metrics import Metrics
from tests.pages import ROOT

TEXT = (ROOT / "docs" / "operation.md").read_text()
CODE = "".join(
    file.read_text() for folder in ("api", "controller") for file in sorted((ROOT / folder).rglob("*.py"))
)  # fmt: skip


def named(heading: str) -> set[str]:
    """Return the CamelCase words in the first cells of the table below a heading."""
    section = TEXT[TEXT.index(heading) :].split("\n##")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    return set(re.findall(r"`([A-Z][A-Za-z]+)`", " ".join(cells)))


def test_each_end_of_an_attempt_is_explained() -> None:
    assert named("### An attempt has ended") == {str(word) for word in (*Outcome, *ExitReason)}


def test_each_reason_of_a_condition_is_explained() -> None:
    readings = {row.reason for row in _TABLE if row.trouble not in _REFUSALS} | {"PermissionDenied"}
    readings |= set(re.findall(r'UnreadableError\("(\w+)"', CODE)) | {"SlurmFailed"}
    assert f'Diagnosis(Trouble.{Trouble.UNKNOWN.name}, "SlurmFailed"' in CODE
    progress = set(Progress) - {Progress.AS_WANTED, Progress.STOPPED, Progress.COMPLETED}
    conditions = {"Accepted", "Startable", "Observed", "Progressing", "Continuous"}
    expected = readings | {str(word) for word in progress} | {"BadConfig", "BadRecipe"} | conditions
    expected |= {"ValidOnLoopback", "ValidOnHostNetwork", "ValidWithWarnings", "MassVanishing", "EngineOutlivesJob"}
    expected |= {"NodesExcluded"}
    expected |= {str(bar) for bar in Bar} | set(Continuity) - {Continuity.NOTHING_AGAINST}
    assert named("### A service is not running") == expected


def test_the_messages_that_are_cited_are_said() -> None:
    cited = re.findall(r"\*((?:… )?[A-Za-z][^*|]{8,})\*", TEXT)
    code = re.sub(r'"\s*\n\s*f?"', "", CODE)
    for message in cited:
        for part in message.split("…"):
            words = re.escape(part.strip(" .,"))
            assert re.search(words, code, re.IGNORECASE), message
    assert len(cited) >= 8


def test_the_alarms_ask_for_metrics_that_there_are() -> None:
    known = Metrics(lambda: None, Counter()).text().decode()
    asked = re.findall(r"ai_factory_\w+", TEXT[TEXT.index("Four alarms") :].split("\n##")[0])
    assert len(asked) == 4
    assert all(re.search(rf"^{name}\b", known, re.MULTILINE) for name in asked)
    folder = ROOT / "deploy" / "prometheus"
    (group,) = YAML(typ="safe", pure=True).load((folder / "ai-factory.rules.yml").read_text())["groups"]
    ruled = [re.findall(r"ai_factory_\w+", rule["expr"])[0] for rule in group["rules"]]
    assert ruled == asked
    assert all(set(rule) >= {"alert", "expr", "labels", "annotations"} for rule in group["rules"])


def test_what_is_scraped_is_there() -> None:
    text = (ROOT / "deploy" / "prometheus" / "scrape.yml").read_text()
    jobs = YAML(typ="safe", pure=True).load(text)["scrape_configs"]
    assert [job["job_name"] for job in jobs] == [
        "ai-factory-controller", "ai-factory-engines", "ai-factory-service",
    ]  # fmt: skip
    paths = re.findall(r"/api/v1/\S+", text)
    assert len(paths) == 2
    for path in paths:
        assert f'"{path.replace("/chat/", "/{service_id:str}/")}"' in CODE

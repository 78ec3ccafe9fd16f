"""A site with limits that Slurm tells nobody of when it takes a job: of partitions, QOS, accounts and groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.system import System, wait_for
from tests.sites.conftest import command_line, site

SECONDS = 60.0
"""In which a job's reason is told on a busy machine; what waits for one that starts waits much longer."""


@pytest.fixture(scope="module")
def system(apptainer: str) -> Iterator[System]:
    with site(apptainer, EXTRA="PartitionName=closed Nodes=node1 AllowAccounts=nobody") as system:
        for limits in (
            "qos brief MaxWall=10", "qos single MaxTRESPerUser=gres/gpu=1", "account poor GrpTRES=cpu=2",
            "user root account=poor",
        ):  # fmt: skip
            system.slurm("sacctmgr", "-i", "-Q", "add", *limits.split())
        system.slurm("sacctmgr", "-i", "-Q", "modify", "user", "root", "set", "qos+=brief,single")
        yield system


def against(system: System, key: str) -> dict[str, Any]:
    conditions = system.service(key)["conditions"]
    return next((c for c in conditions if c["type"] == "Startable" and c["status"] == "False"), {})


@pytest.mark.parametrize(
    ("resources", "reason", "words"),
    [
        ({"partition": "short", "time_limit": 600}, "OverLimit", "PartitionTimeLimit"),
        ({"qos": "brief", "time_limit": 600}, "OverLimit", "QOSMaxWallDurationPerJobLimit"),
        ({"qos": "single", "gpu": 2}, "OverLimit", "the QOS single may have gres/gpu=1 in all"),
        ({"account": "poor", "qos": "normal", "cpu": 3}, "OverLimit", "the account poor may have cpu=2 in all"),
        ({"partition": "closed"}, "NotPermitted", "account not permitted to use this partition"),
    ],
)
def test_what_can_never_start_says_so_and_is_not_waited_for(
    system: System, resources: dict[str, Any], reason: str, words: str
) -> None:
    key = system.create(resources=resources)
    code, said = command_line(system, "services", "wait", key, "--timeout", str(SECONDS))
    assert code == 3, f"{said}\n{system.story(key)}"
    # Until its scheduler has come to the job, Slurm may have nothing closer to say.
    assert words in said or "(PartitionConfig)" in said, f"{said}\n{system.story(key)}"
    wait_for(lambda: against(system, key).get("reason") == reason, reason, SECONDS)
    assert words in against(system, key)["message"]
    assert system.status(key) == "pending"
    assert words in command_line(system, "services", "describe", key)[1]
    system.delete(key)


def test_what_waits_for_others_is_waited_for(system: System) -> None:
    first = system.create(resources={"qos": "single", "gpu": 1})
    system.wait_status(first, "running")
    second = system.create(resources={"qos": "single", "gpu": 1})
    wait_for(lambda: "QOSMaxGRESPerUser" in str(system.service(second)["message"]), "it waits", SECONDS)
    assert against(system, second) == {}
    system.delete(first)
    system.wait_status(second, "running")
    system.delete(second)

"""What doctor reads of partitions, nodes and QOS, and how it judges: rows as Slurm 22.05 prints them."""

from __future__ import annotations

from typing import Any

import pytest

from api.cli.doctor.limits import JobLimits, minutes, of_account, of_partition, of_quality
from api.cli.doctor.partitions import Asker, Partition, out_of_service
from api.contract.launch import Resources

ROW = (
    "PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A "
    "DefaultTime=01:00:00 DisableRootJobs=NO Hidden=NO MaxNodes=UNLIMITED MaxTime=7-00:00:00 MinNodes=0 LLN=NO "
    "MaxCPUsPerNode=UNLIMITED Nodes=node[1-2] RootOnly=NO ReqResv=NO PreemptMode=REQUEUE State=UP TotalCPUs=8 "
    "TotalNodes=2 DefMemPerCPU=100 MaxMemPerNode=UNLIMITED TRES=cpu=8,mem=8000M,node=2,billing=8,gres/gpu=4"
)
LAB = Asker(account="lab", qos="normal", groups={"users"})


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("State=UP", "State=UP", ""),
        ("State=UP", "State=DOWN", "main is DOWN"),
        ("State=UP", "State=DRAIN", "main is DRAIN"),
        ("TotalNodes=2", "TotalNodes=0", "main has no nodes"),
        ("State=UP", "State=INACTIVE", "main is INACTIVE"),
        ("AllowAccounts=ALL", "AllowAccounts=other,lab", ""),
        ("AllowAccounts=ALL", "AllowAccounts=other,third", "not for the account lab, but for other, third"),
        ("AllowAccounts=ALL", "DenyAccounts=lab,third", "not for the account lab"),
        ("AllowAccounts=ALL", "DenyAccounts=third", ""),
        ("AllowQos=ALL", "AllowQos=high", "not for the QOS normal, but for high"),
        ("AllowQos=ALL", "DenyQos=normal", "not for the QOS normal"),
        ("AllowGroups=ALL", "AllowGroups=staff,root", "for the groups root, staff alone"),
        ("AllowGroups=ALL", "AllowGroups=staff,users", ""),
        ("State=UP", "MinNodes=1", ""),
        ("State=UP", "MinNodes=2", "takes only jobs of 2 nodes or more"),
        ("RootOnly=NO", "RootOnly=YES", "for root alone"),
        ("ReqResv=NO", "ReqResv=YES", "slurm.reservation"),
    ],
)
def test_who_may_use_a_partition(old: str, new: str, why: str) -> None:
    found = Partition.of(ROW.replace(old, new)).closed_to(LAB)
    assert bool(found) == bool(why)
    assert why in found


def test_what_is_not_known_closes_nothing() -> None:
    row = ROW.replace("AllowAccounts=ALL", "AllowAccounts=other").replace("AllowQos=ALL", "AllowQos=high")
    assert Partition.of(row).closed_to(Asker(account="", qos="", groups={"users"})) == ""


@pytest.mark.parametrize(
    ("states", "out"),
    [
        (["idle", "down"], False), (["down*", "drained"], True), (["idle*"], True), (["mixed", "planned"], False),
        (["draining", "unknown*"], True), (["idle~"], False), ([], False),
    ],
)  # fmt: skip
def test_nodes_that_take_no_jobs(states: list[str], out: bool) -> None:
    assert out_of_service(states, reserved=False) == out


def test_nodes_in_maintenance_take_the_jobs_of_a_reservation() -> None:
    assert out_of_service(["maint"], reserved=False)
    assert not out_of_service(["maint"], reserved=True)
    assert out_of_service(["maint*", "drained"], reserved=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7-00:00:00", 10080), ("00:10:00", 10), ("01:30:00", 90), ("05:00", 5), ("30", 30), ("UNLIMITED", None),
        ("INFINITE", None), ("", None), ("1-12:00:00", 2160), ("NONE", None),
    ],
)  # fmt: skip
def test_times(text: str, found: int | None) -> None:
    assert minutes(text) == found


def excess(limits: JobLimits, **asked: Any) -> list[tuple[str, str]]:
    small: dict[str, Any] = {"cpu": 1, "memory_mb": 100, "time_limit": 5} | asked
    return [(one.key, one.most) for one in limits.exceeded_by(Resources(**small))]


def test_a_partition_allows_what_its_largest_node_has() -> None:
    nodes = [["4", "4000", "gpu:a100:2(S:0-1)"], ["8+", "2000+", "(null)"], ["2", "1000", "gpu:1,shard:8"]]
    limits = of_partition(Partition.of(ROW).facts, nodes)
    assert excess(limits, cpu=8, memory_mb=4000, gpu=2, nodes=2, time_limit=10080) == []
    assert excess(limits, cpu=9, memory_mb=4001, gpu=3, nodes=3, time_limit=10081) == [
        ("time_limit", "10080"), ("nodes", "2"), ("cpu", "8"), ("memory", "4000M"), ("gpu", "2"),
    ]  # fmt: skip
    assert excess(
        of_partition(Partition.of(ROW.replace("MaxCPUsPerNode=UNLIMITED", "MaxCPUsPerNode=2")).facts, nodes), cpu=3
    )


def test_nodes_of_which_nothing_is_said_allow_all() -> None:
    limits = of_partition({"PartitionName": "main"}, [])
    assert excess(limits, cpu=1000, memory_mb=10**7, gpu=100, nodes=100, time_limit=10**5) == []


def test_the_least_of_a_qos_counts() -> None:
    limits = of_quality("capped", "00:30:00", "gres/gpu=4,cpu=8", "gres/gpu=2", "mem=8G")
    assert excess(limits, gpu=1, nodes=2, time_limit=30) == []
    assert excess(limits, gpu=3) == [("gpu", "2")]
    assert excess(limits, cpu=9, memory_mb=8193, time_limit=31) == [
        ("time_limit", "30"), ("cpu", "8"), ("memory", "8192M"),
    ]  # fmt: skip
    assert excess(of_quality("normal", ""), gpu=100, time_limit=10**5) == []


def test_of_an_account_counts_what_the_qos_does_not_say() -> None:
    account = of_account("poor", "01:00:00", "gres/gpu=2", "cpu=4")
    assert excess(account, cpu=6, gpu=3, time_limit=61) == [("time_limit", "60"), ("cpu", "4"), ("gpu", "2")]
    rich = account.beneath(of_quality("long", "7-00:00:00", "gres/gpu=8"))
    assert (rich.of, excess(rich, cpu=6, gpu=3, time_limit=61)) == ("the account poor", [("cpu", "4")])

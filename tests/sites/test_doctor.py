"""What is wrong at a site: doctor names the culprit and what to do, and that, typed as it says, makes it green."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.system import wait_for
from tests.ports import bound
from tests.sites.newcomer import Newcomer, munged, newcomer_on


@pytest.fixture(scope="module")
def newcomer(apptainer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    with newcomer_on(tmp_path_factory.mktemp("doctor"), apptainer) as newcomer:
        yield newcomer


def test_before_the_first_start_a_healthy_site_is_green(newcomer: Newcomer) -> None:
    code, found = newcomer.ask()
    assert {name for name, result in found.items() if result["state"] == "failed"} == set()
    assert code == 0
    assert "has no tables yet" in found["database"]["message"]
    assert found["run_dir seen by jobs"]["state"] == "ok"
    assert not (newcomer.folder / "state" / "ai-factory.db").exists()


@pytest.mark.parametrize(
    ("broken", "whole", "words"),
    [
        ("AllowAccounts=root", "AllowAccounts=ALL", "main is not for the account local, but for root"),
        ("DenyAccounts=local", "DenyAccounts=", "main is not for the account local"),
        ("AllowQos=high", "AllowQos=ALL", "main is not for the QOS normal, but for high"),
        ("State=DOWN", "State=UP", "main is DOWN"),
        ("State=DRAIN", "State=UP", "main is DRAIN"),
        ("State=INACTIVE", "State=UP", "main is INACTIVE"),
        ("ReqResv=YES", "ReqResv=NO", "for jobs with a reservation"),
        ("Nodes=", "Nodes=node[1-2]", "main has no nodes"),
    ],
)
def test_a_partition_that_is_closed(newcomer: Newcomer, broken: str, whole: str, words: str) -> None:
    newcomer.run(f"scontrol update PartitionName=main {broken}")
    try:
        name, message, remedy = newcomer.culprit()
        assert (name, words in message) == ("partition is open", True), message
        ways = dict(re.findall(r"slurm\.(\w+) to one of: (\w+)", remedy))
        assert {"AllowAccounts=root": "account", "AllowQos=high": "qos"}.get(broken, "partition") in ways
        for setting, value in ways.items():
            newcomer.well("--no-job", **{setting: value})
    finally:
        newcomer.run(f"scontrol update PartitionName=main {whole}")


def test_a_partition_without_nodes(newcomer: Newcomer) -> None:
    newcomer.run("scontrol update NodeName=node[1-2] State=DRAIN Reason=broken")
    try:
        name, message, _ = newcomer.culprit()
        assert name == "partition is open"
        assert re.search(r"no node of the partition main is in service \(drain\w*, broken\)", message)
    finally:
        newcomer.run("scontrol update NodeName=node[1-2] State=RESUME")
    newcomer.well("--no-job")


def test_nodes_in_maintenance_take_the_jobs_of_its_reservation(newcomer: Newcomer) -> None:
    newcomer.run("scontrol create reservation ReservationName=maint StartTime=now Duration=60 Users=root Flags=maint "
                 "Nodes=ALL")  # fmt: skip
    try:
        wait_for(lambda: "maint" in newcomer.cluster.run("sinfo", "-h", "-o", "%T"), "it has begun")
        name, message, _ = newcomer.culprit("--no-job")
        assert (name, "in service (maint)" in message) == ("partition is open", True)
        newcomer.well(reservation="maint")
    finally:
        newcomer.run("scontrol delete ReservationName=maint")


def test_a_reservation_that_begins_later(newcomer: Newcomer) -> None:
    newcomer.run("scontrol create reservation ReservationName=later StartTime=now+2hours Duration=60 Users=root "
                 "Nodes=node1")  # fmt: skip
    try:
        name, message, remedy = newcomer.culprit("--no-job", reservation="later")
        assert (name, bool(re.search(r"later begins at 20\d\d-\d\d-\d\d \d\d:\d\d:", message))) == ("may submit", True)
        assert remedy.startswith("Leave slurm.reservation out until then")
        newcomer.well("--no-job")
    finally:
        newcomer.run("scontrol delete ReservationName=later")


@pytest.mark.parametrize(
    ("setting", "wrong", "has"),
    [("gres", "gpu:a10:1", r"the nodes have: (gpu:a100):2$"), ("constraint", "hopper", "none$")],
)
def test_what_no_node_has_is_told_with_what_they_have(newcomer: Newcomer, setting: str, wrong: str, has: str) -> None:
    name, _, remedy = newcomer.culprit("--no-job", **{setting: wrong})
    found = re.search(rf"slurm.{setting} is {wrong}; .*{has}", remedy)
    assert (name, bool(found)) == ("may submit", True), remedy
    newcomer.well("--no-job", **{setting: found[1] if found and found.groups() else ""})


def test_a_partition_for_jobs_of_several_nodes(newcomer: Newcomer) -> None:
    newcomer.run("scontrol update PartitionName=main MinNodes=2")
    try:
        name, message, remedy = newcomer.culprit()
        assert (name, "takes only jobs of 2 nodes or more" in message) == ("partition is open", True)
        newcomer.well("--no-job", partition=re.findall(r"slurm.partition to one of: (\w+)", remedy)[0])
    finally:
        newcomer.run("scontrol update PartitionName=main MinNodes=1")


def test_an_account_that_may_have_no_jobs_at_all(newcomer: Newcomer) -> None:
    newcomer.run("sacctmgr -i modify account where name=local set GrpSubmitJobs=0")
    try:
        name, message, remedy = newcomer.culprit("--no-job")
        assert (name, "AssocGrpSubmitJobsLimit" in message) == ("may submit", True)
        assert "ask the site for a higher limit" in remedy
    finally:
        newcomer.run("sacctmgr -i modify account where name=local set GrpSubmitJobs=-1")
    newcomer.well("--no-job")


def test_no_partition_by_default(newcomer: Newcomer) -> None:
    newcomer.run("scontrol update PartitionName=main Default=NO")
    try:
        name, _, remedy = newcomer.culprit("--no-job")
        assert (name, remedy) == ("partition", "Set slurm.partition to one of: main, short")
        newcomer.well("--no-job", partition="short")
    finally:
        newcomer.run("scontrol update PartitionName=main Default=YES")


def test_a_munge_key_that_is_not_the_clusters(newcomer: Newcomer) -> None:
    with munged() as its_socket:
        conf = newcomer.folder / "slurm" / "etc" / "of-another-key.conf"
        text = Path(newcomer.cluster.conf).read_text()
        conf.write_text(re.sub("AuthInfo=.*", f"AuthInfo=socket={its_socket}", text))
        name, _, remedy = newcomer.culprit("--no-job", conf=str(conf))
    assert (name, "munge -n | ssh HOST unmunge" in remedy) == ("Slurm answers", True)


def test_a_slurmdbd_that_does_not_run(newcomer: Newcomer) -> None:
    newcomer.cluster.control("stop", "slurmdbd")
    try:
        name, _, remedy = newcomer.culprit("--no-job")
        assert (name, "is slurmdbd running" in remedy.lower()) == ("accounting", True)
    finally:
        newcomer.cluster.control("start", "slurmdbd")
    newcomer.well("--no-job")


def test_a_limit_of_nought_is_told_with_its_name(newcomer: Newcomer) -> None:
    """So accounts expire: nobody takes them away."""
    for limit, check, told in (("MaxJobs", "jobs start", "AssocMaxJobsLimit"), ("MaxSubmitJobs", "may submit",
                               "AssocMaxSubmitJobLimit")):  # fmt: skip
        newcomer.run(f"sacctmgr -i modify user where name=root account=local set {limit}=0")
        try:
            name, message, remedy = newcomer.culprit(account="local")
            assert (name, told in message) == (check, True), message
            assert "ask the site for a higher limit" in remedy
        finally:
            newcomer.run(f"sacctmgr -i modify user where name=root account=local set {limit}=-1")
    newcomer.well(account="local")


def test_a_folder_for_temporary_files_that_is_missing(newcomer: Newcomer) -> None:
    broken = "export TMPDIR=/nowhere/scratch"
    name, _, remedy = newcomer.culprit(prologue=broken)
    assert name == "room for temporary files"
    newcomer.well(prologue=f"{broken}; {remedy.rpartition(': ')[2]}")


def test_an_account_and_a_qos_that_are_not_this_users(newcomer: Newcomer) -> None:
    for setting in ("account", "qos"):
        name, message, remedy = newcomer.culprit(**{setting: "nope"})
        assert (name, "nope" in message) == ("account and QOS", True)
        value = re.findall(rf"Set slurm\.{setting} to one of: (\w+)", remedy)[0]
        newcomer.well("--no-job", **{setting: value})


def test_a_user_without_an_account(newcomer: Newcomer) -> None:
    newcomer.run("sacctmgr -i delete user name=root")
    try:
        name, message, remedy = newcomer.culprit(account="local")
        assert (name, "root has no account" in message) == ("account and QOS", True)
    finally:
        newcomer.run("sacctmgr -i add user root account=local")
    assert remedy == "Ask the site for: sacctmgr add user root account=local"
    newcomer.well(account="local")
    newcomer.run("sacctmgr -i modify user where name=root account=local set QOS+=capped,high")


def test_an_image_and_a_model_that_are_missing(newcomer: Newcomer) -> None:
    image, model, models = (newcomer.folder / name for name in ("vllm.sif", "model", "models"))
    more = f"""
[models]
folders = ["{models}"]
[recipe."inference/vllm_dummy"]
image = "{image}"
[recipe."inference/vllm_dummy".parameters.model]
default = "{model}"
"""
    name, message, remedy = newcomer.culprit(more=more)
    assert name == "recipes' files in jobs"
    assert f"{image} (image of inference/vllm_dummy)" in message
    assert f"{model} (model of inference/vllm_dummy)" in message
    assert f"{models} (models.folders)" in message
    assert "Put it where all nodes see it" in remedy
    image.touch()
    model.mkdir()
    models.mkdir()
    newcomer.well(more=more)


def test_a_folder_of_commands_that_is_missing(newcomer: Newcomer) -> None:
    name, message, remedy = newcomer.culprit("--no-job", bin_dir="/opt/slurm/nope")
    assert (name, remedy) == ("Slurm's commands", "Leave it out: they are on PATH.")
    assert "/opt/slurm/nope" in message
    newcomer.well("--no-job")


@pytest.mark.parametrize(
    ("resources", "key"),
    [("time_limit = 20", "time_limit"), ('memory = "64G"', "memory"), ("cpu = 9", "cpu"), ("gpu = 3", "gpu")],
)
def test_a_recipe_of_the_site_that_asks_for_too_much(newcomer: Newcomer, resources: str, key: str) -> None:
    table = '\n[recipe."inference/vllm_dummy"]\n'
    newcomer.run("scontrol update PartitionName=main MaxTime=10")
    small = "resources.time_limit = 5\n" if key != "time_limit" else ""
    try:
        name, message, remedy = newcomer.culprit("--no-job", more=f"{table}{small}resources.{resources}\n")
        assert name == "recipes' resources"
        assert "inference/vllm_dummy (" in message.partition(";")[0], "the site's own are told first"
        typed = re.findall(rf'Set (resources\.{key} = \S+) under \[recipe\."inference/vllm_dummy"\]', remedy)[0]
        newcomer.well("--no-job", more=f"{table}{small}{typed}\n")
    finally:
        newcomer.run("scontrol update PartitionName=main MaxTime=7-00:00:00")


def test_a_qos_that_gives_less_than_a_recipe_asks_for(newcomer: Newcomer) -> None:
    more = '\n[recipe."inference/vllm_dummy"]\nresources = {time_limit = 40}\n'
    name, message, remedy = newcomer.culprit("--no-job", more=more, qos="capped")
    assert (name, "the QOS capped allows 30 minutes" in message) == ("recipes' resources", True)
    typed = re.findall(r"Set (resources.time_limit = 30) under", remedy)[0]
    newcomer.well("--no-job", more=f'\n[recipe."inference/vllm_dummy"]\n{typed}\n', qos="capped")


def test_a_partition_whose_qos_gives_less_than_a_recipe_asks_for(newcomer: Newcomer) -> None:
    table = '\n[recipe."inference/vllm_dummy"]\nresources.time_limit = 5\n'
    newcomer.run("sacctmgr -i add qos of-short MaxTRESPerUser=cpu=2")
    newcomer.run("scontrol update PartitionName=short QoS=of-short")
    try:
        name, message, remedy = newcomer.culprit("--no-job", more=f"{table}resources.cpu = 3\n", partition="short")
        assert (name, "the QOS of-short allows 2 CPUs" in message) == ("recipes' resources", True), message
        found = re.findall(r"Set (resources.cpu = \d) under .* or slurm.partition to one of: (\w+)", remedy)[0]
        newcomer.well("--no-job", more=f"{table}{found[0]}\n", partition="short")
        newcomer.well("--no-job", more=f"{table}resources.cpu = 3\n", partition=found[1])
        newcomer.run("sacctmgr -i modify qos capped set MaxTRESPerUser=cpu=4")
        newcomer.culprit("--no-job", more=f"{table}resources.cpu = 3\n", partition="short", qos="capped")
        newcomer.run("sacctmgr -i modify qos capped set flags=OverPartQOS")
        newcomer.well("--no-job", more=f"{table}resources.cpu = 3\n", partition="short", qos="capped")
    finally:
        newcomer.run("scontrol update PartitionName=short QoS=")
        newcomer.run("sacctmgr -i modify qos capped set flags=-1 MaxTRESPerUser=cpu=-1")


@pytest.mark.parametrize(
    ("of", "limit", "resources", "words"),
    [
        ("account where name=local", "GrpTRES=cpu", "cpu = 3", "the account local allows 2 CPUs"),
        ("user where name=root account=local", "MaxTRES=gres/gpu", "gpu = 2", "the account local allows 1 GPUs"),
        ("account where name=root", "GrpTRES=cpu", "cpu = 3", "the account root allows 2 CPUs"),
    ],
)
def test_an_account_that_gives_less_than_a_recipe_asks_for(
    newcomer: Newcomer, of: str, limit: str, resources: str, words: str
) -> None:
    """Slurm takes such a job, and lets it wait for ever."""
    table = '\n[recipe."inference/vllm_dummy"]\n'
    newcomer.run(f"sacctmgr -i modify {of} set {limit}={re.findall('[0-9]', words)[0]}")
    try:
        name, message, remedy = newcomer.culprit("--no-job", more=f"{table}resources.{resources}\n")
        assert (name, words in message) == ("recipes' resources", True), message
        typed = re.findall(r"Set (resources\.\w+ = \S+) under", remedy)[0]
        newcomer.well("--no-job", more=f"{table}{typed}\n")
    finally:
        newcomer.run(f"sacctmgr -i modify {of} set {limit}=-1")


@pytest.mark.parametrize(
    ("prologue", "words"),
    [
        ("modul load apptainer || exit 1", "exit code 1 on {host}: .*modul: command not found"),
        ("modul load apptainer", "exit code 127 on {host}: .*modul: command not found"),
        ("exec true", "slurm.prologue did not come to its end: job .* ended as COMPLETED"),
        ("kill -9 $$", "slurm.prologue did not come to its end: job "),
    ],
)
def test_a_prologue_that_fails(newcomer: Newcomer, prologue: str, words: str) -> None:
    name, message, remedy = newcomer.culprit(prologue=prologue)
    assert name == "prologue in jobs"
    assert re.search(words.format(host=os.uname().nodename), message), message
    assert remedy.startswith("Correct slurm.prologue")
    assert remedy.endswith(prologue)
    newcomer.well(prologue="true")


def test_a_prologue_that_is_well_is_told(newcomer: Newcomer) -> None:
    _, found = newcomer.ask(prologue="echo loaded the module; cd /; set -eu")
    assert found["prologue in jobs"]["state"] == "ok"
    assert found["prologue in jobs"]["message"].endswith("loaded the module")
    assert found["Python in jobs"]["state"] == "ok"


@pytest.mark.parametrize("there", ["no folder", "another folder"])
def test_a_run_dir_that_nodes_do_not_share(newcomer: Newcomer, there: str) -> None:
    """Only here, in a mount namespace of doctor's own, another file system lies there."""
    run_dir = newcomer.folder / "run"
    if there == "another folder":
        (run_dir / "doctor").mkdir(mode=0o700, exist_ok=True)
    under = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o mode=0700 none {run_dir} && exec "$@"', "sh")
    name, message, remedy = newcomer.culprit(under=under, prologue="exit 1")
    assert name == "run_dir seen by jobs"
    assert "slurm_script" not in message
    assert f"{run_dir} on node1 is not the folder that it is here" in message
    assert "shared folder" in remedy
    for left in run_dir.glob("doctor/*"):
        left.unlink()
    newcomer.well(prologue="true")


def test_what_squeue_explains_is_not_waited_for(newcomer: Newcomer) -> None:
    """A QOS of one job at a time, which another one holds."""
    newcomer.cluster.run("sbatch", "--qos=capped", "--time=5", "--output=/dev/null", "--wrap=sleep 600")
    try:
        name, message, _ = newcomer.culprit(qos="capped")
        assert name == "jobs start"
        assert "can't start (QOSMaxJobsPerUserLimit), and was cancelled" in message
    finally:
        newcomer.run("scancel --user=root")
    newcomer.well(qos="capped")


def test_ports_that_a_colleague_uses(newcomer: Newcomer) -> None:
    with ExitStack() as colleague:
        first = colleague.enter_context(bound())
        first.listen()
        port = first.getsockname()[1]
        name, message, remedy = newcomer.culprit(port_range=f"{port},{port}")
        assert (name, f"all ports from {port} to {port} are taken" in message) == ("ports of the nodes", True)
        assert remedy.startswith("Set slurm.port_range")
        _, found = newcomer.ask(port_range=f"{port},{port + 50}")
        assert found["ports of the nodes"]["state"] == "ok"
        assert re.search(
            rf"of {port} to {port + 50}, \d+ are taken there: {port}", found["ports of the nodes"]["message"]
        )
    newcomer.well(port_range=f"{port},{port + 50}")
    _, found = newcomer.ask(port_range=f"{port},{port}")
    assert found["ports of the nodes"]["state"] == "warning", found["ports of the nodes"]
    assert "room for 1 jobs on a node" in found["ports of the nodes"]["message"]
    least = re.findall(r"port_range to (\d+) ports", found["ports of the nodes"]["remedy"])[0]
    _, found = newcomer.ask(port_range=f"{port},{port + int(least) - 1}")
    assert found["ports of the nodes"]["state"] == "ok"

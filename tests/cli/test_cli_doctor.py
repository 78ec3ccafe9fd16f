"""The doctor over stand-ins of Slurm's commands."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_tools import FakeApi, Run

from api.cli.doctor.check import Check, CheckFailedError, SkippedError, State, results
from api.contract.traces import PLANS
from tests.networks import REFUSED, require_networks
from tests.ports import free_port

RECIPE = "name: hello\ncategory: simple\ndescription: d\nversion: 1.0.0\nprogram: [echo]\n"
SBATCH = """\
echo "$@" >>{calls}; env >{environment}
case "$*" in
  --version) echo "slurm 24.11.5"; exit;;
  *--test-only*) echo "sbatch: Job 7 to start at now" >&2; exit;;
esac
while [ "${{1#--}}" != "$1" ]; do shift; done
( exec >/dev/null 2>&1; bash "$@" ) &
echo "7;local"
"""
LISTING = """\
#!{python} -IS
import pathlib, re, sys
calls = pathlib.Path({calls!r})
names = re.findall(r"--job-name=(\\S+)", calls.read_text()) if calls.exists() else []
format = next(word for word in sys.argv if word.startswith("--format=")).removeprefix("--format=")
if "--noheader" not in sys.argv:
    print(format.replace("%", "HEADER_"))
for row in {rows!r}:
    known = {{"j": names[-1] if names else "", **row}}
    if all(letter in known for letter in re.findall("%([a-zA-Z])", format)):
        print(re.sub("%([a-zA-Z])", lambda found: known[found[1]], format))
"""
"""What squeue and sinfo answer: a line for each row that has all fields which are asked for. `j` is the last job's."""
ACCOUNTS_NOTHING = """for word; do case $word in
  --format=*) fields=${word#*=} ;;
  --delimiter=*) mark=${word#*=} ;;
esac; done
for field in ${fields//,/ }; do printf '%s%s' "$field" "$mark"; done; echo"""
"""What sacct answers: the header alone."""
NODES = ({"N": "n1", "o": "127.0.0.1"}, {"N": "n1", "o": "127.0.0.1"}, {"N": "n2", "o": "127.0.0.1"})
PARTITIONS = ({"P": "main*"}, {"P": "gpu"})

PARTITION = "PartitionName=main Default=YES AllowGroups={groups} AllowAccounts={accounts} AllowQos=ALL State={state}"


def job(number: str, state: str, *, node: str = "n/a", reason: str = "None", **more: str) -> dict[str, str]:
    """A job as squeue lists it; under the name of the doctor's last one, if none is given."""
    fields = {
        "A": number,
        "i": number,
        "T": state,
        "B": node,
        "S": "N/A",
        "e": "N/A",
        "r": reason,
        "l": "1:00",
        "k": "",
    }
    return fields | more


class Site:
    """Stand-ins of the commands in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.run_dir = folder / "run"
        self.calls = folder / "calls"
        self.environment = folder / "environment"
        self.enforced = "associations,limits,qos,safe"
        self.bin.mkdir()
        self.command("sbatch", SBATCH.format(calls=self.calls, environment=self.environment))
        self.listing("sinfo", *PARTITIONS, *NODES)
        self.jobs(job("7", "COMPLETED", node="n1"))
        self.command("sacct", ACCOUNTS_NOTHING)
        self.accounts("lab|normal,high|normal\\nroot|normal|\\n", "lab")
        self.scontrol(PARTITION.format(groups="ALL", accounts="ALL", state="UP"))
        self.command("scancel", f'echo scancel "$@" >>{self.calls}')
        self.command("apptainer", "echo apptainer version 1.4.0")

    def command(self, name: str, script: str) -> None:
        file = self.bin / name
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)

    def scontrol(self, partitions: str, tracking: str = "cgroup") -> None:
        facts = {"ProctrackType": f"proctrack/{tracking}", "AccountingStorageEnforce": self.enforced}
        config = "\n".join(["Configuration data as of today", *(f"{key:<24} = {fact}" for key, fact in facts.items())])
        self.command("scontrol", f"case \"$*\" in *config) echo '{config}';; *) echo '{partitions}';; esac")

    def accounts(self, associations: str, default: str) -> None:
        self.command("sacctmgr", f"""case "$*" in
          *associations*) printf '{associations}';;
          *" user "*) echo '{default}';;
        esac""")  # fmt: skip

    def listing(self, name: str, *rows: dict[str, str]) -> None:
        file = self.bin / name
        file.write_text(LISTING.format(python=sys.executable, calls=str(self.calls), rows=rows))
        file.chmod(0o755)

    def jobs(self, *rows: dict[str, str]) -> None:
        self.listing("squeue", *rows)

    def left_behind(self) -> list[Path]:
        return list(self.run_dir.iterdir())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[Site]:
    site = Site(tmp_path)
    recipes = tmp_path / "recipes" / "simple"
    recipes.mkdir(parents=True)
    (recipes / "hello.yaml").write_text(RECIPE)
    for name, value in {
        "SLURM_BIN_DIR": site.bin,
        "RUN_DIR": site.run_dir,
        "RECIPES": recipes.parent,
        "APPTAINER_COMMAND": site.bin / "apptainer",
        "API_PORT": free_port(),
    }.items():
        monkeypatch.setenv(f"AI_FACTORY_{name}", str(value))
    monkeypatch.setattr("api.cli.doctor.job_wait.POLL_SECONDS", 0.02)
    monkeypatch.setattr("api.cli.doctor.job_wait.APPEAR_SECONDS", 20.0)
    assert run("migrate").code == 0
    yield site


@pytest.fixture
def ask(run: Run, api: FakeApi) -> Any:
    """Run the doctor; return its exit code and the results by name."""
    api.answer("GET", "/health", (200, {"status": "healthy"}))

    def ask(*argv: str) -> tuple[int, dict[str, Any]]:
        ran = run("doctor", "-o", "json", "--server", api.url, *argv)
        return ran.code, {result["name"]: result for result in json.loads(ran.out)}

    return ask


def test_all_well(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-2")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("AI_FACTORY_DATABASE_PASSWORD_OF_SOMEBODY", "x")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/site.pem")
    code, found = ask("--timeout", "60")
    failed = [result for result in found.values() if result["state"] == "failed"]
    assert failed == []
    assert code == 0
    assert {name for name, result in found.items() if result["state"] == "skipped"} == {
        "key file", "administrator's key", "controller", "prologue in jobs",
    }  # fmt: skip
    assert found["Apptainer in jobs"]["message"] == "apptainer version 1.4.0"
    assert site.left_behind() == []
    handed = {line.partition("=")[0] for line in site.environment.read_text().splitlines()}
    assert not {name for name in handed if name.startswith(("SBATCH_", "SLURM_", "AI_FACTORY_"))}
    assert {"https_proxy", "SSL_CERT_FILE"} <= handed, "what real jobs get"
    assert "scancel" not in site.calls.read_text()


def test_for_people_each_check_is_a_line_and_each_failure_has_a_remedy(site: Site, run: Run) -> None:
    site.command(
        "sinfo", "echo 'slurm_load_partitions: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    )
    ran = run("doctor", "--no-job")
    lines = ran.out.splitlines()
    assert ran.code == 1
    failed = [number for number, line in enumerate(lines) if line.startswith("✗")]
    assert len(failed) == 1
    assert "Unable to contact" in lines[failed[0]]
    assert "→ Is slurmctld running" in lines[failed[0] + 1]
    assert lines[-1].startswith("1 of ")
    assert "af-doctor" not in site.calls.read_text()


def test_the_very_listing_that_the_controller_reads_proves_itself(site: Site, ask: Any) -> None:
    for name in ("squeue", "sinfo"):
        site.command(f"{name}.real", "")
        (site.bin / name).rename(site.bin / f"{name}.real")
        site.command(name, f"echo '{name}: error: Ignoring ControlMachine' >&2; exec {site.bin}/{name}.real \"$@\"")
    assert ask("--no-job")[1]["Slurm answers"]["state"] == "ok"
    site.command("squeue", "echo 'squeue: error: Ignoring ControlMachine' >&2")
    found = ask("--no-job")[1]["Slurm answers"]
    assert (found["state"], "Ignoring ControlMachine" in found["message"]) == ("failed", True)
    site.command("squeue", "true")
    assert "begins without a header" in ask("--no-job")[1]["Slurm answers"]["message"]


def test_a_site_that_hides_its_nodes(site: Site, ask: Any) -> None:
    site.command("sinfo", "echo 'slurm_load_partitions: Access/permission denied' >&2; exit 1")
    found = ask("--no-job")[1]["Slurm answers"]
    assert (found["state"], "hides the addresses" in found["message"]) == ("warning", True)
    assert "getent hosts" in found["remedy"]


def test_a_site_that_hides_its_partitions(site: Site, ask: Any) -> None:
    site.command("sinfo", "echo 'slurm_load_partitions: Access/permission denied' >&2; exit 1")
    site.command("scontrol", """case "$*" in
      *config) echo 'AccountingStorageEnforce = associations';;
      *partition) echo 'slurm_load_partitions error: Access/permission denied' >&2; exit 1;;
    esac""")  # fmt: skip
    site.command("sacctmgr", """case "$*" in
      *MaxWall*) echo '00:00:01|cpu=0||';;
      *associations*) echo 'lab|normal|';;
      *) echo lab;;
    esac""")  # fmt: skip
    code, found = ask("--timeout", "60")
    assert [name for name, result in found.items() if result["state"] == "failed"] == []
    assert (code, "hides it from this user" in found["partition"]["message"]) == (0, True)
    assert found["may submit"]["state"] == found["run_dir seen by jobs"]["state"] == "ok"
    assert found["recipes' resources"]["state"] != "skipped", found["recipes' resources"]


def test_what_is_not_on_this_cluster(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PARTITION", "ACCOUNT", "QOS"):
        monkeypatch.setenv(f"AI_FACTORY_SLURM_{name}", "nope")
    site.command("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    code, found = ask("--no-job")
    assert code == 1
    assert found["partition"]["remedy"] == "Set slurm.partition to one of: main"
    assert "lab, root" in found["account and QOS"]["remedy"]
    assert found["accounting"]["state"] == "skipped"
    monkeypatch.setenv("AI_FACTORY_SLURM_ACCOUNT", "root")
    monkeypatch.setenv("AI_FACTORY_SLURM_QOS", "high")
    assert "normal" in ask("--no-job")[1]["account and QOS"]["remedy"]


def test_what_slurm_refuses_is_told_with_the_setting_to_change(
    site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = "sbatch: error: Batch job submission failed: Invalid qos specification"
    site.command("sbatch", f"""case "$*" in --version) echo slurm 24.11.5;; *) echo '{refusal}' >&2; exit 1;; esac""")
    found = ask("--no-job")[1]["may submit"]
    assert (found["state"], found["message"]) == (
        "failed",
        "sbatch: Batch job submission failed: Invalid qos specification",
    )
    assert found["remedy"] == "Change slurm.qos (sacctmgr show associations user=$USER)"
    monkeypatch.setenv("AI_FACTORY_SLURM_EXTRA_OPTIONS", "--array=1-3")
    found = ask("--no-job")[1]["may submit"]
    assert ("--array" in found["message"], found["remedy"]) == (True, "Change slurm.extra_options.")


def test_the_job_is_submitted_as_those_of_services_are(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FACTORY_SLURM_PARTITION", "gpu")
    monkeypatch.setenv("AI_FACTORY_SLURM_GRES", "gpu:1")
    ask("--timeout", "60")
    tried, sent = (line for line in site.calls.read_text().splitlines() if "--mem=100M" in line)
    for option in ("--partition=gpu", "--gres=gpu:1", "--export=ALL", "--no-requeue", "--dependency=singleton"):
        assert option in tried.split(), tried
        assert option in sent.split(), sent
    assert "--test-only" in tried


def test_commands_that_are_missing(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(site.bin))
    (site.bin / "sacct").unlink()
    code, found = ask("--no-job")
    assert (code, "sacct" in found["Slurm's commands"]["message"]) == (1, True)
    assert found["may submit"]["state"] == "skipped"


def test_a_job_that_never_runs_is_cancelled_by_name_and_id(site: Site, ask: Any) -> None:
    site.command("sbatch", SBATCH.format(calls=site.calls, environment=site.environment).replace("( exec", "#"))
    site.jobs(job("7", "PENDING", reason="Resources"))
    code, found = ask("--timeout", "0.3")
    assert code == 1
    assert "job 7 is pending (Resources)" in found["jobs start"]["message"]
    assert found["Python in jobs"]["state"] == "skipped"
    cancelled = [line.split() for line in site.calls.read_text().splitlines() if line.startswith("scancel")]
    assert len(cancelled) == 1
    assert cancelled[0][1].startswith("--name=af-doctor-")
    assert cancelled[0][2] == "7"
    assert site.left_behind() == []


def test_a_prologue_that_waits_is_named(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FACTORY_SLURM_PROLOGUE", "echo Password:; exec sleep 10")
    site.jobs(job("7", "RUNNING", node="n1"))
    found = ask("--timeout", "3")[1]
    assert found["run_dir seen by jobs"]["state"] == "ok"
    told = "slurm.prologue did not come to its end: job 7 was still at it on n1 after 3 s"
    assert f"{told}, and was cancelled. Its last words: Password:" in found["prologue in jobs"]["message"]
    assert "must not wait" in found["prologue in jobs"]["remedy"]
    assert found["Python in jobs"]["state"] == "skipped"


def test_a_slow_prologue_is_told_of_and_waited_for(site: Site, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.doctor.job_wait.SLOW_SECONDS", 0.1)
    monkeypatch.setattr("api.cli.doctor.job_checks.SLOW_SECONDS", 0.1)
    monkeypatch.setenv("AI_FACTORY_SLURM_PROLOGUE", "printf 'unknown module\n\n\n'; sleep 2")
    site.jobs(job("7", "RUNNING", node="n1"))
    ran = run("doctor", "-o", "json", "--timeout", "60")
    found = {result["name"]: result for result in json.loads(ran.out)}
    assert "slurm.prologue did not come to its end: job 7 was still at it on n1 after 0.1 s" in ran.err
    assert (found["prologue in jobs"]["state"], found["Python in jobs"]["state"]) == ("warning", "ok")
    assert re.search(r": unknown module. It took \d+ s", found["prologue in jobs"]["message"])


def test_a_job_that_runs_and_says_nothing(site: Site, ask: Any) -> None:
    site.command("sbatch", SBATCH.format(calls=site.calls, environment=site.environment).replace("( exec", "#"))
    site.jobs(job("7", "RUNNING", node="n1"))
    found = ask("--timeout", "0.3")[1]
    assert (found["jobs start"]["state"], found["run_dir seen by jobs"]["state"]) == ("ok", "failed")
    assert "is its own Prolog still at work there" in found["run_dir seen by jobs"]["remedy"]


def test_a_job_that_ended_before_it_began_is_told_with_what_slurm_says_of_its_node(site: Site, ask: Any) -> None:
    site.command("sbatch", SBATCH.format(calls=site.calls, environment=site.environment).replace("( exec", "#"))
    site.jobs(job("7", "CANCELLED", node="n1"))
    site.listing("sinfo", *PARTITIONS, *NODES, {"E": "Prolog error"})
    found = ask("--timeout", "60")[1]["run_dir seen by jobs"]
    assert "before it began; Slurm has taken the node out of service: Prolog error" in found["message"]
    assert "Prolog may find the node unfit (sinfo -R)" in found["remedy"]


def test_a_node_that_does_not_answer_any_more(site: Site, ask: Any) -> None:
    site.command("sbatch", SBATCH.format(calls=site.calls, environment=site.environment).replace("( exec", "#"))
    site.jobs(job("7", "RUNNING", node="n1"))
    site.listing("sinfo", *PARTITIONS, *NODES, {"T": "idle*"})
    found = ask("--timeout", "60")[1]["run_dir seen by jobs"]
    assert "job 7 on n1, which does not answer it any more" in found["message"]
    assert "is slurmd running there, and munged, with the cluster's key" in found["remedy"]


def test_a_folder_that_is_full(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("api.cli.doctor.local.make_folder", full)
    found = ask("--no-job")[1]
    assert found["run_dir"]["remedy"] == "Make room there, or set run_dir to another folder."


def test_a_user_whom_the_node_does_not_know(site: Site, ask: Any) -> None:
    site.command("apptainer", "printf '\\033[31mFATAL: unknown userid\\033[0m\\n' >&2; exit 255")
    site.command("id", "exit 1")
    site.command("sbatch", SBATCH.format(calls=site.calls, environment=site.environment).replace(
        'bash "$@" )', f'PATH={site.bin}:$PATH bash "$@" )'))  # fmt: skip
    found = ask("--timeout", "60")[1]["Apptainer in jobs"]
    assert found["message"].endswith(f"does not know the user {os.getuid()}: FATAL: unknown userid")
    assert found["remedy"].startswith("Ask the site to make this user known to its nodes")


def test_a_file_that_this_user_can_not_look_for(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can: its name is too long."""
    image = f"/{'x' * 300}"
    monkeypatch.setenv("AI_FACTORY_MODELS_FOLDERS", image)
    found = ask("--no-job")[1]["recipes' files here"]
    assert (found["state"], "not on this host" in found["message"]) == ("warning", True)


def test_an_option_that_sbatch_does_not_understand(site: Site, ask: Any) -> None:
    refuse = 'case "$*" in *--test-only*) echo "sbatch: error: moon in a wrong phase" >&2; exit 1;; esac\n'
    site.command("sbatch", refuse + SBATCH.format(calls=site.calls, environment=site.environment))
    found = ask("--no-job")[1]["may submit"]
    assert found["remedy"].startswith("Try it by hand: sbatch --test-only --nodes=1 ")


def test_a_folder_that_comes_late(site: Site, ask: Any) -> None:
    """As on NFS: what was made on one host is seen on another one after seconds."""
    late = 'cp "$1" "$2.sh"; mv "$2" "$2.late"; (sleep 1; mv "$2.late" "$2") & bash "$2.sh" "${@:2}" )'
    site.command("sbatch", SBATCH.format(calls=site.calls, environment=site.environment).replace('bash "$@" )', late))
    assert ask("--timeout", "60")[1]["run_dir seen by jobs"]["state"] == "ok"


def test_a_node_whose_name_is_not_known_here(site: Site, ask: Any) -> None:
    site.listing("sinfo", *PARTITIONS, {"N": "n1", "o": "n1.invalid"})
    site.command("sbatch", SBATCH.format(calls=site.calls, environment=site.environment).replace(
        'bash "$@" )', 'SLURMD_NODENAME=n1 timeout 5 bash "$@" )'))  # fmt: skip
    found = ask("--timeout", "60")[1]["ports of the nodes"]
    assert "this host does not know where the nodes are: n1.invalid port" in found["message"]
    assert "getent hosts n1.invalid" in found["remedy"]


def test_a_run_dir_that_is_full_when_the_job_is_written(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("api.cli.doctor.job.make_folder", full)
    found = ask("--timeout", "3")[1]["jobs start"]
    assert "No space left on device" in found["message"]
    assert "Make room there" in found["remedy"]


def test_ports_that_are_roots_alone(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = site.bin / "python-of-a-user"
    refuse = "import socket, sys; socket.socket.bind = lambda *_: exec('raise OSError'); sys.argv = sys.argv[1:]; "
    program.write_text(f"""#!/bin/bash
[ "$1" = -c ] && [[ "$2" == *listening* ]] && exec {sys.executable} -c "{refuse}exec(sys.argv[0])" "${{@:2}}"
exec {sys.executable} "$@"
""")
    program.chmod(0o755)
    monkeypatch.setenv("AI_FACTORY_SLURM_PYTHON", str(program))
    monkeypatch.setenv("AI_FACTORY_SLURM_PORT_RANGE", "80,81")
    found = ask("--timeout", "60")[1]["ports of the nodes"]
    assert (found["state"], "no port from 80 to 81" in found["message"]) == ("failed", True), found
    assert "from 1024 on" in found["remedy"]


def test_ports_of_connections_that_have_just_ended(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", port := free_port())) as server:
        client = socket.create_connection(("127.0.0.1", port))
        server.accept()[0].close()  # who ends it first keeps its port for a minute (RFC 9293, TIME-WAIT)
        assert client.recv(1) == b""
        client.close()
    monkeypatch.setenv("AI_FACTORY_SLURM_PORT_RANGE", f"{port},{port}")
    found = ask("--timeout", "60")[1]["ports of the nodes"]
    assert (found["state"], "have just ended hold theirs for a minute" in found["message"]) == ("failed", True), found
    assert "Ask again in a minute" in found["remedy"]


def test_a_folder_of_recipes_that_is_missing(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FACTORY_RECIPES", f"{os.environ['AI_FACTORY_RECIPES']}:/nowhere/recipes")
    found = ask("--no-job")[1]["recipes"]
    assert (found["state"], "no folder /nowhere/recipes" in found["message"]) == ("warning", True)


def test_a_submission_without_an_answer_is_cancelled_by_name(site: Site, ask: Any) -> None:
    site.command("sbatch", """case "$*" in --version|*--test-only*) echo ok;; *) echo timed out >&2; exit 1;; esac""")
    _, found = ask("--timeout", "60")
    assert "timed out" in found["jobs start"]["message"]
    assert "scancel --name=af-doctor-" in site.calls.read_text()


def test_a_run_dir_that_the_node_does_not_share(
    site: Site, ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.cli.doctor.job_wait.APPEAR_SECONDS", 0.2)
    script = SBATCH.format(calls=site.calls, environment=site.environment)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    site.command("sbatch", script.replace('bash "$@"', f'set -- "$1" {elsewhere} "${{@:3}}"; bash "$@"'))
    _, found = ask("--timeout", "60")
    assert "nothing it wrote is seen here" in found["run_dir seen by jobs"]["message"]
    assert "shared folder" in found["run_dir seen by jobs"]["remedy"]


def test_a_node_that_lacks_things(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.command("oldpython", "echo 3.6.8; exit 1")
    site.command("date", f"echo {int(time.time()) - 3600}")
    site.command("apptainer", "echo 'no setuid' >&2; exit 255")
    site.command("df", "printf 'Filesystem\\n/dev/x 9 9 17 9%% /tmp\\n'")
    only = site.bin.parent / "only"
    only.mkdir()
    for name in ("cat", "date", "df", "awk", "uname", "tail", "mv", "sleep", "unshare", "apptainer", "oldpython"):
        (only / name).symlink_to(site.bin / name if (site.bin / name).exists() else f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", f"{site.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("AI_FACTORY_SLURM_PYTHON", "oldpython")
    monkeypatch.setenv("AI_FACTORY_SLURM_PROLOGUE", f"export PATH={only}")
    _, found = ask("--timeout", "60")
    assert found["run_dir seen by jobs"]["state"] == "ok"
    assert re.search(r"3\d\d\d s behind", found["clock of the node"]["message"])
    assert f"Found: {only}/oldpython (3.6.8). Not found: python3.14," in found["Python in jobs"]["message"]
    assert "Set slurm.python" in found["Python in jobs"]["remedy"]
    assert "no setuid" in found["Apptainer in jobs"]["message"]
    assert found["user namespaces in jobs"]["state"] == "skipped"
    assert "only 0.0 GB in /tmp" in found["room for temporary files"]["message"]
    assert "export TMPDIR=" in found["room for temporary files"]["remedy"]
    assert found["ports of the nodes"]["state"] == "skipped"
    (only / "python3.12").symlink_to(sys.executable)
    found = ask("--timeout", "60")[1]
    assert found["Python in jobs"]["state"] == "ok"
    assert f"{only}/python3.12 is 3." in found["Python in jobs"]["message"]
    assert "for slurm.python is oldpython and will not do" in found["Python in jobs"]["message"]
    assert found["ports of the nodes"]["state"] == "ok"


def test_a_node_where_no_container_starts(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.command("unshare", "exit 1")
    monkeypatch.setenv("PATH", f"{site.bin}:{os.environ['PATH']}")
    _, found = ask("--timeout", "60")
    assert "sysctl user.max_user_namespaces" in found["user namespaces in jobs"]["remedy"]
    starter = site.bin / "libexec/apptainer/bin/starter-suid"
    starter.parent.mkdir(parents=True)
    starter.touch()
    starter.chmod(0o4755)
    site.command("apptainer", f'[ "$1" = buildcfg ] && echo {site.bin}/libexec || echo apptainer version 1.4.0')
    _, found = ask("--timeout", "60")
    assert found["user namespaces in jobs"]["state"] == "ok"
    assert "a user may make none. Apptainer is installed setuid" in found["user namespaces in jobs"]["message"]


def test_a_node_that_gives_jobs_no_network_of_their_own(site: Site, ask: Any) -> None:
    require_networks()
    assert ask("--timeout", "60")[1]["networks of jobs"]["message"] == "a job may have one of its own"
    script = site.bin / "sbatch"
    script.write_text(script.read_text().replace('bash "$@"', f'{shlex.join(REFUSED)} bash "$@"'))
    code, found = ask("--timeout", "60")
    assert (code, found["networks of jobs"]["state"]) == (0, "warning")
    assert "its limit of namespaces is reached" in found["networks of jobs"]["message"]
    assert "user.max_net_namespaces" in found["networks of jobs"]["remedy"]


def test_a_firewall_before_the_nodes(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of TEST-NET-1 (RFC 5737) answers nobody."""
    site.listing("sinfo", *PARTITIONS, {"N": "n1", "o": "192.0.2.1"})
    monkeypatch.setattr("api.cli.doctor.job.REACH_SECONDS", 0.1)
    monkeypatch.setenv("AI_FACTORY_SLURM_PORT_RANGE", "47000,47100")
    site.command("sbatch", SBATCH.format(calls=site.calls, environment=site.environment).replace(
        'bash "$@" )', 'SLURMD_NODENAME=n1 timeout 5 bash "$@" )'))  # fmt: skip
    code, found = ask("--timeout", "60")
    assert code == 1
    assert re.search(r"192\.0\.2\.1 port 47\d\d\d", found["ports of the nodes"]["message"])
    assert "slurm.port_range" in found["ports of the nodes"]["remedy"]
    assert "scancel --name=af-doctor-" in site.calls.read_text()


@pytest.mark.parametrize(
    ("version", "state"), [("slurm 24.11.5", "ok"), ("slurm-wlm 22.05.8", "ok"), ("slurm 20.11.9", "failed")]
)
def test_slurms_version(site: Site, ask: Any, version: str, state: str) -> None:
    site.command("sbatch", f"echo {version}")
    assert ask("--no-job")[1]["Slurm's version"]["state"] == state


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({}, ""),
        ({"state": "DOWN"}, "the partition main is DOWN"),
        ({"accounts": "other"}, "not for the account lab"),
    ],
)
def test_a_partition_that_is_closed(
    site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], why: str
) -> None:
    site.accounts("lab|normal|\\n", "lab")
    shown = PARTITION.format(**({"groups": "ALL", "accounts": "ALL", "state": "UP"} | facts))
    site.scontrol(f"{shown}\nPartitionName=gpu State=UP MaxTime=1-00:00:00")
    monkeypatch.setenv("AI_FACTORY_SLURM_ACCOUNT", "lab")
    found = ask("--no-job")[1]["partition is open"]
    assert (found["state"], why in found["message"]) == ("failed" if why else "ok", True)
    if why:
        assert "one of: gpu" in found["remedy"]


def test_a_partition_of_a_group(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = PARTITION.format(groups="nobodys", accounts="ALL", state="UP")
    site.scontrol(shown)
    monkeypatch.setattr("os.getuid", lambda: 65534)
    monkeypatch.setattr("api.cli.doctor.partition_checks._own_groups", lambda: {"users"})
    assert "for the groups nobodys alone" in ask("--no-job")[1]["partition is open"]["message"]


@pytest.mark.parametrize(
    ("tracking", "state", "words"),
    [
        ("cgroup", "ok", "all that a job started ends with it"),
        ("linuxproc", "warning", "leaves its parents"),
        ("pgid", "warning", "leaves its process group"),
        ("siteown", "warning", "leaves what Slurm looks at"),
    ],
)
def test_what_slurm_sees_of_a_job(site: Site, ask: Any, run: Run, tracking: str, state: str, words: str) -> None:
    site.scontrol("PartitionName=main Default=YES", tracking)
    code, checks = ask("--no-job")
    found = checks["ends of jobs"]
    assert (code, found["state"], words in found["message"]) == (0, state, True)
    assert found["message"].startswith(f"proctrack/{tracking}: ")
    assert ("ProctrackType=proctrack/cgroup" in found["remedy"]) == (state == "warning")
    lines = run("doctor", "--no-job").out.splitlines()
    assert lines[-1] == ("All well." if state == "ok" else "Services can run; see what is marked with !.")
    assert [line.startswith("!") for line in lines if "ends of jobs" in line] == [state == "warning"]


def test_a_cluster_that_does_not_say_what_it_sees(site: Site, ask: Any) -> None:
    site.command("scontrol", "echo nothing of it")
    assert ask("--no-job")[1]["ends of jobs"]["state"] == "skipped"


def test_a_python_without_ssl_in_jobs(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A door needs it: jobs take another one, and where there is none doctor says what is missing."""
    site.command("bare", f'exec {sys.executable} -c \'import sys; sys.modules["ssl"] = None; exec(sys.argv[-1])\' "$@"')
    monkeypatch.setenv("AI_FACTORY_SLURM_PYTHON", str(site.bin / "bare"))
    found = ask("--timeout", "60")[1]["Python in jobs"]
    assert "import of ssl halted" in found["message"]
    assert found["state"] == "ok"
    for name in ("3.14", "3.13", "3.12", "3.11", "3.10", "3.9", "3"):
        site.command(f"python{name.removesuffix('.')}", f'exec {site.bin}/bare "$@"')
    monkeypatch.setenv("PATH", f"{site.bin}:{os.environ['PATH']}")
    found = ask("--timeout", "60")[1]["Python in jobs"]
    assert (found["state"], "with ctypes, json and ssl" in found["message"]) == ("failed", True)
    assert found["remedy"].startswith("Set slurm.python")


def test_a_user_whom_accounting_does_not_know(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.command("sacctmgr", "true")
    for account, named in (("", "account=ACCOUNT"), ("lab", "account=lab")):
        monkeypatch.setenv("AI_FACTORY_SLURM_ACCOUNT", account)
        found = ask("--no-job")[1]
        assert found["account and QOS"]["state"] == "failed"
        assert "Ask the site for: sacctmgr add user" in found["account and QOS"]["remedy"]
        assert named in found["account and QOS"]["remedy"]
        assert found["may submit"]["state"] == "skipped", "one culprit"
    site.enforced = "none"
    site.scontrol(PARTITION.format(groups="ALL", accounts="ALL", state="UP"))
    assert ask("--no-job")[1]["account and QOS"]["state"] == "ok"


@pytest.mark.parametrize(("number", "why"), [(errno.EDQUOT, "quota is used up"), (errno.ENOSPC, "it is full")])
def test_a_quota_that_is_used_up(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch, number: int, why: str) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    found = ask("--no-job")[1]
    assert why in found["room in run_dir"]["message"]
    assert why in found["room in state_dir"]["message"]


def test_too_little_room(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.doctor.local.LEAST_FOR_JOBS", 2**60)
    assert "GB left" in ask("--no-job")[1]["room in run_dir"]["message"]


def test_folders_keys_and_database(
    site: Site, ask: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"x" * 32)
    key.chmod(0o644)
    monkeypatch.setenv("AI_FACTORY_KEY_FILE", str(key))
    monkeypatch.setenv("AI_FACTORY_API_ADMIN_KEY_FILE", str(key))
    monkeypatch.setenv("AI_FACTORY_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")
    monkeypatch.setenv("AI_FACTORY_RUN_DIR", "/proc/nowhere")
    (tmp_path / "recipes" / "simple" / "bad.yaml").write_text("name: 1\n")
    code, found = ask("--no-job")
    assert code == 1
    for name, remedy in {
        "key file": "chmod 600", "administrator's key": "chmod 600",
        "run_dir": "Set run_dir", "recipes": "recipes validate",
    }.items():  # fmt: skip
        assert (found[name]["state"], remedy in found[name]["remedy"]) == ("failed", True), name
    assert stat.S_IMODE(key.stat().st_mode) == 0o644


def test_a_network_file_system_under_sqlite(site: Site, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.doctor.local.file_system", lambda _: "nfs4")
    _, found = ask("--no-job")
    assert "nfs4" in found["state_dir"]["message"]
    assert "local disk" in found["state_dir"]["remedy"]


@pytest.mark.parametrize("mode", [0o775, 0o707, 0o1777])
def test_folders_that_others_may_write_to(site: Site, ask: Any, home: Path, mode: int) -> None:
    state = home / ".local/state/ai-factory"
    for folder in (site.run_dir, state):
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
        code, checks = ask("--no-job")
        found = checks["only this user writes"]
        assert (code, found["state"], found["remedy"]) == (1, "failed", "Run: ai-factory secure")
        folder.chmod(0o700)
    site.run_dir.chmod(0o755)
    assert ask("--no-job")[1]["only this user writes"]["state"] == "ok"
    _, found = ask("--no-job")
    assert {found[name]["state"] for name in ("run_dir", "state_dir")} == {"ok"}


def test_checks_need_one_another_and_none_breaks_the_others() -> None:
    def fail() -> str:
        raise CheckFailedError("broken", "Mend it.")

    def skip() -> str:
        raise SkippedError("not here")

    checks = [
        Check("a", fail), Check("b", lambda: "never", needs=("a",)), Check("c", skip), Check("d", lambda: str(1 // 0)),
        Check("e", lambda: "fine"), Check("f", lambda: "never", needs=("e", "c")),
    ]  # fmt: skip
    assert [(r.name, r.state) for r in results(checks)] == [
        ("a", State.FAILED), ("b", State.SKIPPED), ("c", State.SKIPPED), ("d", State.FAILED), ("e", State.OK),
        ("f", State.SKIPPED),
    ]  # fmt: skip


def others(site: Site, home: Path) -> None:
    """Have squeue list a job of this installation, three of another, and what is of none."""
    with closing(sqlite3.connect(home / ".local/state/ai-factory/ai-factory.db")) as database:
        ((own,),) = database.execute("SELECT id FROM installation").fetchall()
    site.jobs(
        job("11", "RUNNING", j="af-k3x9pq-chat1-0-1", k="chat"),
        job("12", "PENDING", j="af-k3x9pq-chat1-1-1", k="chat"),
        job("13", "COMPLETING", j="af-k3x9pq-chat1-2-1", k="chat"),
        job("14", "RUNNING", j=f"af-{own}-chat2-0-1", k="mine"),
        job("15", "RUNNING", j="af-image-abc-xyz", k="image"),
        job("16", "RUNNING", j="af-doctor-abc"),
        job("17", "RUNNING", j="my | job"),
        job("18", "RUNNING", j="af-k3x9pq"),
    )


def test_jobs_of_an_installation_that_left_traces_here(site: Site, ask: Any, home: Path) -> None:
    others(site, home)
    (site.run_dir / "k3x9pq" / "chat1" / "af-k3x9pq-chat1-0-1").mkdir(parents=True)
    code, found = ask("--no-job")
    check = found["other installations"]
    assert (code, check["state"]) == (1, "failed")
    assert check["message"] == "2 jobs of installation k3x9pq (11 chat, 12 chat)"
    assert "docs/operation.md" in check["remedy"]
    assert check["remedy"].endswith("ai-factory adopt --cancel k3x9pq")


def test_jobs_of_an_installation_elsewhere_are_told_and_no_failure(site: Site, ask: Any, home: Path) -> None:
    others(site, home)
    code, found = ask("--no-job")
    check = found["other installations"]
    assert (code, check["state"]) == (0, "ok")
    assert check["message"].startswith("2 jobs of installation k3x9pq (11 chat, 12 chat); neither state_dir nor")


def test_very_many_jobs_are_counted(site: Site, ask: Any) -> None:
    site.jobs(*(job(str(n), "RUNNING", j=f"af-k3x9pq-chat1-{n}-1", k="chat") for n in range(1, 201)))
    message = ask("--no-job")[1]["other installations"]["message"]
    assert message.startswith("200 jobs of installation k3x9pq (1 chat, ")
    assert "10 chat and 190 more)" in message


def test_a_lost_database_and_its_jobs_are_found(site: Site, ask: Any, home: Path) -> None:
    others(site, home)
    state = home / ".local/state/ai-factory"
    for path in state.glob("ai-factory.db*"):
        path.unlink()
    (state / PLANS).write_text('{"desired": {"installation": "k3x9pq"}}\n')
    code, found = ask("--no-job")
    assert code == 1
    assert found["database"]["state"] == found["other installations"]["state"] == "failed"
    assert f"installation k3x9pq was run from here ({state / PLANS})" in found["database"]["message"]
    assert "ai-factory migrate --installation k3x9pq" in found["database"]["remedy"]
    assert "2 jobs of installation k3x9pq (11 chat, 12 chat)" in found["other installations"]["message"]


def test_nothing_is_said_of_other_installations_while_the_database_is_away(
    site: Site, ask: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others(site, home)
    monkeypatch.setenv("AI_FACTORY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert ask("--no-job")[1]["other installations"]["state"] == "skipped"

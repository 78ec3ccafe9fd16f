"""Whole jobs without a container: the shipped bundle as Slurm runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.request import urlopen

import pytest

from api.contract.job.parameters import Parameters, SecretFiles
from api.contract.job.private import open_regular
from controller.bundle import launch_script
from controller.wrapper import ports
from controller.wrapper.report import FailedError
from controller.wrapper.sandbox import environment
from controller.wrapper.signals import Signals, _age

from .jobs import ENGINE, Job, alive, until

PORT = {"runtime": "port"}

HOSTILE = {
    "QUOTES": "a'b\"c`d",
    "SUBSTITUTION": "$(touch CANARY) `touch CANARY` ${PATH} $HOME",
    "NEWLINES": '1\n"; touch CANARY; "\n\n',
    "COMMAS": "a,b=c,INJECTED=1",
    "UNICODE": "žluťoučký kůň 🦄 \u202e",
    "EMPTY": "",
    "BACKSLASHES": "\\n\\\\ \\",
    "BLANKS": "  \t x \r ",
    "FUNCTION": "() { :;}; touch CANARY",
    "LONG": "y" * 100_000,
}

ECHO = "import json, os, sys; json.dump([dict(os.environ), sys.argv[1:]], sys.stdout)"


def dummy(python: str, *arguments: str) -> list[object]:
    return [python, str(ENGINE), "--host", "127.0.0.1", "--port", [PORT], *arguments]


def trap(python: str, body: str) -> list[str]:
    return [python, "-c", f"import os, signal, subprocess, sys, time\n{body}"]


def test_runs_an_engine_from_claim_to_serving_to_its_end(job: Job, python: str) -> None:
    job.write(command=dummy(python, "--model", "m", "--startup-delay", "2.5"), listens=True)
    job.start()
    starting = job.until_step("loading")
    assert starting["detail"]
    serving = job.until_step("serving")
    assert urlopen(f"http://127.0.0.1:{serving['port']}/health").status == 200
    assert job.read("claim")["job_id"] == 77
    job.send(signal.SIGTERM)
    assert job.wait() == 0
    assert job.state["step"] == "draining"
    assert (job.exit["code"], job.exit["reason"]) == (0, "Terminated")
    assert "SIGTERM" in job.exit["message"]
    assert sorted(path.name for path in job.folder.iterdir()) == [
        "claim", "exit.json", "files", "state.json", "stderr.log", "stdout.log",
    ]  # fmt: skip
    assert list(job.temporary.iterdir()) == []


def test_a_requeued_job_touches_nothing(job: Job) -> None:
    job.write(command=["true"])
    assert job.run(SLURM_RESTART_COUNT="1") == 0
    assert sorted(path.name for path in job.folder.iterdir()) == ["params.json", "stderr.log", "stdout.log"]
    assert "requeued" in job.stderr


def test_a_job_that_lost_the_claim_touches_nothing(job: Job) -> None:
    job.write(command=["true"])
    (job.folder / "claim").write_text('{"revoked":true}')
    assert job.run() == 0
    assert sorted(path.name for path in job.folder.iterdir()) == ["claim", "params.json", "stderr.log", "stdout.log"]
    assert "claim" in job.stderr


def test_of_two_jobs_one_runs(job: Job, tmp_path: Path) -> None:
    job.write(command=["sh", "-c", f"echo ran >> {tmp_path}/ran; sleep 0.3"])
    first = job.start()
    second = job.start(SLURM_JOB_ID="78")
    assert first.wait() == 0
    assert second.wait() == 0
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_outside_of_slurm_it_refuses(job: Job) -> None:
    job.write(command=["true"])
    assert job.run(SLURM_JOB_ID="") == 2
    assert not (job.folder / "claim").exists()


def test_reports_how_the_engine_ended(job: Job, python: str) -> None:
    assert job.run_command(python, "-c", "raise ValueError('no such model')") == 1
    assert job.exit["reason"] == "EngineExited"
    assert job.exit["message"] == "ValueError: no such model"
    assert not (job.folder / "params.json").exists()


def test_the_engine_does_not_find_the_parameters_any_more(job: Job, python: str) -> None:
    """They hold the secret, and the job may be killed before it can clear anything away."""
    body = f"import os; print(os.path.exists({str(job.folder / 'params.json')!r}))"
    assert job.run_command(python, "-c", body) == 0
    assert "False" in (job.folder / "stdout.log").read_text()


def test_colours_do_not_hide_what_is_told(job: Job) -> None:
    job.run_command("sh", "-c", r"printf '\033[31mFATAL:\033[0m no image\nbye\n' >&2; exit 255")
    assert job.exit["message"] == "FATAL: no image"


def test_reports_a_signal(job: Job) -> None:
    assert job.run_command("sh", "-c", "kill -SEGV $$") == 128 + signal.SIGSEGV
    assert (job.exit["code"], job.exit["message"]) == (139, "killed by SIGSEGV\n")


def test_exit_codes_pass_through(job: Job) -> None:
    assert job.run_command("sh", "-c", "exit 42") == 42
    assert job.exit["code"] == 42


def test_a_command_that_is_not_there(job: Job) -> None:
    assert job.run_command("no-such-program") == 1
    assert job.exit["reason"] == "EngineExited"
    assert "no-such-program not found" in job.exit["message"]


@pytest.mark.parametrize(("content", "reason"), [("{", "ParametersBad"), ('{"version":9}', "ParametersTooNew")])
def test_reports_parameters_that_it_cannot_use(job: Job, content: str, reason: str) -> None:
    (job.folder / "params.json").write_text(content)
    assert job.run() == 1
    assert job.exit["reason"] == reason


def test_reports_a_missing_secret_without_starting_anything(job: Job, tmp_path: Path) -> None:
    code = job.run_command("touch", str(tmp_path / "ran"), environment_from={"HF_TOKEN": str(tmp_path / "absent")})
    assert code == 1
    assert job.exit["reason"] == "SecretMissing"
    assert str(tmp_path / "absent") in job.exit["message"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_secret_that_is_none_is_refused(job: Job, tmp_path: Path, mode: int) -> None:
    token = tmp_path / "token"
    token.write_text("hf_x")
    token.chmod(mode)
    assert job.run_command("touch", str(tmp_path / "ran"), environment_from={"HF_TOKEN": str(token)}) == 1
    assert (job.exit["reason"], job.exit["message"]) == (
        "SecretMissing",
        f"HF_TOKEN: others may read {token}: chmod 600 {token}",
    )
    assert not (tmp_path / "ran").exists()


def named_as_secret(job: Job, path: Path, **files: Any) -> str:
    """Have a job read a secret; return why it did not, nothing if it did."""
    rules = {"roots": [], "never": [], **files}
    if job.run_command("true", environment_from={"TOKEN": str(path)}, secret_files=rules) == 0:
        return ""
    assert job.exit["reason"] == "SecretMissing"
    return str(job.exit["message"])


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_what_is_no_file_is_no_secret_and_holds_nothing_up(job: Job, tmp_path: Path, kind: int) -> None:
    path = tmp_path / "token"
    path.mkdir(mode=0o700) if kind == stat.S_IFDIR else os.mknod(path, kind | 0o600)
    assert f"TOKEN: cannot read {path}: " in named_as_secret(job, path)


def test_what_is_the_installations_own_is_no_secret(make_job: Callable[[], Job], tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    key, elsewhere = state / "installation.key", tmp_path / "key"
    for path in (key, elsewhere):
        path.write_text("k3y")
        path.chmod(0o600)
    (tmp_path / "link").symlink_to(key)
    os.link(elsewhere, tmp_path / "twin")
    never = [str(state), str(elsewhere), str(tmp_path / "absent")]
    for path in (key, tmp_path / "link", state / ".." / "state" / key.name, elsewhere, tmp_path / "twin"):
        why = named_as_secret(make_job(), path, never=never)
        assert why == f"TOKEN: {path} is the installation's own, and never a service's secret"
    assert named_as_secret(make_job(), key) == "", "anybody else's"


def test_a_folder_that_is_swapped_meanwhile_leads_to_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at where a file lies and its opening."""
    state, named = tmp_path / "state", tmp_path / "named"
    for folder in (state, named):
        folder.mkdir()
        (folder / "token").write_text("k3y")
        (folder / "token").chmod(0o600)

    def swapped(path: Path) -> IO[bytes]:
        named.rename(tmp_path / "away")
        named.symlink_to(state)
        return open_regular(path)

    parameters = Parameters(
        command=("x",), environment_from={"TOKEN": str(named / "token")}, secret_files=SecretFiles(never=(str(state),))
    )
    assert environment.read_secrets(parameters) == {"TOKEN": "k3y"}
    monkeypatch.setattr(environment, "open_regular", swapped)
    with pytest.raises(FailedError, match="the installation's own"):
        environment.read_secrets(parameters)


def test_a_secret_leads_nowhere_else_by_a_link(make_job: Callable[[], Job], tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    for path in (tmp_path / "secrets" / "token", tmp_path / "outside"):
        path.write_text("x")
        path.chmod(0o600)
    (tmp_path / "roots").symlink_to("secrets")
    (tmp_path / "secrets" / "link").symlink_to("../outside")
    roots = [str(tmp_path / "roots")]
    assert named_as_secret(make_job(), tmp_path / "roots" / "token", roots=roots) == ""
    for path in (tmp_path / "secrets" / "link", tmp_path / "outside", tmp_path / "roots" / ".." / "outside"):
        assert f"leads to {tmp_path}/outside, which is not below {roots[0]}" in named_as_secret(
            make_job(), path, roots=roots
        )


@pytest.mark.parametrize("content", [b"a\0b", b"x" * 100_001])
def test_a_secret_that_no_variable_can_hold_is_refused(job: Job, tmp_path: Path, content: bytes) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)
    token.chmod(0o600)
    assert job.run_command("true", environment_from={"HF_TOKEN": str(token)}) == 1
    assert job.exit["reason"] == "SecretMissing"
    assert "is not text of at most 100000 characters" in job.exit["message"]


def test_values_arrive_byte_for_byte_and_nothing_is_evaluated(job: Job, python: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    values = {name: value.replace("CANARY", str(canary)) for name, value in HOSTILE.items()}
    token = tmp_path / "token"
    token.write_text("hf_$(touch CANARY)\n")
    token.chmod(0o600)
    code = job.run_command(
        python, "-I", "-c", ECHO, *values.values(), ["in ", {"runtime": "files"}, "/x"],
        environment=values,
        environment_from={"HF_TOKEN": str(token)},
        secret="0123abcd",
        secret_variable="VLLM_API_KEY",
    )  # fmt: skip
    assert code == 0, job.stderr
    environment, arguments = json.loads(job.stdout)
    assert {name: environment.get(name) for name in values} == values
    assert arguments == [*values.values(), f"in {job.folder}/files/x"]
    assert environment["HF_TOKEN"] == "hf_$(touch CANARY)"
    assert environment["VLLM_API_KEY"] == "0123abcd"
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,3"
    assert environment["ROCR_VISIBLE_DEVICES"] == "GPU-5a1d,GPU-77f0"
    assert [environment[name] for name in ("HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")] == [
        "1",
        "1",
        "0.1",
    ]
    assert environment["SLURM_JOB_ID"] == "77"
    assert environment["AF_RECIPE_DIR"] == f"{job.folder}/files"
    assert {"PATH", "HOME", "LANG", "USER"} <= set(environment)
    assert "UNRELATED" not in environment
    assert not canary.exists()


def test_secrets_do_not_reach_the_exit_record(job: Job, python: str) -> None:
    job.run_command(
        python, "-c", "import os; raise ValueError(os.environ['KEY'])", secret="5ec2e7", secret_variable="KEY"
    )
    assert job.exit["message"] == "ValueError: ***"


def test_the_recipe_files_are_there(job: Job, python: str) -> None:
    code = job.run_command(python, [{"runtime": "files"}, "/hello.py"], files={"hello.py": "print('héllo')\n"})
    assert code == 0, job.stderr
    assert job.stdout == "héllo\n"


def test_a_taken_port_is_tried_again_with_another(job: Job, python: str) -> None:
    body = (
        "import pathlib, socket\n"
        "tries = pathlib.Path(os.environ['TRIES']); tried = tries.read_text().split() if tries.exists() else []\n"
        "tries.write_text(' '.join([*tried, sys.argv[1]]))\n"
        "if len(tried) < 2: raise OSError(98, 'Address already in use')\n"
        "server = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(30)"
    )
    tries = job.folder.parent / "tries"
    low = ports.pick("127.0.0.1", None, ())
    job.write(
        command=[*trap(python, body), [PORT]],
        listens=True,
        environment={"TRIES": str(tries)},
        port_range=[low, low + 4],
    )
    job.start()
    serving = job.until_step("serving")
    tried = tries.read_text().split()
    assert len(tried) == len(set(tried)) == 3
    assert serving["port"] == int(tried[-1])


def test_gives_up_after_five_ports(job: Job, python: str) -> None:
    body = "print('try', flush=True); raise OSError(98, 'Address already in use')"
    job.write(command=[*trap(python, body), [PORT]], listens=True)
    assert job.run() == 1
    assert job.exit["reason"] == "NoFreePort"
    assert job.stdout.count("try") == 5


def test_no_port_left_in_the_range(job: Job) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        job.write(command=["true"], listens=True, port_range=[port, port])
        assert job.run() == 1
    assert job.exit["reason"] == "NoFreePort"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_stop_it_passes_term_on(job: Job, python: str, number: signal.Signals) -> None:
    body = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); print('up', flush=True); time.sleep(30)"
    job.write(command=trap(python, body))
    job.start()
    until(lambda: "up" in job.stdout)
    job.send(number)
    assert job.wait() == 3
    assert job.exit["reason"] == "Terminated"
    assert number.name in job.exit["message"]


def test_a_lost_term_is_sent_again(job: Job, python: str) -> None:
    body = (
        "heard = []\n"
        "def on(*_):\n"
        "    heard.append(1)\n"
        "    if len(heard) == 2: sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, on); print('up', flush=True)\n"
        "while True: time.sleep(0.05)"
    )
    job.write(command=trap(python, body))
    job.start()
    until(lambda: "up" in job.stdout)
    began = time.monotonic()
    job.send(signal.SIGTERM)
    assert job.wait() == 0
    assert time.monotonic() - began > 1.5


def test_a_stubborn_engine_and_all_that_it_started_are_killed(job: Job, python: str) -> None:
    deaf = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); "
    body = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-c', {deaf + 'time.sleep(60)'!r}])\n"
        f"subprocess.Popen([sys.executable, '-c', {deaf + 'time.sleep(60)'!r}], start_new_session=True)\n"
        # an orphan in a session of its own
        f"subprocess.run(['sh', '-c', 'setsid \"$0\" -c \"$1\" &', sys.executable, {deaf + 'time.sleep(60)'!r}])\n"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    job.write(command=trap(python, body), stop_grace=0.3)
    job.start()
    pids = until(lambda: [int(pid) for pid in job.stdout.split()] if len(job.stdout.split()) == 4 else [])
    assert all(alive(pid) for pid in pids)
    job.send(signal.SIGTERM)
    assert job.wait() == 137
    assert not any(alive(pid) for pid in pids)
    assert (job.exit["code"], job.exit["reason"]) == (137, "Terminated")
    assert "killed" in job.exit["message"]


def test_what_an_engine_leaves_behind_is_ended(job: Job, python: str) -> None:
    body = "print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, flush=True)"
    job.write(command=trap(python, body))
    assert job.run() == 0
    assert not alive(int(job.stdout))


def test_an_engine_does_not_outlive_a_killed_wrapper(job: Job, python: str) -> None:
    job.write(command=trap(python, "print(os.getpid(), flush=True); time.sleep(60)"))
    job.start()
    pid = int(until(lambda: job.stdout))
    job.send(signal.SIGKILL)
    job.wait()
    until(lambda: not alive(pid))


def test_the_time_warning_is_remembered(job: Job, python: str) -> None:
    job.write(command=dummy(python), listens=True)
    job.start()
    job.until_step("serving")
    job.send(signal.SIGUSR1)
    until(lambda: job.state["detail"] == "time limit near")
    assert job.state["step"] == "serving"
    job.send(signal.SIGTERM)
    assert job.wait() == 0
    assert job.exit["reason"] == "TimeLimit"


def test_a_warning_that_no_time_limit_explains_is_an_order_to_end(job: Job, python: str) -> None:
    job.write(command=dummy(python), listens=True, warned_after=3600.0)
    job.start()
    job.until_step("serving")
    job.send(signal.SIGUSR1)
    assert job.wait() == 0
    assert job.state["told_to_end_at"] is not None
    assert job.exit["reason"] == "Terminated"


def test_it_counts_from_the_jobs_start_which_was_before_the_prologue(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < _age() < time.clock_gettime(time.CLOCK_BOOTTIME)
    heard = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    before |= {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGCHLD)}
    try:
        for age in (150.0, 50.0):
            monkeypatch.setattr("controller.wrapper.signals._age", lambda age=age: age)
            signals = Signals()
            signals.expect_warning_after(100.0)
            signal.raise_signal(signal.SIGUSR1)
            heard.append((signals.warned, signals.stop))
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert heard == [(True, None), (False, signal.SIGUSR1)]


def test_stopped_while_waiting_for_an_image(job: Job, tmp_path: Path) -> None:
    cache = tmp_path / "images"
    fake = tmp_path / "apptainer"
    fake.write_text("#!/bin/sh\necho building $$\nexec sleep 60\n")
    fake.chmod(0o755)
    job.write(command=["x"], image={"source": None, "definition": "X"}, image_cache=str(cache), apptainer=str(fake))
    job.start()
    job.until_step("image")
    until(lambda: "building" in job.stdout)
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    assert job.exit["reason"] == "Terminated"
    assert not alive(int(job.stdout.split()[1]))


def test_a_read_only_folder_leaves_no_engine_unsupervised(job: Job, python: str) -> None:
    """As root nothing is read-only; a folder that vanishes fails alike."""
    job.write(command=trap(python, "print(os.getpid(), flush=True); time.sleep(60)"))
    job.start()
    pid = int(until(lambda: job.stdout))
    elsewhere = job.folder.with_name("gone")
    job.folder.rename(elsewhere)
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    assert not alive(pid)
    assert (elsewhere / "stderr.log").read_text().count("cannot write") == 1
    elsewhere.rename(job.folder)


def test_scratch_of_a_killed_wrapper_is_removed_by_the_next(make_job: Callable[[], Job], python: str) -> None:
    killed, following = make_job(), make_job()
    killed.write(command=trap(python, "print('up', flush=True); time.sleep(60)"))
    killed.start()
    until(lambda: killed.stdout)
    following.temporary = killed.temporary
    following.run_command("true")
    assert len(list(killed.temporary.iterdir())) == 1, "still in use"
    killed.send(signal.SIGKILL)
    killed.wait()
    [left] = killed.temporary.iterdir()
    patched = make_job()
    patched.temporary = killed.temporary
    patched.run_command("true")
    assert left.exists(), "too young to be taken for an orphan"


class TestLaunchScript:
    def start(self, job: Job, python: str, **environment: str) -> None:
        """As slurmd does: a copy elsewhere, its arguments, and no PATH."""
        script = job.temporary / "slurm_script"
        script.write_text(launch_script())
        argv = ["/bin/bash", str(script), str(job.folder), str(job.wrapper), python]
        job.start(argv=argv, **environment)

    def test_becomes_the_wrapper(self, job: Job, python: str) -> None:
        job.write(command=["sh", "-c", "echo up; exec sleep 60"])
        self.start(job, python, PATH="")
        until(lambda: "up" in job.stdout)
        assert job.process is not None
        assert b"wrapper-" in Path(f"/proc/{job.process.pid}/cmdline").read_bytes()
        job.send(signal.SIGTERM)
        assert job.wait() == 143
        assert job.exit["reason"] == "Terminated"

    def test_the_prologue_prepares_the_job(self, job: Job) -> None:
        tools = job.folder.parent / "tools"
        tools.mkdir()
        (tools / "site-python").symlink_to(os.path.realpath(sys.executable))
        (job.folder / "prologue.sh").write_text(f"set -- a b\nPATH=$PATH:{tools}\necho prologue\n")
        job.write(command=["echo", "engine"])
        self.start(job, "site-python")
        assert job.wait() == 0, job.stderr
        assert job.stdout == "prologue\nengine\n"

    @pytest.mark.parametrize("last", ["exit 3", "(exit 3)", "set -e; (exit 3); true", "return 3"])
    def test_a_failing_prologue_is_reported(self, job: Job, python: str, last: str) -> None:
        (job.folder / "prologue.sh").write_text(f"echo 'module: command not found' >&2\n{last}\n")
        job.write(command=["echo", "engine"])
        self.start(job, python)
        assert job.wait() == 1
        assert job.exit["reason"] == "PrologueFailed"
        assert "ended with 3" in job.exit["message"]
        assert "module: command not found" in job.exit["message"]
        assert job.stdout == ""

    def test_module_comes_from_what_login_shells_read(self, job: Job, python: str, tmp_path: Path) -> None:
        """As under systemd, where no login shell has made it. What the profile sets beside does no harm."""
        site, profile = tmp_path / "site", tmp_path / "profile"
        site.mkdir()
        profile.write_text(
            "declare -A af_site=([bin]=" + str(site) + ")\n"
            'module() { [ "$1" = load ] && PATH=${af_site[bin]}:$PATH; }\n'
            "echo welcome; umask 077; PATH=/sbin:/bin; false\n"
        )
        (site / "engine").write_text("#!/bin/sh\necho engine; umask\n")
        (site / "engine").chmod(0o755)
        (job.folder / "prologue.sh").write_text("module load apptainer\n")
        job.write(command=["engine"])
        script = job.temporary / "slurm_script"
        script.write_text(launch_script().replace("/etc/profile", str(profile)))
        argv = ["/bin/bash", "-c", 'umask 022; exec bash "$@"', "bash", str(script), str(job.folder), str(job.wrapper)]
        job.start(argv=[*argv, python])
        assert job.wait() == 0, job.stderr
        assert (job.stdout, job.stderr.splitlines()[0]) == ("engine\n0022\n", "welcome")

    def test_a_module_that_is_there_is_the_one(self, job: Job, python: str) -> None:
        (job.folder / "prologue.sh").write_text("module load apptainer\n")
        job.write(command=["sh", "-c", "echo engine"])
        self.start(job, python, **{"BASH_FUNC_module%%": '() { echo "mine: $*"; }'})
        assert job.wait() == 0, job.stderr
        assert job.stdout == "mine: load apptainer\nengine\n"

    def test_a_requeued_job_does_not_even_run_the_prologue(self, job: Job, python: str) -> None:
        (job.folder / "prologue.sh").write_text("echo prologue\n")
        job.write(command=["echo", "engine"])
        self.start(job, python, SLURM_RESTART_COUNT="2")
        assert job.wait() == 0
        assert job.stdout == ""
        assert not (job.folder / "claim").exists()

    def test_an_early_time_warning_does_no_harm(self, job: Job, python: str) -> None:
        (job.folder / "prologue.sh").write_text("echo prologue\nsleep 0.3\necho done\n")
        job.write(command=["echo", "engine"])
        self.start(job, python)
        until(lambda: "prologue" in job.stdout)
        job.send(signal.SIGUSR1)
        assert job.wait() == 0
        assert job.stdout == "prologue\ndone\nengine\n"

    def test_stopped_in_the_prologue_no_engine_starts(self, job: Job, python: str, tmp_path: Path) -> None:
        go = tmp_path / "go"
        (job.folder / "prologue.sh").write_text(f"echo prologue\nuntil [ -e {go} ]; do sleep 0.05; done\n")
        job.write(command=["echo", "engine"])
        self.start(job, python)
        until(lambda: "prologue" in job.stdout)
        job.send(signal.SIGTERM)
        go.touch()
        assert job.wait() == 143
        assert job.stdout == "prologue\n"
        assert not (job.folder / "claim").exists()

"""The demo's commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from api.cli.terminal.text import visible
from deploy.demo import install, server, service
from deploy.demo.places import (
    DEFAULT_PORT,
    LOCAL,
    PROGRAM,
    QUESTION,
    ROOT,
    SCRIPTS,
    SERVICE,
    Choices,
    Demo,
    check_place,
    choices,
    write_config,
)
from deploy.demo.progress import Board
from deploy.demo.trouble import Trouble

USAGE = "usage: demo.py up | down | clean"


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    commands = {"up": up, "down": down, "clean": clean}
    if len(arguments) != 1 or arguments[0] not in commands:
        print(USAGE, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return commands[arguments[0]](choices())
    except Trouble as trouble:
        print(f"\n{visible(trouble.text)}", file=sys.stderr)
        _tell_what_runs()
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        _tell_what_runs()
        return 130


def _tell_what_runs() -> None:
    """Say what goes on though the demo has ended, and how to stop it."""
    left = sorted({path.stem.partition("-")[0] for path in (Demo.slurm / "run").glob("*.pid") if _lives(path)})
    left += ["API and controller"] if server.find() else []
    left += ["its job on Slurm"] if Demo.existing and (Demo.state / "ai-factory.db").exists() else []
    if left:
        print(f"  left: {', '.join(left)}, which may still run; `make demo-down` stops them", file=sys.stderr)


def _lives(pid_file: Path) -> bool:
    try:
        return Path("/proc", pid_file.read_text().strip() or "none").exists()
    except OSError:
        return False


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def up(wanted: Choices) -> int:
    """Bring everything up, ask one question, and serve until Ctrl-C."""
    check_place()
    Demo.select(existing=wanted.existing)
    install.check_machine(wanted.existing)
    started = time.monotonic()
    for folder in (Demo.state, Demo.run, Demo.log, Demo.cache):
        folder.mkdir(parents=True, exist_ok=True)
    running: server.Server | None = None
    try:
        with Board() as board:
            install.install(board, wanted.existing)
            write_config(wanted)
            with board.step("API and controller"):
                running = server.find() or server.start(wanted)
            with service.Api(running) as api:
                service_id, known = service.declare(api)
                board.say(
                    f"  the service '{SERVICE}' has the id {service_id}{' and is there already' if known else ''}"
                )
                service.follow(api, board, service_id, wanted.timeout)
                with board.step("Question answered"):
                    answer = service.ask(api, service_id)
        print(f"\n  Q: {QUESTION}\n  A: {visible(answer)}\n\n{time.monotonic() - started:.0f} s in all.", flush=True)
        if not wanted.once:
            _serve(running)
        return 0
    finally:
        if running and running.ours:
            server.stop(running)


def openai_line(url: str) -> str:
    """Return one line of shell, for the project's folder, that asks the model with OpenAI's library.

    The library is put beside the demo: the project's programs do not need it.
    """
    folder, python = os.path.relpath(Demo.folder / "openai", ROOT), os.path.relpath(PROGRAM.parent / "python", ROOT)
    pip = f"{python} -m pip" if (PROGRAM.parent / "pip").exists() else f"python3 -m pip --python {python}"
    asked = (
        'from openai import OpenAI; question = [{"role": "user", "content": "Why is the sky blue?"}]; '
        f'print(OpenAI().chat.completions.create(model="{SERVICE}", messages=question).choices[0].message.content)'
    )
    return (
        f"[ -d {folder} ] || {pip} install -q --target {folder} openai; "
        f"OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=unused PYTHONPATH={folder} {python} -c '{asked}'"
    )


def _serve(running: server.Server) -> None:
    program = os.path.relpath(PROGRAM, ROOT)
    config = os.path.relpath(Demo.config, ROOT)
    cli = f"{program} --config {config}" + (f" --server {running.url}" if running.port != DEFAULT_PORT else "")
    view = "squeue" if Demo.existing else f". {os.path.relpath(Demo.slurm, ROOT)}/env; squeue"
    print(
        f"""
Try next, in another terminal in {ROOT}:
  the API's page   {running.url}/docs
  all services     curl {running.url}/api/v1/services
  ask              curl {running.url}/api/v1/vllm/{SERVICE}/prompt -H 'content-type: application/json' \\
                        -d '{{"prompt": "Why is the sky blue?", "max_tokens": 60}}'
  the same, short  {cli} services list
                   {cli} prompt {SERVICE} 'Why is the sky blue?'
                   {cli} logs {SERVICE} --tail 20
  Slurm's view     {view}
  end everything   make demo-down

Ctrl-C stops API and controller. Ask with OpenAI's library, in one line:
{openai_line(running.url)}""",
        flush=True,
    )
    try:
        while running.alive():
            time.sleep(0.5)
    except KeyboardInterrupt:
        what = "Stopping API and controller" if running.ours else "They were started from another terminal and go on"
        print(f"\n{what}. The model keeps running on Slurm: `make demo` takes it up again, `make demo-down` stops all.")
        return
    time.sleep(1)
    if not Demo.server.exists():  # `make demo-down` in another terminal
        print("API and controller have been stopped.")
        return
    raise Trouble("API and controller have ended", log=server.log_file(), advice="read the log, then `make demo` again")


def down(wanted: Choices) -> int:
    """Stop the demo's services, API, controller and private Slurm; nothing else."""
    done = False
    for existing in (False, True):
        Demo.select(existing=existing)
        if Demo.folder.exists():
            done |= _down_existing(wanted) if existing else _down_private()
    if not done:
        print("nothing runs")
    return 0


def _down_private() -> bool:
    """Stop all of the private cluster; return whether there was anything."""
    running = server.find()
    if not running and not any((Demo.slurm / "run").glob("*.pid")):
        return False
    with Board() as board:
        try:
            if running:
                with service.Api(running) as api:
                    service.end_all(api, board, only=None)
        except Trouble as trouble:
            board.say(trouble.text)  # its jobs end with the cluster
        finally:
            if running:
                with board.step("API and controller stopped"):
                    server.stop(running)
        with board.step("Slurm stopped"):
            _stop_slurm()
    return True


def _down_existing(wanted: Choices) -> bool:
    """Stop the demo's service on somebody else's Slurm; return whether there was anything."""
    running = server.find()
    if not running and not (Demo.state / "ai-factory.db").exists():
        return False
    with Board() as board:
        if not running:  # only the controller knows which jobs are the demo's
            with board.step("API and controller"):
                running = server.start(wanted)
        try:
            with service.Api(running) as api:
                service.end_all(api, board, only=SERVICE)
        finally:
            with board.step("API and controller stopped"):
                server.stop(running)
    return True


def _stop_slurm() -> None:
    environment = os.environ | {"SLURM_CONF": str(Demo.slurm / "etc" / "slurm.conf")}
    # nothing may come back at the next start; with Slurm down there is nothing to cancel
    if (Demo.slurm / "run" / "slurmctld.pid").exists():
        for state in ("PENDING", "RUNNING", "SUSPENDED"):
            _quietly(["scancel", "--quiet", f"--state={state}"], environment)
        end = time.monotonic() + 10
        while time.monotonic() < end and _quietly(["squeue", "--noheader"], environment).strip():
            time.sleep(0.3)
    done = subprocess.run([SCRIPTS / "slurm-down", Demo.slurm], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Trouble(done.stderr.strip())


def _quietly(command: list[str], environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=15)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def clean(wanted: Choices) -> int:
    """Stop all of it and remove .local."""
    down(wanted)
    if LOCAL.exists():
        shutil.rmtree(LOCAL)
    return 0

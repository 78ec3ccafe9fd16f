"""Stands before one of Slurm's commands: writes the call down, and tells the truth unless a file says how to lie.

`liar.py COMMAND REAL ARGUMENT…`, started by a script in the folder that it lies in. COMMAND.lie there names the lie;
COMMAND.yesterday is the answer that `old` prints.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NAMED_BY = {"sbatch": "--job-name=", "scancel": "--name="}
MARK = re.compile(r"\x1f\w+\x1f")
PLACE = "\0"
"""Where the mark of a recorded answer was: each question brings one of its own."""
LATE = 15.0
"""Seconds."""
KEPT = 60.0
"""Seconds that answers are remembered."""


def main(command: str, real: str, arguments: list[str]) -> int:
    if command in NAMED_BY:
        write_down(command, arguments)
    lie = read(f"{command}.lie")
    mark = next((match[0] for match in map(MARK.search, arguments) if match), PLACE)
    if lie == "nothing done":
        return 0
    code, said, error = call([real, *arguments], LATE if lie == "late, then done" else 0)
    if code == 0:
        kill_slurmctld(command)
        if not lie:
            remember(command, said.replace(mark, PLACE))
    if lie == "done, then late":
        time.sleep(LATE)
    sys.stderr.write(error)
    sys.stdout.write(told(lie, command, said, mark))
    return 1 if lie == "done, but exit 1" else code


def told(lie: str, command: str, said: str, mark: str) -> str:
    """Return what is printed in place of what the real command said."""
    if lie == "old":
        return read(f"{command}.yesterday").replace(PLACE, mark)
    if lie == "half of the lines":
        lines = said.splitlines(keepends=True)
        return "".join(lines[: len(lines) // 2])
    if lie == "cut in mid-line":
        lines = said.splitlines(keepends=True)
        return "".join(lines[: len(lines) // 2]) + "".join(line[:9] for line in lines[len(lines) // 2 :][:1])
    if lie == "empty":
        return "".join(line for line in said.splitlines(keepends=True)[:1] if mark in line)
    return "" if lie == "no word" else said


def call(argv: list[str], pause: float) -> tuple[int, str, str]:
    """Run the real command, perhaps after a pause. A late one is done even if its caller has given up by then."""
    if pause:
        late = FOLDER / f"late.{os.getpid()}.{time.time_ns()}"
        argv = ["/bin/sh", "-c", f': >"$0"; sleep {pause}; "$@"; code=$?; rm "$0"; exit $code', str(late), *argv]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, start_new_session=bool(pause))
    return done.returncode, done.stdout, done.stderr


def write_down(command: str, arguments: list[str]) -> None:
    option = NAMED_BY[command]
    name = next((word.removeprefix(option) for word in reversed(arguments) if word.startswith(option)), "")
    with (FOLDER / "commands").open("a") as calls:
        calls.write(f"{time.time():.6f} {os.getppid()} {command} {name}\n")


def remember(command: str, said: str) -> None:
    answers = FOLDER / f"{command}.answers"
    now = time.time_ns()
    draft = FOLDER / f".{command}.{os.getpid()}"
    draft.write_text(said)
    draft.rename(answers / str(now))
    for answer in answers.iterdir():
        if int(answer.name) < now - KEPT * 1e9:
            answer.unlink(missing_ok=True)


def kill_slurmctld(command: str) -> None:
    mark = FOLDER / f"kill-after-{command}"
    if pid := read(mark.name):
        mark.unlink(missing_ok=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def read(name: str) -> str:
    with contextlib.suppress(FileNotFoundError):
        return (FOLDER / name).read_text()
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))

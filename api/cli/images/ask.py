"""The controller's own program, asked about images."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from api.cli.context import Context
from api.contract.exits import Exit


def ask(context: Context, *arguments: str) -> tuple[Exit, Any]:
    """Have the controller's program answer; return its exit code and, read from JSON, its answer, `None` without one.

    What it tells people goes to standard error. Ctrl-C is passed on, and waited for: an image that is being made ends
    with all that belongs to it.
    """
    command = [sys.executable, "-m", "controller", "images", *arguments]
    with subprocess.Popen(
        command, env=context.child_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            answer = process.stdout.read()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    code = Exit(process.returncode) if process.returncode in set(Exit) else Exit.FAILED
    return code, json.loads(answer) if answer else None

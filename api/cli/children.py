"""The controller's own program, asked."""

from __future__ import annotations

import subprocess
import sys

from api.cli.context import Context
from api.contract.exits import Exit


def ask_controller(context: Context, *arguments: str) -> Exit:
    """Have the controller's own program answer something; it writes the result itself."""
    command = [sys.executable, "-m", "controller", *arguments]
    ended = subprocess.run(command, env=context.child_environment(), stdin=subprocess.DEVNULL, check=False)
    return Exit(ended.returncode) if ended.returncode in set(Exit) else Exit.FAILED

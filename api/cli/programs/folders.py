"""Whether the folders of the programs can be written, before any of them starts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from api.cli.errors import CliError
from api.contract.exits import Exit
from api.contract.job.private import make_folder
from api.contract.settings import Settings


def require_writable(settings: Settings) -> None:
    """Make state_dir and run_dir, and write in them; raises `CliError` (set-up) with the one where that fails."""
    for name, folder in (("state_dir", settings.state_dir), ("run_dir", settings.run_dir)):
        try:
            make_folder(folder)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".written-"):
                pass
        except OSError as error:
            raise CliError(
                f"{name} ({folder}) can't be written: {error.strerror}{_where(error, folder)}. Nothing was started. "
                f"Set {name} to a folder that this user (uid {os.getuid()}) may write, or have this one given to it.",
                Exit.SETUP,
            ) from error


def _where(error: OSError, folder: Path) -> str:
    """Name what is in the way, where it is a folder above."""
    at = Path(str(error.filename or folder))
    return f" ({at})" if at in folder.parents else ""

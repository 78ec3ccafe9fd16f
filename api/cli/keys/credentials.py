"""`ai-factory gateway credentials`: what opens doors from another host, without the installation's key."""

from __future__ import annotations

import os
from pathlib import Path

from api.cli.context import Context
from api.cli.errors import CliError
from api.contract.certificates import Authority
from api.contract.configuration import expanded
from api.contract.exits import Exit
from api.contract.identity import read_keys


def credentials(context: Context) -> Exit:
    """Write them for each of the installation's keys."""
    folder = expanded(context.arguments.folder)
    authorities = [Authority(key) for key in read_keys(context.settings.key_file)]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _refuse_others(folder)
        for authority in authorities:
            for name, text in _files(authority).items():
                _write(folder / name, text)
                context.console.line(str(folder / name))
    except OSError as error:
        raise CliError(f"{folder} can't be written: {error.strerror}.") from error
    context.console.note("Whoever has the client's key can ask every engine. Keep it as a secret.")
    return Exit.OK


def _files(authority: Authority) -> dict[str, str]:
    """Return what is written of one key; the names say which, and `door` in the database names the same."""
    own = authority.client("gateway")
    return {
        f"{authority.id}.authority.pem": authority.certificate,
        f"{authority.id}.client.pem": own.certificate,
        f"{authority.id}.client.key": own.key,
    }


def _refuse_others(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise CliError(f"Others may write to {folder}. Name a folder of yours, of mode 0700.")


def _write(path: Path, text: str) -> None:
    """Write a whole file or none, for its owner alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise

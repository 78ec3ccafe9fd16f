"""Names of things: ids, services; the installation's key, and the secret that it gives to a token."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from api.contract.exits import Exit, ExitError
from api.contract.job.private import make_folder, open_regular

ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"
"""Easy to read and to type: no 0/o, 1/i/l, u."""
SERVICE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
KEY_BYTES = 32


class KeyFileError(ExitError):
    """The installation's key file is missing, unreadable, too open or of the wrong size."""

    code = Exit.SETUP


def new_id(length: int = 8) -> str:
    """Make a short random id."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def load_key(path: Path) -> bytes:
    """Read the installation's key, making it on first use; raises `KeyFileError`.

    It is linked into place, so that two programs starting at once agree on one key.
    """
    try:
        return _read_key(path)
    except FileNotFoundError:
        pass
    try:
        make_folder(path.parent)
        _make_key(path)
    except OSError as error:
        raise KeyFileError(f"The key file {path} can't be made: {error.strerror}.") from error
    return _read_key(path)


def secret(key: bytes, token: str) -> str:
    """Return the secret of an attempt: an HMAC of its token. Computed where it is needed, stored nowhere else."""
    return hmac.new(key, token.encode(), hashlib.sha256).hexdigest()


def _make_key(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{new_id()}")
    draft.touch(mode=0o600, exist_ok=False)
    try:
        draft.write_bytes(secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _read_key(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            mode, key = os.fstat(file.fileno()).st_mode, file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"The key file {path} can't be read: {error.strerror}.") from error
    if mode & 0o077:
        raise KeyFileError(f"The key file {path} can be read by others. Run: chmod 600 {path}")
    if len(key) < KEY_BYTES:
        raise KeyFileError(f"The key file {path} holds {len(key)} of {KEY_BYTES} bytes; restore it from a backup.")
    return key

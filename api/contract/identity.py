"""Names of things, ids and services; and the file of the installation's keys."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Sequence
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


class NoKeyFileError(KeyFileError):
    """There is none."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"There is no key file {path}: it is made when the API or a controller first starts.")


def new_id(length: int = 8) -> str:
    """Make a short random id."""
    number = secrets.randbelow(len(ALPHABET) ** length)
    letters = ""
    for _ in range(length):
        number, letter = divmod(number, len(ALPHABET))
        letters += ALPHABET[letter]
    return letters


def load_keys(path: Path) -> tuple[bytes, ...]:
    """Read the installation's keys, the newest first; the first one is made on first use. Raises `KeyFileError`.

    It is linked into place, so that two programs starting at once agree on one key.
    """
    try:
        return read_keys(path)
    except NoKeyFileError:
        pass
    try:
        make_folder(path.parent)
        _make_key(path)
    except OSError as error:
        raise KeyFileError(f"The key file {path} can't be made: {error.strerror}.") from error
    return read_keys(path)


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Read the installation's keys, the newest first; raises `KeyFileError`."""
    try:
        with open_regular(path) as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read()
    except FileNotFoundError as error:
        raise NoKeyFileError(path) from error
    except OSError as error:
        raise KeyFileError(f"The key file {path} can't be read: {error.strerror}.") from error
    if mode & 0o077:
        raise KeyFileError(f"The key file {path} can be read by others. Run: chmod 600 {path}")
    if not content or len(content) % KEY_BYTES:
        held = f"{len(content)} bytes, which are no keys of {KEY_BYTES} bytes"
        raise KeyFileError(f"The key file {path} holds {held}; restore it from a backup.")
    return keys_in(content)


def keys_in(content: bytes) -> tuple[bytes, ...]:
    """Return the keys that stand in a key file of this content."""
    return tuple(dict.fromkeys(content[start : start + KEY_BYTES] for start in range(0, len(content), KEY_BYTES)))


def change_keys(path: Path, change: Callable[[tuple[bytes, ...]], Sequence[bytes]]) -> tuple[bytes, ...]:
    """Replace the keys of a file by what `change` makes of them, all at once; return them. Raises `KeyFileError`."""
    path = path.resolve()
    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                raise KeyFileError(f"Another command has just changed the key file {path}. Look at it, and try again.")
            keys = tuple(change(read_keys(path)))
            draft = _draft(path, b"".join(keys))
            draft.replace(path)
    except FileNotFoundError as error:
        raise NoKeyFileError(path) from error
    except OSError as error:
        raise KeyFileError(f"The key file {path} can't be changed: {error.strerror}.") from error
    return keys


def new_key() -> bytes:
    """Make a key."""
    return secrets.token_bytes(KEY_BYTES)


def _make_key(path: Path) -> None:
    draft = _draft(path, new_key())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _draft(path: Path, content: bytes) -> Path:
    """Write a file beside `path`, for its owner alone; nothing of it is left if that fails."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{new_id()}")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft

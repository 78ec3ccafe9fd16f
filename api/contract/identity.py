"""Names of things: installation, services, tokens, and the secret that belongs to a token."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from api.contract.exits import Exit, ExitError

ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"
"""Easy to read and to type: no 0/o, 1/i/l, u."""
SERVICE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TOKEN = re.compile(
    r"af-(?P<installation>[0-9a-z]+)-(?P<service>[0-9a-zA-Z_]+)-(?P<replica>[0-9]+)-(?P<incarnation>[0-9]+)"
)
ANY_PREFIX = "af-"
"""What every token begins with, of whatever installation."""
KEY_BYTES = 32


class KeyFileError(ExitError):
    """The installation's key file is missing, unreadable, too open or of the wrong size."""

    code = Exit.SETUP


@dataclass(frozen=True, slots=True)
class Token:
    """The parts of a token, the unique name under which an attempt's job is submitted."""

    installation: str
    service: str
    replica: int
    incarnation: int

    def __str__(self) -> str:
        return f"{prefix(self.installation)}{self.service}-{self.replica}-{self.incarnation}"


def prefix(installation: str) -> str:
    """Return what every token of an installation begins with."""
    return f"{ANY_PREFIX}{installation}-"


def parse_token(text: str) -> Token | None:
    """Read a token; `None` if the text is none."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    return Token(match["installation"], match["service"], int(match["replica"]), int(match["incarnation"]))


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
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        mode = path.stat().st_mode
        key = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"The key file {path} can't be read: {error.strerror}.") from error
    if mode & 0o077:
        raise KeyFileError(f"The key file {path} can be read by others. Run: chmod 600 {path}")
    if len(key) < KEY_BYTES:
        raise KeyFileError(f"The key file {path} holds {len(key)} of {KEY_BYTES} bytes; restore it from a backup.")
    return key

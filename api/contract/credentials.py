"""What opens doors on a host that has not the installation's key: the files of `ai-factory gateway credentials`.

They are read again when their folder changes, as after a rotation; one that comes to be unreadable changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from api.contract.certificates import ClientKind
from api.contract.exits import Exit, ExitError
from api.contract.job.private import open_regular, require_private
from api.contract.job.tls import Credentials

AUTHORITY, CERTIFICATE, KEY = ".authority.pem", ".client.pem", ".client.key"
"""How the names of the files end, which begin with the id of the installation's key."""

log = logging.getLogger(__name__)


class CredentialsError(ExitError):
    """They can't be used; the message says what to do."""

    code = Exit.SETUP


class StoredCredentials:
    """The credentials of one folder, by the id of the key that they are of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._version: int | None = None
        self._known: Mapping[str, tuple[Credentials, str]] = {}

    def load(self) -> None:
        """Read them; raises `CredentialsError`."""
        self._version = self._changed_at()
        self._known = _read(self._folder)

    def secret(self, _: str) -> str | None:
        """Return `None`: engines without a door are asked with what only the installation's key gives."""
        return None

    def holds(self, key: str) -> bool:
        """Whether there are credentials of that key."""
        version = self._changed_at()
        if version != self._version:
            self._version = version
            try:
                self._known = _read(self._folder)
            except CredentialsError as error:
                log.warning("what is known of it so far is used: %s", error)
        return key in self._known

    def client(self, key: str, _: ClientKind) -> tuple[Credentials, str]:
        """Return what to show at doors made under a key, and the authority by which to know them."""
        return self._known[key]

    def _changed_at(self) -> int | None:
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return None


def _read(folder: Path) -> Mapping[str, tuple[Credentials, str]]:
    try:
        ids = [path.name.removesuffix(AUTHORITY) for path in folder.glob(f"*{AUTHORITY}")]
        known = {each: _read_one(folder / each) for each in ids}
    except OSError as error:
        raise CredentialsError(
            f"The credentials in {folder} (gateway.credentials) can't be used: {error.filename}: {error.strerror}."
        ) from error
    if not known:
        raise CredentialsError(
            f"There are no credentials in {folder} (gateway.credentials). Make them where the installation's key is: "
            "ai-factory gateway credentials FOLDER; and copy them, of mode 0600."
        )
    return known


def _read_one(stem: Path) -> tuple[Credentials, str]:
    """Read those of one key; raises `OSError`."""
    key = stem.with_name(stem.name + KEY)
    require_private(key)
    own = Credentials(certificate=_text(stem, CERTIFICATE), key=_text(stem, KEY))
    if key.stat().st_mode & 0o077:
        raise PermissionError(1, "others may read it. Run: chmod 600", str(key))
    return own, _text(stem, AUTHORITY)


def _text(stem: Path, ending: str) -> str:
    with open_regular(stem.with_name(stem.name + ending)) as file:
        return file.read().decode("ascii", errors="replace")

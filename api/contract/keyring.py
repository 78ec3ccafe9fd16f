"""The installation's keys in a running program: read again when their file changes, and what is made out of them."""

from __future__ import annotations

import hmac
import logging
import os
from pathlib import Path

from api.contract.certificates import Authority, ClientKind
from api.contract.doorless import secret_of
from api.contract.identity import KeyFileError, load_keys, read_keys
from api.contract.job.parameters import Door
from api.contract.job.tls import Credentials

log = logging.getLogger(__name__)

_Version = tuple[int, int, int]


class Keyring:
    """The keys of one file. A file that comes to be unreadable changes nothing: what was read before stands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: _Version | None = None
        self._keys: tuple[bytes, ...] = ()
        self._authorities: dict[str, Authority] = {}

    def load(self) -> None:
        """Read the file, making the first key where there is none; raises `KeyFileError`."""
        self._take(load_keys(self._path))
        self._version = _version(self._path)

    def newest(self) -> str | None:
        """Return the id of the key under which new doors are made; `None`: there is no key."""
        return next(iter(self._current()), None)

    def authorities(self) -> tuple[Authority, ...]:
        """Return those of all keys, the newest first."""
        return tuple(self._current().values())

    def authority(self, key: str) -> Authority | None:
        """Return the authority of a key by its id; `None`: the file does not hold it."""
        return self._current().get(key)

    def holds(self, key: str) -> bool:
        """Whether the file holds that key."""
        return key in self._current()

    def client(self, key: str, kind: ClientKind) -> tuple[Credentials, str]:
        """Return what to show at doors made under a key of the file, and the authority by which to know them."""
        authority = self._authorities[key]
        return authority.client(kind), authority.certificate

    def door(self, token: str, key: str) -> Door | None:
        """Return what an attempt's job needs to open its door; `None`: the file does not hold that key."""
        authority = self.authority(key)
        if authority is None:
            return None
        own = authority.door(token)
        return Door(certificate=own.certificate, key=own.key, authority=authority.certificate, id=authority.id)

    def secret(self, token: str) -> str | None:
        """Return the secret of an attempt without a door; `None`: there is no key."""
        self._current()
        return secret_of(self._keys, token) if self._keys else None

    def signing_keys(self) -> tuple[bytes, ...]:
        """Return those under which keys of people are signed, the newest first: nothing else follows from them."""
        self._current()
        return tuple(hmac.digest(key, b"signed keys of people", "sha256") for key in self._keys)

    def _current(self) -> dict[str, Authority]:
        version = _version(self._path)
        if version != self._version:
            self._version = version
            try:
                self._take(read_keys(self._path))
            except KeyFileError as error:
                log.warning("the key file can't be read again, the keys known so far are used: %s", error)
        return self._authorities

    def _take(self, keys: tuple[bytes, ...]) -> None:
        if keys != self._keys:
            known = dict(zip(self._keys, self._authorities.values(), strict=True))
            authorities = [known.get(key) or Authority(key) for key in keys]
            self._keys, self._authorities = keys, {authority.id: authority for authority in authorities}


def _version(path: Path) -> _Version | None:
    """Return what tells a file's content from what was in it before; `None`: it can't be looked at."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half of the time of Path.stat, at each request under a signed key
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size

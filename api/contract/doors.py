"""The way to an attempt's engine: through its job's door, which proves whose it is, or to a port of its own."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Protocol

from api.contract.certificates import ClientKind
from api.contract.job.sockets import notice_death
from api.contract.job.tls import HTTP, WATCH, Credentials, client_context, server_name

_DISPROOFS = (ssl.SSLCertVerificationError, ssl.SSLError)
"""Not their kinds, which say that the other side is slow, or has gone (`ssl.SSLWantReadError`, `ssl.SSLEOFError`)."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Opener(Protocol):
    """What opens doors: the installation's keys, or credentials that were made of them."""

    def secret(self, token: str, /) -> str | None:
        """Return what an engine without a door may ask for; `None`: that is not known."""

    def holds(self, key: str, /) -> bool:
        """Whether doors that were made under that key can be opened."""

    def client(self, key: str, kind: ClientKind, /) -> tuple[Credentials, str]:
        """Return what to show at doors made under a key, and the authority (PEM) by which to know them."""


class UnknownKeyError(Exception):
    """The door was made under a key that the key file does not hold; the message says what to do."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"its door was made under the key {key}, which the key file does not hold: put that key back into it, "
            "from a backup, or launch the service anew (ai-factory services restart)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How one attempt's engine is reached."""

    host: str
    port: int
    name: str | None = None
    """What the certificate of its door must say; `None`: there is no door."""
    http: ssl.SSLContext | None = None
    """For requests."""
    watch: ssl.SSLContext | None = None
    """For connections that the door itself keeps: see `WATCH`."""
    secret: str | None = None
    """What an engine without a door may ask for."""

    @property
    def has_door(self) -> bool:
        """Whether what answers there has proved to be this attempt's."""
        return self.name is not None

    @property
    def base_url(self) -> str:
        """The URL of the engine."""
        return base_url(self.host, self.port, has_door=self.has_door)

    async def open(self) -> Connection:
        """Open a connection for requests; raises `OSError`."""
        return await self._open(self.http)

    async def knock(self) -> None:
        """Wait until the engine accepts a connection; raises `OSError` if it does not.

        A door accepts them for itself, before its engine does: it says a byte to who watches, once that does.
        """
        reader, writer = await self._open(self.watch)
        try:
            if self.watch is not None and not await reader.read(1):
                raise ConnectionRefusedError("The engine has ended.")
        finally:
            writer.transport.abort()

    async def _open(self, context: ssl.SSLContext | None) -> Connection:
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=context, server_hostname=self.name)
        notice_death(writer.get_extra_info("socket"))
        return reader, writer


class Doors:
    """The ways to engines, for one kind of client. A context is made once for each key: that takes about a ms."""

    def __init__(self, opener: Opener, kind: ClientKind) -> None:
        self._opener = opener
        self._kind = kind
        self._contexts: dict[tuple[str, str], ssl.SSLContext] = {}

    def way(self, host: str, port: int, token: str, door: str | None) -> Way:
        """Return the way to an attempt, of which `door` names the key; raises `UnknownKeyError`."""
        if door is None:
            return Way(host=host, port=port, secret=self._opener.secret(token))
        if not self._opener.holds(door):
            raise UnknownKeyError(door)
        return Way(
            host=host,
            port=port,
            name=server_name(token),
            http=self._context(door, HTTP),
            watch=self._context(door, WATCH),
        )

    def _context(self, key: str, protocol: str) -> ssl.SSLContext:
        which = key, protocol
        if which not in self._contexts:
            own, authority = self._opener.client(key, self._kind)
            self._contexts[which] = client_context(own, authority, protocol)
        return self._contexts[which]


def base_url(host: str, port: int, *, has_door: bool) -> str:
    """Return the URL of an engine."""
    scheme = "https" if has_door else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_of_another(error: BaseException) -> bool:
    """Whether a connection failed since whoever listens there is no door, or another attempt's."""
    cause: BaseException | None = error
    while cause is not None and type(cause) not in _DISPROOFS:
        cause = cause.__cause__ or cause.__context__
    return cause is not None

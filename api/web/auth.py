"""Who may ask.

Creating a service runs containers as the operator, so on a login node a loopback address protects nothing.
Three things open the guard:

- a key, from anywhere: `Authorization: Bearer KEY`; it opens what its scopes name (`api.web.principal`). Who sends one
  is judged by it, whoever they are;
- the administrator's key, in the same way: it opens everything;
- being the operator: a connection from this host whose other end is a socket of our own uid; or one of
  `api.local_users`, who may do what is said there.

With `api.require_key` the last counts on the API's Unix socket alone: whoever reaches a relay of the operator's user
(`ssh -L`, a notebook server's proxy) comes to us by TCP as the operator.

It must hold against web pages too, for the operator's browser has the operator's uid. So without the key,
a request's `Host` must be the address that it came to, a loopback address or a name of this host (a page that rebinds
its own name to us can't choose that), its `Origin`, if it has one, must be that same host, and its `Sec-Fetch-Site`
must not name another site (browsers send both for pages of others). Behind a proxy that changes `Host`, or for pages of
other origins, use the key.

Routes marked `OPEN` answer everybody; what they tell, they may make depend on `is_known`.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Scope

from api.contract.exits import Exit, ExitError
from api.contract.job.private import open_regular
from api.contract.peers import Peer
from api.contract.served_tls import require_tls
from api.contract.settings import ApiSettings
from api.web import signed_key
from api.web.errors import ApiError
from api.web.key_secret import PREFIX
from api.web.keys import Keys
from api.web.local_users import local_users
from api.web.peers import STATE_KEY
from api.web.principal import OPERATOR, KeyScope, Principal, verdict
from api.web.serving import STATE_KEY as SERVING

OPEN = {"open": True}
"""The `opt` of routes that answer everybody."""
INFER = {"scope": KeyScope.INFER}
"""The `opt` of routes that ask models; a key may come as `x-api-key` there, as Anthropic's clients send it."""
KEY_ONLY = {"scope": KeyScope.INFER, "key_only": True}
"""The `opt` of routes that answer with what others have written: to be the operator opens nothing there, since his
browser is it too."""
ADMIN = {"scope": KeyScope.ADMIN}
"""The `opt` of routes about keys. All others take `read` or `write`, as their method says."""

ANY = {"scope": None}
"""The `opt` of routes that everybody may ask who is known."""

SAFE = ("GET", "HEAD", "OPTIONS")
KEYS = (PREFIX.encode(), signed_key.PREFIX.encode())
"""How people's keys begin."""
SEND_KEY = "Send a key: `Authorization: Bearer KEY`."
OWN_SITE = (b"same-origin", b"none")
"""What browsers say in Sec-Fetch-Site of requests that no page of another origin began (W3C Fetch Metadata)."""


class UnsafeError(ExitError):
    """The API would be open to others, or its key is not secret; the message says what to do."""

    code = Exit.SETUP


class Guard:
    """The guard of all routes: lets those in who may ask, and says to the others what is missing."""

    def __init__(
        self,
        *,
        users: Mapping[int, Principal],
        key: str | None,
        hosts: frozenset[str],
        keys: Keys,
        requires_key: bool = False,
    ) -> None:
        """`users` are those of this host by uid, `key` the administrator's, `hosts` the names that mean this host.

        `keys` are people's. `requires_key`: over TCP everybody needs a key.
        """
        self.keys = keys
        self._users = users
        self._requires_key = requires_key
        self._key = None if key is None else key.encode()
        self._hosts = hosts

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raise `ApiError`, 401 or 403, unless the request may be served."""
        scope = connection.scope
        needed = handler.opt.get("scope", KeyScope.READ if scope.get("method") in SAFE else KeyScope.WRITE)
        try:
            self.let_in(scope, needed, key_only=handler.opt.get("key_only", False))
        except ApiError:
            if not handler.opt.get("open"):
                raise

    def let_in(self, scope: Scope, needed: KeyScope | None, *, key_only: bool = False) -> None:
        """Note who asks; raises `ApiError` unless they may."""
        principal = self._identified(scope, needed, key_only=key_only)
        if needed is not None and (refusal := verdict(principal, needed)) is not None:
            raise refusal
        scope["state"]["principal"] = principal
        if principal.key is not None or principal.until is not None:
            self.keys.begin(scope["state"][SERVING], principal)

    def _identified(self, scope: Scope, needed: KeyScope | None, *, key_only: bool) -> Principal:
        """Return who asks; raises `ApiError` for who is none of those that may."""
        for offered in _offered(scope, needed):
            if self._key is not None and hmac.compare_digest(offered, self._key):
                return OPERATOR
            if offered.startswith(KEYS):
                return self.keys.find(offered.decode("latin-1"))
        if key_only:
            raise _unauthorized(f"Here everybody needs a key, the operator too. {SEND_KEY}")
        peer = scope["state"].get(STATE_KEY)
        if not isinstance(peer, Peer) or peer.uid is None or peer.uid not in self._users:
            raise self._stranger()
        if self._requires_key and not peer.is_unix:
            raise _unauthorized(f"Over TCP everybody needs a key here (api.require_key). {SEND_KEY}")
        if (refusal := self._lured(scope)) is not None:
            raise refusal
        return self._users[peer.uid]

    def _stranger(self) -> ApiError:
        how = "" if self._key is not None else " The operator makes keys, or sets up one with api.admin_key_file."
        return _unauthorized(
            f"Without a key only connections of the operator's own user on this host are served. {SEND_KEY}{how}"
        )

    def _lured(self, scope: Scope) -> ApiError | None:
        """Return why the operator's browser may have been lured into asking; `None` if it has not."""
        hosts, origins, sites = (_all(scope, name) for name in (b"host", b"origin", b"sec-fetch-site"))
        if len(hosts) > 1:
            return ApiError(400, "There is more than one Host header.")
        if hosts and not self._is_ours(hosts[0].decode("latin-1"), scope):
            detail = (
                "The Host header names no address of this host. Use localhost, or the address that is connected to."
            )
            return ApiError(403, detail)
        own = {scheme + host for scheme in (b"http://", b"https://") for host in hosts}
        if any(origin not in own for origin in origins):
            return ApiError(403, "A page of another origin may not ask without the administrator's key.")
        if any(site not in OWN_SITE for site in sites):
            return ApiError(403, "A page of another site may not ask without the administrator's key.")
        return None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """Whether a `Host` is a name of this host, a loopback address, or the address that the connection came to."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        ip, (own, _) = _ip(name), scope.get("server") or ("", None)
        return name in self._hosts or (ip is not None and (ip.is_loopback or ip == _ip(own)))


def is_known(scope: Scope) -> bool:
    """Whether the request comes from one who may ask; for routes that answer everybody."""
    return "principal" in scope["state"]


def principal_of(scope: Scope) -> Principal:
    """Return who asks, on routes that do not answer everybody."""
    principal: Principal = scope["state"]["principal"]
    return principal


def guard_of(settings: ApiSettings, uid: int, keys: Keys) -> Guard:
    """Make the guard; raises `UnsafeError` for an address that others reach without a key, or a key that is none.

    Raises `ServedTlsError` for one that others reach without TLS, and `LocalUsersError`. `uid` is the operator's.
    """
    key = None if settings.admin_key_file is None else read_admin_key(settings.admin_key_file)
    is_open = not is_loopback(settings.host)
    if is_open and key is None:
        raise UnsafeError(
            f"api.host is {settings.host}, which other hosts can reach, and there is no administrator's key. "
            "Make one (umask 077; openssl rand -hex 32 > FILE) and set api.admin_key_file to it, "
            "or set api.host to 127.0.0.1."
        )
    if is_open:
        require_tls(settings.host, "api.host", settings)
    users, hosts = local_users(settings, uid), own_names(settings.host)
    return Guard(users=users, key=key, hosts=hosts, keys=keys, requires_key=settings.require_key)


def own_names(host: str) -> frozenset[str]:
    """Return the names that mean this host, to what listens on `host`."""
    own = socket.gethostname().lower()
    return frozenset({"localhost", own, own.partition(".")[0], host.lower()})


def read_admin_key(path: Path) -> str:
    """Read the administrator's key; raises `UnsafeError` if it is missing, empty or not its owner's alone."""
    try:
        with open_regular(path) as file:
            mode, key = os.fstat(file.fileno()).st_mode & 0o777, file.read().decode("ascii").strip()
    except OSError as error:
        raise UnsafeError(
            f"The key file {path} (api.admin_key_file) can't be read: {error.strerror}. "
            f"Make it: umask 077; openssl rand -hex 32 > {path}"
        ) from error
    except UnicodeDecodeError as error:
        raise UnsafeError(f"The key in {path} (api.admin_key_file) must be plain ASCII text.") from error
    if mode != 0o600:
        raise UnsafeError(f"The key file {path} (api.admin_key_file) has mode {mode:04o}. Run: chmod 600 {path}")
    if not key or not key.isprintable() or " " in key:
        raise UnsafeError(
            f"The key file {path} (api.admin_key_file) must hold one word, the key. "
            f"Make it: umask 077; openssl rand -hex 32 > {path}"
        )
    return key


def is_loopback(host: str) -> bool:
    """Whether only this host reaches what listens on `host`."""
    if (ip := _ip(host)) is not None:
        return ip.is_loopback
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(item[4][0]).is_loopback for item in found)


def _unauthorized(detail: str) -> ApiError:
    return ApiError(401, detail, headers={"WWW-Authenticate": "Bearer"}, code="missing_api_key")


def _offered(scope: Scope, needed: KeyScope | None) -> Iterator[bytes]:
    """Yield what may be a key."""
    headers = dict(scope["headers"])
    authorization = headers.get(b"authorization", b"")
    if authorization.startswith(b"Bearer "):
        yield authorization.removeprefix(b"Bearer ")
    if needed is KeyScope.INFER and b"x-api-key" in headers:
        yield headers[b"x-api-key"]


def _all(scope: Scope, name: bytes) -> list[bytes]:
    return [value for header, value in scope["headers"] if header == name]


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address; what is IPv4 inside of IPv6 as IPv4."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found

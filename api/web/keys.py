"""All keys, in memory: what a request is checked against. Whoever reads the database brings them here.

While the database is away, what is known goes on for a while: `stale_after`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from api.web.errors import ApiError, UnavailableError
from api.web.key_secret import digest_of, is_whole
from api.web.principal import KeyScope, Principal
from api.web.signed_key import PREFIX as SIGNED
from api.web.signed_key import read_signed

RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """A key, without its secret."""

    principal: Principal
    expires_at: float | None
    revoked_at: float | None

    def lapse(self, now: float) -> tuple[str, float] | None:
        """Return how and when it has ended; `None` while it is good."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked", self.revoked_at
        if self.expires_at is not None and self.expires_at <= now:
            return "expired", self.expires_at
        return None


class LapsedKeyError(ApiError):
    """The key has ended under which a request is being served."""

    def __init__(self) -> None:
        super().__init__(401, "The key has ended meanwhile.", code="revoked_api_key")


class Serving:
    """A request while it is served, on a task of its own. Leaving it raises `LapsedKeyError` where it was cut."""

    __slots__ = ("_keys", "_task", "_timer", "is_cut")

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self.is_cut = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End it. Whoever else cancels the task goes first."""
        self._keys.end(self)
        if self._timer is not None:
            self._timer.cancel()
        if self.is_cut and self._task is not None:
            is_others_too = self._task.uncancel() > 0
            if kind is asyncio.CancelledError and not is_others_too:
                raise LapsedKeyError from None

    def cut(self) -> None:
        """End it early, once."""
        if not self.is_cut and self._task is not None:
            self.is_cut = True
            self._task.cancel()

    def cut_after(self, seconds: float) -> None:
        """Do so later, unless it has ended by then."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self.cut)


class Keys:
    """The keys by the digest of their secret, and which requests are being served under each.

    A digest is looked up in a plain dict: how long that takes says something of digests, and nothing of a secret.
    """

    def __init__(
        self,
        stale_after: float,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stale_after`: for so many seconds what is known goes on without the database."""
        self._stale_after = stale_after
        self._now = now
        self._monotonic = monotonic
        self._by_digest: Mapping[str, KnownKey] = {}
        self._as_of: float | None = None
        self._by_id: Mapping[str | None, KnownKey] = {}
        self._served: dict[Serving, str] = {}
        self._used: dict[str, float] = {}
        self.signing_keys: Callable[[], Sequence[bytes]] = tuple
        """Under which keys are signed that no table holds; none unless somebody says so."""

    @property
    def age(self) -> float | None:
        """Seconds since what is known was the database's; `None` before it was read."""
        return None if self._as_of is None else self._monotonic() - self._as_of

    def find(self, secret: str) -> Principal:
        """Return whose secret it is; raises `ApiError` for one that opens nothing, `UnavailableError`."""
        principal = self._signed(secret) if secret.startswith(SIGNED) else self._stored(secret)
        if principal.key is not None:
            self._used[principal.key] = self._now()
        return principal

    def take_used(self) -> dict[str, float]:
        """Return when each key was last found, of those that were since this was asked last."""
        used, self._used = self._used, {}
        return used

    def _stored(self, secret: str) -> Principal:
        known = self._by_digest.get(digest_of(secret))
        if known is None and not is_whole(secret):
            raise _invalid(
                "invalid_api_key",
                "This is no whole key: its checksum does not fit. Copy it again, from beginning to end.",
            )
        self._check_age()
        return self._good(known).principal

    def _signed(self, text: str) -> Principal:
        """Return who had a key signed: one that was asked for with a key of the table ends with that, and is its."""
        signed = read_signed(text, self.signing_keys())
        if signed is None:
            raise _invalid("invalid_api_key", "This key was not signed here, or it is not whole: get another.")
        if signed.until <= self._now():
            raise _invalid("expired_api_key", f"This key expired at {_when(signed.until)}. Get another.")
        scopes = frozenset(scope for scope in KeyScope if scope.value in signed.scopes)
        if signed.key is None:
            return Principal(None, scopes, owner=signed.owner, until=signed.until)
        self._check_age()
        principal = self._good(self._by_id.get(signed.key)).principal
        good_for = scopes if principal.is_admin else scopes & principal.scopes
        return replace(principal, scopes=good_for, until=signed.until)

    def _check_age(self) -> None:
        age = self.age
        if age is None or age > self._stale_after:
            raise UnavailableError(
                "Keys can't be checked: the database has not answered for too long (gateway.stale_keys). "
                "Try again in a moment.",
                retry_after=RETRY_SECONDS,
            )

    def _good(self, key: KnownKey | None) -> KnownKey:
        if key is None:
            raise _invalid("invalid_api_key", "There is no such key here: it was made elsewhere, or is there no more.")
        if (lapse := key.lapse(self._now())) is not None:
            how, at = lapse
            detail = f"This key ({key.principal.key}) {_PAST[how]} {_when(at)}. Ask for a new one."
            raise _invalid(f"{how}_api_key", detail)
        return key

    def learn(self, keys: Iterable[tuple[str, KnownKey]]) -> None:
        """Take all keys that there are, by digest."""
        self._by_digest = dict(keys)
        self._by_id = {key.principal.key: key for key in self._by_digest.values()}

    def confirm(self, as_of: float) -> None:
        """Note that what is known was true at a moment of `monotonic`, and end what is served under lapsed keys."""
        self._as_of = as_of
        if self._served:
            now = self._now()
            good = {key.principal.key for key in self._by_digest.values() if key.lapse(now) is None}
            for serving in [serving for serving, key_id in self._served.items() if key_id not in good]:
                self.end(serving)
                serving.cut()

    def begin(self, serving: Serving, principal: Principal) -> None:
        """Have something that is served end with the key of who asked."""
        if principal.key is not None:
            self._served[serving] = principal.key
        if principal.until is not None:
            serving.cut_after(principal.until - self._now())

    def end(self, serving: Serving) -> None:
        """Note that it has ended."""
        self._served.pop(serving, None)


_PAST = {"revoked": "was revoked at", "expired": "expired at"}


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _invalid(code: str, detail: str) -> ApiError:
    return ApiError(401, detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}, code=code)

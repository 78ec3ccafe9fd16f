"""All keys, in memory: what a request is checked against. Whoever reads the database brings them here.

While the database is away, what is known goes on for a while: `stale_after`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from api.web.errors import ApiError, UnavailableError
from api.web.key_secret import digest_of, is_whole
from api.web.principal import Principal

RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """A key, without its secret."""

    principal: Principal
    expires_at: float | None
    revoked_at: float | None

    def lapse(self, now: float) -> tuple[str, float] | None:
        """Return how and when it has ended; `None` while it is good."""
        for how, at in (("revoked", self.revoked_at), ("expired", self.expires_at)):
            if at is not None and at <= now:
                return how, at
        return None


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
        self._served: dict[asyncio.Timeout, str] = {}

    @property
    def age(self) -> float | None:
        """Seconds since what is known was the database's; `None` before it was read."""
        return None if self._as_of is None else self._monotonic() - self._as_of

    def find(self, secret: str) -> Principal:
        """Return whose secret it is; raises `ApiError` for one that opens nothing, `UnavailableError`."""
        if not is_whole(secret):
            raise _invalid(
                "invalid_api_key",
                "This is no whole key: its checksum does not fit. Copy it again, from beginning to end.",
            )
        if self.age is None or self.age > self._stale_after:
            raise UnavailableError(
                "Keys can't be checked: the database has not answered for too long (gateway.stale_keys). "
                "Try again in a moment.",
                retry_after=RETRY_SECONDS,
            )
        key = self._by_digest.get(digest_of(secret))
        if key is None:
            raise _invalid("invalid_api_key", "There is no such key here: it was made elsewhere, or is there no more.")
        if (lapse := key.lapse(self._now())) is not None:
            how, at = lapse
            when = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
            raise _invalid(f"{how}_api_key", f"This key ({key.principal.key}) {_PAST[how]} {when}. Ask for a new one.")
        return key.principal

    def learn(self, keys: Iterable[tuple[str, KnownKey]]) -> None:
        """Take all keys that there are, by digest."""
        self._by_digest = dict(keys)

    def confirm(self, as_of: float) -> None:
        """Note that what is known was true at a moment of `monotonic`, and end what is served under lapsed keys."""
        self._as_of = as_of
        if self._served:
            now = self._now()
            good = {key.principal.key for key in self._by_digest.values() if key.lapse(now) is None}
            for serving in [serving for serving, key_id in self._served.items() if key_id not in good]:
                self.end(serving)
                serving.reschedule(asyncio.get_running_loop().time())

    def begin(self, serving: asyncio.Timeout, key_id: str) -> None:
        """Have something that is served end with a key."""
        self._served[serving] = key_id

    def end(self, serving: asyncio.Timeout) -> None:
        """Note that it has ended."""
        self._served.pop(serving, None)


_PAST = {"revoked": "was revoked at", "expired": "expired at"}


def _invalid(code: str, detail: str) -> ApiError:
    return ApiError(401, detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}, code=code)

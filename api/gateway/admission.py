"""Letting requests through as far as their key's limits go, and saying how far that is, as OpenAI says it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Self

from api.gateway.exchange import Header
from api.gateway.ledger import Ledger
from api.gateway.limits import Account, Refusal, allowance
from api.gateway.refusals import GatewayError
from api.gateway.token_count import Reserve, TokenCount
from api.web.key_limits import UNLIMITED, KeyLimits
from api.web.principal import Principal

log = logging.getLogger(__name__)

SECOND = 1_000_000
AT_ONCE_SECONDS = 1
"""After which who asks too much at once may try again; when there is room nobody can tell."""
_WORDS = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "requests_at_once": "requests at a time",
}


class AdmittedRequest:
    """A request that may pass, for as long as it is served.

    What ends with a `GatewayError` got no answer of an engine, and costs nothing; who leaves while an engine is at it
    (`LeftError`) has asked.
    """

    __slots__ = ("headers", "tokens")

    def __init__(self, headers: tuple[Header, ...] = (), tokens: TokenCount | None = None) -> None:
        self.headers = headers
        """What its client is told of the limits."""
        self.tokens = tokens
        """What is to read its answer; `None`: nobody counts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Nothing was counted."""


class CountedRequest(AdmittedRequest):
    """One under a key that has limits."""

    __slots__ = ("_reserved", "_settle")

    def __init__(
        self,
        settle: Callable[[int, int], None],
        headers: tuple[Header, ...],
        tokens: TokenCount | None,
        reserved: int,
    ) -> None:
        """`settle` notes how many more requests and tokens it took than was thought; `reserved` were the tokens."""
        super().__init__(headers, tokens)
        self._settle = settle
        self._reserved = reserved

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Settle what it took."""
        if kind is not None and issubclass(kind, GatewayError):
            self._settle(-1, -self._reserved)
        else:
            self._settle(0, (0 if self.tokens is None else self.tokens.total()) - self._reserved)


class Limiter:
    """Counts what is asked under keys that have limits."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._is_to_write = False

    def admitted(self, principal: Principal, reserve: Callable[[], Reserve] | None) -> AdmittedRequest:
        """Count a request for as long as it is served; raises `GatewayError` where it is over a limit.

        `reserve` is `None` where no model is run.
        """
        limits, key = principal.limits, principal.key
        if key is None or limits == UNLIMITED:
            return AdmittedRequest()
        if reserve is None or limits.tokens_per_minute is None:
            reserved, tokens = 0, None
        else:
            thought = reserve()
            reserved, tokens = thought.prompt + thought.answer, TokenCount(thought.prompt)
        account = self._admit(key, limits, reserved)
        return CountedRequest(partial(self._settle, key, limits), _headers(account, limits), tokens, reserved)

    def _admit(self, key: str, limits: KeyLimits, tokens: int) -> Account:
        try:
            found = self._ledger.admit(key, limits, tokens)
            if not isinstance(found, Refusal):
                return found
            account = self._ledger.look(key, limits)
        except OSError as error:
            log.error("the limits of keys can't be counted: %s", error)
            raise GatewayError(
                503,
                "What is asked under this key has limits, and can't be counted now. The gateway's log says why.",
                code="limits_unavailable",
                retry_after=AT_ONCE_SECONDS,
            ) from error
        raise _refusal(found, key, limits, _headers(account, limits))

    def _settle(self, key: str, limits: KeyLimits, requests: int, tokens: int) -> None:
        self._ledger.settle(key, limits, requests=requests, tokens=tokens)
        if not self._is_to_write:  # once for all that end in one turn of the loop
            self._is_to_write = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._is_to_write = False
        try:
            self._ledger.write()
        except OSError as error:
            log.error("what was asked can't be counted yet: %s", error)


def _refusal(refusal: Refusal, key: str, limits: KeyLimits, headers: tuple[Header, ...]) -> GatewayError:
    limit = getattr(limits, refusal.limit)
    wait = AT_ONCE_SECONDS * SECOND if refusal.wait is None else refusal.wait
    again = "one has been answered" if refusal.wait is None else f"{duration(wait)}"
    when = "Try again when" if refusal.wait is None else "Try again in"
    return GatewayError(
        429,
        f"The key {key} may ask {limit:,} {_WORDS[refusal.limit]} ({refusal.limit}). {when} {again}; "
        "what was refused does not count.",
        code="rate_limit_exceeded",
        retry_after=-(-wait // SECOND),
        headers=((b"retry-after-ms", b"%d" % -(-wait // 1000)), *headers),
    )


def _headers(account: Account, limits: KeyLimits) -> tuple[Header, ...]:
    of_requests, of_tokens = limits.requests_per_minute, limits.tokens_per_minute
    requests = () if of_requests is None else _told(_REQUESTS, account.requests, of_requests)
    return requests if of_tokens is None else (*requests, *_told(_TOKENS, account.tokens, of_tokens))


def _names(what: str) -> tuple[bytes, ...]:
    """Return what headers say what is left of a limit (platform.openai.com, Rate limits: headers)."""
    return tuple(f"x-ratelimit-{said}-{what}".encode() for said in ("limit", "remaining", "reset"))


_REQUESTS, _TOKENS = _names("requests"), _names("tokens")


def _told(names: tuple[bytes, ...], used: int, limit: int) -> tuple[Header, ...]:
    left = allowance(used, limit)
    values = b"%d" % limit, b"%d" % left.remaining, duration(left.reset).encode()
    return tuple(zip(names, values, strict=True))


def duration(microseconds: int) -> str:
    """Write a time as OpenAI does (Go's durations): 0s, 120ms, 8.64s, 6m0s; to the next millisecond."""
    milliseconds = -(-microseconds // 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{milliseconds / 1000:g}s"
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds

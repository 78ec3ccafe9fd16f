"""What a key's limits let through, and when they will: token buckets. Pure: the time is an argument.

A bucket holds a minute's worth and fills evenly, so within any time t no more than `limit * (1 + t / minute)` passes.
What is refused changes nothing. All is counted in whole numbers, microseconds and MINUTE-ths of a request or token, so
nothing is lost to rounding: after the wait that was told a request passes, and not a microsecond before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from api.web.key_limits import KeyLimits

MINUTE = 60_000_000
"""Microseconds."""
MOST_USED = 2**62
"""What fits into a signed number of 64 bits, with room to spare."""


class Account(NamedTuple):
    """What has been asked under a key: what was used of each bucket at its moment, in MINUTE-ths.

    That may be more than a minute's worth, a debt. The ledger's file has these numbers in this order.
    """

    requests: int = 0
    requests_as_of: int = 0
    tokens: int = 0
    tokens_as_of: int = 0
    at_once: int = 0
    """Requests that are being answered."""


class Allowance(NamedTuple):
    """What is left of a limit."""

    remaining: int
    reset: int
    """Microseconds until it is whole again."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request may not pass."""

    limit: str
    """The field of `KeyLimits`."""
    wait: int | None
    """Microseconds until it may; `None`: until another has been answered, which nobody can tell."""


def admitted(account: Account, limits: KeyLimits, tokens: int, now: int) -> Account | Refusal:
    """Let a request pass that may take so many tokens, or say why not; of two reasons that which lasts longer.

    One that may take more than a minute's worth passes when all of that is there.
    """
    per_minute, of_tokens = limits.requests_per_minute, limits.tokens_per_minute
    account = aged(account, limits, now)
    for_requests = 0 if per_minute is None else wait(account.requests, 1, per_minute)
    for_tokens = 0 if of_tokens is None else wait(account.tokens, min(tokens, of_tokens), of_tokens)
    if for_requests or for_tokens:
        is_longer = for_tokens > for_requests
        return Refusal("tokens_per_minute" if is_longer else "requests_per_minute", max(for_requests, for_tokens))
    if limits.requests_at_once is not None and account.at_once >= limits.requests_at_once:
        return Refusal("requests_at_once", None)
    return _changed(account, limits, 1, tokens, 1)


def settled(account: Account, limits: KeyLimits, requests: int, tokens: int, now: int) -> Account:
    """Note the end of a request that took so many more of each than was thought; less where it is negative."""
    return _changed(aged(account, limits, now), limits, requests, tokens, -1)


def aged(account: Account, limits: KeyLimits, now: int) -> Account:
    """Return it as of a moment. What these limits do not name stays: others may, under which it is counted."""
    requests, requests_as_of, tokens, tokens_as_of, at_once = account
    if limits.requests_per_minute is not None:
        requests, requests_as_of = _left(requests, limits.requests_per_minute, now - requests_as_of), now
    if limits.tokens_per_minute is not None:
        tokens, tokens_as_of = _left(tokens, limits.tokens_per_minute, now - tokens_as_of), now
    return Account(requests, requests_as_of, tokens, tokens_as_of, at_once)


def wait(used: int, amount: int, limit: int) -> int:
    """Return after how many microseconds so much more can be used."""
    missing = used + amount * MINUTE - limit * MINUTE
    return -(-missing // limit) if missing > 0 else 0


def allowance(used: int, limit: int) -> Allowance:
    """Return what is left."""
    left = limit * MINUTE - used
    return Allowance(left // MINUTE if left > 0 else 0, -(-used // limit))


def _left(used: int, limit: int, passed: int) -> int:
    """Return what is still used after so many microseconds; where they are negative, the clock has begun anew."""
    left = used - passed * limit
    return left if left > 0 and passed >= 0 else 0


def _changed(account: Account, limits: KeyLimits, more_requests: int, more_tokens: int, more_at_once: int) -> Account:
    requests, requests_as_of, tokens, tokens_as_of, at_once = account
    if limits.requests_per_minute is not None:
        requests = _taken(requests, more_requests)
    if limits.tokens_per_minute is not None:
        tokens = _taken(tokens, more_tokens)
    return Account(requests, requests_as_of, tokens, tokens_as_of, at_once + more_at_once)


def _taken(used: int, amount: int) -> int:
    """Take so much more, or put it back where it is negative."""
    return min(max(0, used + amount * MINUTE), MOST_USED)

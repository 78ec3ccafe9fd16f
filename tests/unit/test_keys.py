"""What opens, and for how long: of who asks, and of keys while their database is away. Virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.web.errors import ApiError, UnavailableError
from api.web.key_secret import digest_of, new_secret
from api.web.keys import Keys, KnownKey, LapsedKeyError, Serving
from api.web.principal import OPERATOR, KeyScope, Principal, verdict

SCOPES = st.frozensets(st.sampled_from(KeyScope))
NAMES = st.sampled_from(["a", "b", "c"])


@given(SCOPES, st.sampled_from(KeyScope), st.none() | st.frozensets(NAMES), st.none() | NAMES)
def test_the_verdict(
    scopes: frozenset[KeyScope], needed: KeyScope, models: frozenset[str] | None, model: str | None
) -> None:
    refusal = verdict(Principal("k", scopes, owner="o", models=models), needed, model)
    if needed not in scopes and KeyScope.ADMIN not in scopes:
        assert refusal is not None
        assert (refusal.status, refusal.code) == (403, "insufficient_scope")
    elif model is not None and models is not None and model not in models:
        assert refusal is not None
        assert (refusal.status, refusal.code) == (403, "model_not_allowed")
    else:
        assert refusal is None
    assert verdict(OPERATOR, needed, model) is None


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def known(key: str = "k", expires_at: float | None = None, revoked_at: float | None = None) -> KnownKey:
    principal = Principal(key, frozenset(KeyScope), owner="o")
    return KnownKey(principal=principal, expires_at=expires_at, revoked_at=revoked_at)


def test_what_is_known_goes_on_for_a_while_without_the_database() -> None:
    clock, secret = Clock(), new_secret()
    keys = Keys(60.0, now=clock, monotonic=clock)
    with pytest.raises(UnavailableError):
        keys.find(secret)
    keys.learn([(digest_of(secret), known())])
    keys.confirm(clock())
    clock.now += 60.0
    assert keys.find(secret).key == "k"
    clock.now += 0.1
    with pytest.raises(UnavailableError, match=r"gateway\.stale_keys"):
        keys.find(secret)
    keys.confirm(clock())
    assert keys.find(secret).key == "k"


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (known(expires_at=1000.0), "expired_api_key"),
        (known(revoked_at=1000.0), "revoked_api_key"),
        (known(revoked_at=999.0, expires_at=999.0), "revoked_api_key"),
        (known(expires_at=1000.1, revoked_at=1000.1), None),
        (known(expires_at=0.0, revoked_at=1e12), "expired_api_key"),
    ],
)
def test_it_ends_on_the_second(key: KnownKey, code: str | None) -> None:
    clock, secret = Clock(), new_secret()
    keys = Keys(60.0, now=clock, monotonic=clock)
    keys.learn([(digest_of(secret), key)])
    keys.confirm(clock())
    if code is None:
        assert keys.find(secret).key == "k"
        return
    with pytest.raises(ApiError) as refusal:
        keys.find(secret)
    assert (refusal.value.status, refusal.value.code) == (401, code)


def test_when_a_key_was_last_used_is_told_once() -> None:
    clock, secrets = Clock(), {name: new_secret() for name in ("k", "other", "unused", "ended")}
    keys = Keys(60.0, now=clock, monotonic=clock)
    ends = {"ended": 1001.0}
    keys.learn((digest_of(secrets[name]), known(name, expires_at=ends.get(name))) for name in secrets)
    keys.confirm(clock())
    keys.find(secrets["k"])
    keys.find(secrets["other"])
    clock.now += 1.0
    keys.find(secrets["k"])
    for secret in (secrets["ended"], new_secret()):
        with pytest.raises(ApiError):
            keys.find(secret)
    assert keys.take_used() == {"k": 1001.0, "other": 1000.0}
    assert keys.take_used() == {}
    keys.find(secrets["other"])
    assert keys.take_used() == {"other": 1001.0}


async def test_what_is_served_ends_with_its_key_and_nothing_else() -> None:
    clock, secret = Clock(), new_secret()
    keys = Keys(60.0, now=clock, monotonic=clock)
    keys.learn([(digest_of(secret), known()), ("other", known("other"))])

    async def serve(key: str) -> bool:
        try:
            with Serving(keys) as serving:
                keys.begin(serving, Principal(key, frozenset(), owner="o"))
                await asyncio.sleep(0 if key == "done" else 3600)
        except LapsedKeyError:
            return True
        return False

    tasks = [asyncio.create_task(serve(key)) for key in ("k", "other", "done")]
    assert await tasks[2] is False
    keys.confirm(clock())
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks[:2])
    keys.learn([("other", known("other"))])
    for _ in range(2):
        keys.confirm(clock())
    assert await tasks[0] is True
    assert not tasks[1].done()
    tasks[1].cancel()


async def test_who_cancels_what_is_cut_goes_first() -> None:
    """A program that ends is not held up by keys that end."""
    began = asyncio.Event()

    async def serve(own: list[Serving]) -> None:
        with Serving(Keys(60.0)) as serving:
            own.append(serving)
            began.set()
            await asyncio.sleep(3600)

    cut: list[Serving] = []
    task = asyncio.create_task(serve(cut))
    await began.wait()
    cut[0].cut()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_signed_key_opens_ends_in_time() -> None:
    keys = Keys(60.0, now=lambda: 100.0)
    for until, seconds in ((100.01, 3600.0), (100.01, 0.0)):
        principal = Principal(None, frozenset(), owner="o", until=until)
        ended = False
        try:
            with Serving(keys) as serving:
                keys.begin(serving, principal)
                await asyncio.sleep(seconds)
        except LapsedKeyError:
            ended = True
        assert ended is (seconds > 0)
    await asyncio.sleep(0.03)  # the second one's time comes when it is over
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()

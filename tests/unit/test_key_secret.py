"""The secrets of keys: random, recognised by their form, and by their checksum when they are whole."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from api.contract.job.token import Token
from api.web.key_secret import PREFIX, digest_of, is_whole, new_secret, start_of, with_checksum

SECRETS = st.builds(
    lambda digits: with_checksum(PREFIX + digits), st.text("0123456789ABCXYZabcxyz", min_size=43, max_size=43)
)
OTHERS = st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-. é", min_size=1, max_size=1)


def test_each_has_the_form_that_scanners_search_for() -> None:
    made = {new_secret() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch("aif_[0-9A-Za-z]{49}", one) and is_whole(one) for one in made)


def test_all_256_bits_are_random() -> None:
    """Of the 43 digits none but the first is nearly the same in all."""
    made = [new_secret() for _ in range(300)]
    assert all(len({one[place] for one in made}) > 30 for place in range(len(PREFIX) + 1, len(PREFIX) + 43))


def test_none_is_taken_for_a_jobs_token() -> None:
    assert not new_secret().startswith(str(Token("x", "y", 0, 1)).partition("-")[0] + "-")


@given(SECRETS)
def test_whole_ones_are_taken(secret: str) -> None:
    assert is_whole(secret)
    assert start_of(secret) == secret[:10]
    assert re.fullmatch("[0-9a-f]{64}", digest_of(secret))


@given(SECRETS, st.integers(0, 52), OTHERS)
def test_a_wrong_character_is_found_out(secret: str, place: int, other: str) -> None:
    mistyped = secret[:place] + other + secret[place + 1 :]
    assert is_whole(mistyped) == (mistyped == secret)


@given(SECRETS, st.integers(0, 51))
def test_characters_that_changed_places_are_found_out(secret: str, place: int) -> None:
    swapped = secret[:place] + secret[place + 1] + secret[place] + secret[place + 2 :]
    assert is_whole(swapped) == (swapped == secret)


@given(SECRETS, st.integers(0, 52), st.integers(1, 53))
def test_what_is_cut_is_found_out(secret: str, begin: int, length: int) -> None:
    rest = secret[:begin] + secret[begin + length :]
    assert not is_whole(rest)
    assert not is_whole(secret + secret[begin:])


@given(st.text())
def test_whatever_is_sent_is_judged(text: str) -> None:
    is_whole(text)

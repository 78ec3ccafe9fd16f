"""Tokens and their parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract.identity import ALPHABET
from api.contract.job.token import Token, parse_token, prefix

ids = st.text(ALPHABET, min_size=1, max_size=16)


@given(ids, ids, st.integers(0, 9999), st.integers(1, 10**6))
def test_a_token_is_read_back(installation: str, service: str, replica: int, incarnation: int) -> None:
    token = Token(installation, service, replica, incarnation)
    assert parse_token(str(token)) == token
    assert str(token).startswith(prefix(installation))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "af",
        "af-i-s-0",
        "af-i-s-0-1-2",
        "af-i-s-x-1",
        "af-i-s--1-1",
        "xaf-i-s-0-1",
        "af-i-s-0-1\n",
        " af-i-s-0-1",
        "AF-i-s-0-1",
        "af-I-s-0-1",
        "af-i-s-0-1.batch",
        "af-i-s.t-0-1",
        "af--s-0-1",
        "af-i-s-٠-١",
        "af-i-s-0-1_4",
    ],
)
def test_other_jobs_are_no_tokens(text: str) -> None:
    assert parse_token(text) is None


def test_one_installations_prefix_is_not_anothers() -> None:
    assert not str(Token("ab", "s", 0, 1)).startswith(prefix("a"))

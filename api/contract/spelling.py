"""What somebody meant who has written a word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LEAST_LETTERS = 6
"""A shorter word is too near to too many others."""
MOST_LETTERS = 2
"""So many letters wrong, missing or too much are a slip; more are another word."""


def misspelt(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that this one is plainly a slip for; `None`: it is none, or known itself."""
    words = [one for one in known if len(one) >= LEAST_LETTERS and abs(len(one) - len(word)) <= MOST_LETTERS]
    if word in words:
        return None
    near = min(((distance(word, one), one) for one in words), default=(MOST_LETTERS + 1, ""))
    return near[1] if near[0] <= MOST_LETTERS else None


def distance(one: str, other: str) -> int:
    """Return how many letters have to be put in, taken out or replaced to make the one of the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        before, row = row, [number]
        for place, facing in enumerate(other, 1):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (letter != facing)))
    return row[-1]


def did_you_mean(word: str, known: Iterable[str], most: int = 3) -> str:
    """Return a question that names what was meant, or the known words most like it; "" if none is. A blank leads."""
    words = list(known)
    slip = misspelt(word, words)
    similar = [slip] if slip is not None else difflib.get_close_matches(word, words, n=most, cutoff=0.75)
    return f" Did you mean {' or '.join(similar)}?" if similar else ""

"""Tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api.cli.terminal.text import fitted, printable, wide

_GAP = "  "
_NARROWEST = 8
"""Columns of text to which a flexible cell may shrink."""
_READABLE = 20
"""To so many the last flexible column shrinks before any other does."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    flexible: bool = False
    """May be shortened, with an ellipsis, where the terminal is narrow."""
    colour: Callable[[str], str] | None = None
    """The name of the colour for a cell's text; "" for none."""


def layout(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int | None,
    paint: Callable[[str, str], str] = lambda text, _: text,
) -> list[str]:
    """Lay a table out in lines of at most `width` columns: shorten flexible cells, then leave out the last columns."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max([wide(c.title), *(wide(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    if width is not None:
        _fit(columns, widths, width)
    shown = columns[: len(widths)]

    def line(row: Sequence[str], *, title: bool) -> str:
        parts = []
        for column, cell, room in zip(shown, row, widths, strict=False):
            text = fitted(cell, room)
            blank = " " * (room - wide(text))
            colour = "dim" if title else column.colour(cell) if column.colour else ""
            parts.append(paint(text, colour) + blank)
        return _GAP.join(parts).rstrip()

    return [line([c.title for c in columns], title=True), *(line(row, title=False) for row in cells)]


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Shrink `widths` in place, and drop the last ones, until a line fits."""
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        flexible = [i for i in range(len(widths)) if columns[i].flexible and widths[i] > _NARROWEST]
        if flexible and widths[flexible[-1]] > _READABLE:  # what stands last matters least
            widths[flexible[-1]] -= 1
        elif flexible:
            widths[max(flexible, key=lambda i: widths[i])] -= 1
        elif len(widths) > 1:
            widths.pop()
        else:
            widths[0] = max(1, width)
            return

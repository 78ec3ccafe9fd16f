"""Tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api.cli.terminal.text import fitted, printable, wide, wrapped

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
    below: bool = False
    """Where the terminal is narrow, its text stands on lines of its own below the row. Only of the last column."""
    whole: bool = False
    """Of one that may stand below: it is never shortened, and stands there as soon as it would be."""
    colour: Callable[[str], str] | None = None
    """The name of the colour for a cell's text; "" for none."""


def layout(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int | None,
    paint: Callable[[str, str], str] = lambda text, _: text,
) -> list[str]:
    """Lay a table out in lines of at most `width` columns.

    Where there is no room, the last column goes below its row if it may; flexible cells are shortened; the last columns
    are left out.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max([wide(c.title), *(wide(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    is_below = columns[-1].below and width is not None and width >= _READABLE and not _has_room(columns, widths, width)
    if is_below:
        widths.pop()
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

    lines = [line([c.title for c in columns], title=True)]
    for row in cells:
        lines.append(line(row, title=False))
        if is_below and width is not None:
            lines += [f"{_GAP}{part}" for part in wrapped(row[-1], width - len(_GAP))]
    return lines


def _has_room(columns: Sequence[Column], widths: Sequence[int], width: int) -> bool:
    """Whether the last column can be read beside the others as they are."""
    last = widths[-1] if columns[-1].whole else min(widths[-1], _READABLE)
    return sum(widths[:-1]) + len(_GAP) * (len(widths) - 1) + last <= width


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

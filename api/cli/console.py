"""What people see: lines, colours and tables that fit the terminal."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "dim": 2, "bold": 1}
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


class Console:
    """Where a command writes. Results go to standard output, all else to standard error."""

    def __init__(self, *, color: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._color_out = color and self._out.isatty()
        self._color_err = color and self._err.isatty()
        self.width = shutil.get_terminal_size().columns if self._out.isatty() else None
        """Of the terminal; `None` where the output goes elsewhere: then nothing is shortened."""
        self.note_width = shutil.get_terminal_size().columns if self._err.isatty() else None
        """The same of standard error."""
        self._passing = False
        self._drawn = 0

    def line(self, text: str = "") -> None:
        """Write one line of the result."""
        self._out.write(f"{text.rstrip()}\n")
        self._out.flush()

    def text(self, text: str) -> None:
        """Write text of the result as it is, ended by a line feed."""
        self._out.write(text if text.endswith("\n") else f"{text}\n")
        self._out.flush()

    def note(self, text: str) -> None:
        """Tell people what goes on, beside the result."""
        self.passing("")
        self._err.write(f"{text.rstrip()}\n")
        self._err.flush()

    def passing(self, text: str) -> None:
        """Show a line that the next note overwrites; an empty one takes it away. Only on a terminal."""
        if self.note_width is None or not (text or self._passing):
            return
        self._err.write(f"\r\033[K{fitted(text, self.note_width - 1)}")
        self._err.flush()
        self._passing = bool(text)

    def picture(self, lines: Sequence[str]) -> None:
        """Show lines in the place of those shown before. Only where the output is a terminal."""
        up = f"\033[{self._drawn}F\033[J" if self._drawn else ""
        self._out.write(up + "".join(f"{line}\n" for line in lines))
        self._out.flush()
        self._drawn = len(lines)

    def piece(self, text: str) -> None:
        """Write a piece of the result's text as it comes."""
        self._out.write(text)
        self._out.flush()

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; only yes is yes."""
        self._err.write(f"{question} [y/N] ")
        self._err.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def error(self, message: str) -> None:
        """Write an error on one line."""
        self.note(f"{self._painted('ai-factory:', 'red', self._color_err)} {one_line(message)}")

    def json(self, value: Any) -> None:
        """Write a value for programs."""
        self.text(json.dumps(value, indent=2, ensure_ascii=False, default=str))

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, full: bool = False) -> None:
        """Write a table; `full` shortens nothing."""
        for line in layout(columns, rows, None if full else self.width, self.paint):
            self.line(line)

    def paint(self, text: str, colour: str) -> str:
        """Colour a text of the result, on a terminal that wants it."""
        return self._painted(text, colour, self._color_out)

    def paint_note(self, text: str, colour: str) -> str:
        """Colour a text beside the result, on a terminal that wants it."""
        return self._painted(text, colour, self._color_err)

    @staticmethod
    def _painted(text: str, colour: str, wanted: bool) -> str:
        return f"\033[{_COLOURS[colour]}m{text}\033[0m" if wanted and colour and text else text


def layout(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int | None,
    paint: Callable[[str, str], str] = lambda text, _: text,
) -> list[str]:
    """Lay a table out in lines of at most `width` columns: shorten flexible cells, then leave out the last columns."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max([_wide(c.title), *(_wide(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    if width is not None:
        _fit(columns, widths, width)
    shown = columns[: len(widths)]

    def line(row: Sequence[str], *, title: bool) -> str:
        parts = []
        for column, cell, room in zip(shown, row, widths, strict=False):
            text = fitted(cell, room)
            blank = " " * (room - _wide(text))
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


def fitted(text: str, room: int) -> str:
    """Return a text shortened to so many columns, with an ellipsis."""
    if _wide(text) <= room:
        return text
    while _wide(text) > room - 1:
        text = text[:-1]
    return text.rstrip() + "…"


def _wide(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def printable(text: str) -> str:
    """Return a text on one line and without control characters, which could steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def one_line(text: str) -> str:
    """Return a text with all its white space made single blanks."""
    return printable(" ".join(text.split()))


def duration(seconds: float) -> str:
    """Return a time span in one unit, so that it has two digits or more where it can: `100s`, `12m`, `30h`, `5d`."""
    seconds = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def entries(console: Console, values: Mapping[str, str]) -> None:
    """Write names and values in two columns."""
    widest = max((len(name) for name in values), default=0)
    for name, value in values.items():
        console.line(f"{name + ':':<{widest + 1}}  {printable(value)}")

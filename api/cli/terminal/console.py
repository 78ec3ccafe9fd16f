"""What people see: lines, colours and tables."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from api.cli.terminal.table import Column, layout
from api.cli.terminal.text import fitted, one_line, printable, visible
from api.cli.terminal.yaml_text import yaml_text

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "dim": 2, "bold": 1}


class Console:
    """Where a command writes. Results go to standard output, all else to standard error.

    This is the one way to the terminal. Much of what is shown was written by others (engines, jobs, whoever sent a
    request): on a terminal it can't do more than be read and be coloured (see `visible`). Where the output goes to a
    file or another program it is written as it is, as `kubectl logs` does: what it says is their business.
    """

    def __init__(
        self, *, color: bool, is_yaml: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._is_yaml = is_yaml
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
        _write(self._out, f"{text.rstrip()}\n")

    def text(self, text: str) -> None:
        """Write text of the result as it is, ended by a line feed."""
        _write(self._out, text if text.endswith("\n") else f"{text}\n")

    def note(self, text: str) -> None:
        """Tell people what goes on, beside the result."""
        self.passing("")
        _write(self._err, f"{text.rstrip()}\n")

    def passing(self, text: str) -> None:
        """Show a line that the next note overwrites; an empty one takes it away. Only on a terminal."""
        if self.note_width is None or not (text or self._passing):
            return
        self._err.write("\r\033[K")
        _write(self._err, fitted(visible(text), self.note_width - 1))
        self._passing = bool(text)

    def picture(self, lines: Sequence[str]) -> None:
        """Show lines in the place of those shown before. Only where the output is a terminal."""
        if self._drawn:
            self._out.write(f"\033[{self._drawn}F\033[J")
        _write(self._out, "".join(f"{line}\n" for line in lines))
        self._drawn = len(lines)

    def piece(self, text: str) -> None:
        """Write a piece of the result's text as it comes."""
        _write(self._out, text)

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; only yes is yes."""
        _write(self._err, f"{question} [y/N] ")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def aside(self, text: str) -> None:
        """Write a piece of text beside the result as it comes."""
        _write(self._err, text)

    def warning(self, message: str) -> None:
        """Write on one line what does not hinder the command."""
        self.note(f"ai-factory: {one_line(message)}")

    def error(self, message: str) -> None:
        """Write an error on one line."""
        self.note(f"{self._painted('ai-factory:', 'red', self._color_err)} {one_line(message)}")

    def json(self, value: Any) -> None:
        """Write a value for programs: as JSON, or as YAML where that is wanted."""
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
        self.text(yaml_text(json.loads(text)) if self._is_yaml else text)

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


def _write(stream: TextIO, text: str) -> None:
    stream.write(visible(text) if stream.isatty() else text)
    stream.flush()


def entries(console: Console, values: Mapping[str, str]) -> None:
    """Write names and values in two columns."""
    widest = max((len(name) for name in values), default=0)
    for name, value in values.items():
        console.line(f"{name + ':':<{widest + 1}}  {printable(value)}")

"""What is shown while something is waited for: a line for each step with its time, and that it goes on."""

from __future__ import annotations

import time

from api.cli.terminal.console import Console
from api.cli.terminal.text import duration, fitted

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PADDED = 56
"""Columns that a step's text takes at least before its time, where there is room."""


class LiveProgress:
    """Steps of one thing, on standard error. Each is written once, with the seconds since the beginning."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._began = time.monotonic()
        self._said = ""
        self._frame = 0

    def step(self, text: str) -> None:
        """Write a step, unless it is the last one again."""
        if text != self._said:
            self._said = text
            self._write("·", "dim", text)

    def done(self, text: str) -> None:
        """Write that it is as it should be."""
        self._write("✓", "green", text)

    def failed(self, text: str) -> None:
        """Write that it will not be."""
        self._write("✗", "red", text)

    def tick(self) -> None:
        """Show that it goes on; only a terminal shows it."""
        self._frame = (self._frame + 1) % len(_FRAMES)
        since = duration(time.monotonic() - self._began)
        self._console.passing(f"{_FRAMES[self._frame]} {self._title}  {since}")

    def over(self) -> None:
        """Take the passing line away."""
        self._console.passing("")

    def _write(self, mark: str, colour: str, text: str) -> None:
        seconds = f"{time.monotonic() - self._began:7.1f} s"
        line, room = f"{self._title}  {text}", _PADDED
        if self._console.note_width is not None:
            most = max(1, self._console.note_width - len(seconds) - 2)
            line, room = fitted(line, most), min(room, most)
        self._console.note(f"{self._console.paint_note(mark, colour)} {line:<{room}}{seconds}")

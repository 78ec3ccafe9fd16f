"""What the demo shows while it works: a line a step, live on a terminal, plain elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

WIDTH = 62
"""Columns of a step's text."""


def last_line(path: Path | None) -> str:
    """The last line of a log that says something."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    # a progress bar overwrites its own line
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return next((line for line in reversed(lines) if line), "")


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


class Running:
    """One line that is still at work."""

    def __init__(self, title: str, log: Path | None = None) -> None:
        self.title = title
        self.log = log
        self.note = ""
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been at work."""
        return time.monotonic() - self.started


class Board:
    """Prints finished steps one below the other, and under them the running ones."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self.stream = stream
        self.live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._lock = threading.RLock()
        self._running: list[Running] = []
        self._drawn = 0
        self._frame = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Board:
        if self.live:
            self._thread = threading.Thread(target=self._redraw_always, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        with self._lock:
            self._running.clear()
            self._erase()
            self.stream.flush()

    def say(self, text: str = "") -> None:
        """A line that stays."""
        with self._lock:
            self._erase()
            print(text, file=self.stream, flush=True)
            self._draw()

    def done(self, title: str, seconds: float) -> None:
        """A line for what went well."""
        self.say(f"{self._paint('✓', 32)} {_fitted(title)} {seconds:6.1f} s")

    def failed(self, title: str, seconds: float) -> None:
        """A line for what did not."""
        self.say(f"{self._paint('✗', 31)} {_fitted(title)} {seconds:6.1f} s")

    @contextmanager
    def step(self, title: str, log: Path | None = None, done: str | None = None) -> Iterator[Running]:
        """Shows the step while the block runs; and how it ended."""
        step = Running(title, log)
        with self._lock:
            if not self.live:
                self.say(f"… {title}")
            self._running.append(step)
        try:
            yield step
        except BaseException:
            self._remove(step)
            self.failed(title, step.seconds)
            raise
        self._remove(step)
        self.done(done or title, step.seconds)

    def _remove(self, step: Running) -> None:
        with self._lock:
            if step in self._running:
                self._running.remove(step)

    def _paint(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.live else text

    def _redraw_always(self) -> None:
        while not self._stop.wait(0.12):
            with self._lock:
                self._erase()
                self._frame += 1
                self._draw()

    def _erase(self) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _draw(self) -> None:
        if not self.live:
            return
        width = shutil.get_terminal_size().columns - 1
        for step in self._running:
            note = step.note or last_line(step.log)
            line = f"{FRAMES[self._frame % len(FRAMES)]} {step.title:<{WIDTH}} {step.seconds:6.1f} s"
            self.stream.write(f"{line}  {''.join(c for c in note if c.isprintable())}"[:width] + "\n")
        self._drawn = len(self._running)
        self.stream.flush()


def _fitted(title: str) -> str:
    """Fit a title to its column, so that seconds stand below seconds."""
    return f"{title:<{WIDTH}}" if len(title) <= WIDTH else f"{title[: WIDTH - 1]}…"

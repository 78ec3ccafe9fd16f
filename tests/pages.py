"""The pages of docs/ as their readers use them: files are written, commands typed, and what is shown is compared.

What is done with a fenced block its first line says, and a reader sees the same:

    ```sh                 typed into the reader's shell, which is the same from block to block; it must succeed
    ```sh fails           likewise, but it must not succeed
    ```sh first terminal  typed into a terminal of its own, where it goes on
    ```text               all that the block before it prints: line by line, … for anything
    ```yaml, ```toml      a file, named by the comment in its first line; without one it is not written

All other blocks are for reading.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w+)(?: ([\w ]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+/\S+|\S+\.\w+)\n")
PATIENCE = 120.0
"""Seconds that one block may take on a busy machine."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    word: str
    text: str

    @property
    def where(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that it is, if it names one."""
        named = FILE.match(self.text)
        return named[1] if named and self.language in ("yaml", "toml") else None


def blocks(page: Path) -> list[Block]:
    """Read the fenced blocks of a page."""
    content, name = page.read_text(), page.name
    return [
        Block(name, content[: match.start()].count("\n") + 1, match[1], match[2] or "", match[3])
        for match in FENCE.finditer(content)
    ]


def same(shown: str, printed: str) -> bool:
    """Whether a block shows what was printed."""
    lines = [" ".join(line.split()) for line in shown.splitlines() if line.strip()]
    pattern = ""
    for line in lines:
        anything = line == "…"
        pattern += r"(?:[^\n]*\n)*?" if anything else re.escape(line).replace("…", r"[^\n]*") + r"\n"
    plain = "".join(" ".join(line.split()) + "\n" for line in printed.splitlines() if line.strip())
    return re.fullmatch(pattern, plain) is not None


class Reader:
    """Somebody who has a page, an empty folder and two terminals."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._papers = folder / ".papers"
        self._papers.mkdir(parents=True)
        self._environment = dict(environment)
        self._first: subprocess.Popen[bytes] | None = None
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"], cwd=folder, env=self._environment,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._number = 0

    def follow(self, page: Path) -> int:
        """Do what a page says; return how many blocks were typed."""
        typed = 0
        found = blocks(page)
        for block, after in zip(found, [*found[1:], None], strict=True):
            shown = after if after is not None and after.language == "text" else None
            if block.file is not None:
                assert not block.file.startswith("/"), f"{block.where} is a file of the whole machine"
                file = self.folder / block.file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
            elif block.language == "sh":
                typed += 1
                self._type(block, shown)
        return typed

    def _type(self, block: Block, shown: Block | None) -> None:
        self._number += 1
        script = self._papers / f"{self._number}.sh"
        script.write_text(block.text)
        printed = script.with_suffix(".out")
        printed.touch()
        if block.word == "first terminal":
            self._begin(script, printed)
            assert shown is not None, f"{block.where}: nobody can tell when it has come up"
            self._wait(block, lambda: same(shown.text, printed.read_text()) or not self._runs(), printed)
            assert same(shown.text, printed.read_text()), f"{block.where} has ended:\n{printed.read_text()}"
            return
        assert block.word in ("", "fails"), f"{block.where}: what is {block.word!r}?"
        code = script.with_suffix(".code")
        then = " && done=0 || done=$?" if block.word == "fails" else "; done=0"  # guarded, a failure is no end
        self._say(f". {script} >{printed} 2>&1 </dev/null{then}; echo $done >{code}.new; mv {code}.new {code}")
        self._wait(block, lambda: code.exists() or self._shell.poll() is not None, printed)
        ended = code.read_text().strip() if code.exists() else "a failure"
        assert (ended == "0") is (block.word != "fails"), f"{block.where} ended with {ended}:\n{printed.read_text()}"
        if shown is not None:
            assert same(shown.text, printed.read_text()), (
                f"{shown.where} shows\n{shown.text}\nnot\n{printed.read_text()}"
            )

    def _say(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{line}\n".encode())
        self._shell.stdin.flush()

    def _begin(self, script: Path, printed: Path) -> None:
        assert not self._runs(), "the first terminal is busy"
        with printed.open("wb") as out:
            self._first = subprocess.Popen(
                ["bash", "-e", script], cwd=self.folder, env=self._environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def _wait(self, block: Block, condition: Callable[[], bool], printed: Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{block.where} takes too long:\n{printed.read_text()}"
            time.sleep(0.05)

    def _runs(self) -> bool:
        return self._first is not None and self._first.poll() is None

    def first_ended(self) -> int:
        """Wait for the end of what the first terminal runs; return its exit code."""
        assert self._first is not None
        return self._first.wait(timeout=PATIENCE)

    def leave(self) -> None:
        """Close both terminals."""
        if self._shell.stdin is not None:
            self._shell.stdin.close()
        for process in (self._first, self._shell):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(timeout=20)

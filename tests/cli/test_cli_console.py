from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from cli_tools import LiveApi
from hypothesis import given
from hypothesis import strategies as st

from api.cli.terminal.console import Console, entries
from api.cli.terminal.table import Column, layout
from api.cli.terminal.text import duration, one_line, printable, visible, wide
from tests.pages import ROOT

COLUMNS = (Column("ID"), Column("NAME", flexible=True), Column("STATUS"), Column("MESSAGE", flexible=True))


def test_columns_are_aligned_and_nothing_trails() -> None:
    rows = [["a1", "chat", "running", ""], ["b22", "x", "failed", "no such partition"]]
    assert layout(COLUMNS, rows, None) == [
        "ID   NAME  STATUS   MESSAGE",
        "a1   chat  running",
        "b22  x     failed   no such partition",
    ]


def test_long_cells_are_shortened_and_the_last_columns_dropped() -> None:
    row = ["k3x9q2ab", "a-rather-long-name-of-a-service", "running", "a message that goes on and on"]
    assert layout(COLUMNS, [row], 60)[1] == "k3x9q2ab  a-rather-long-name…  running  a message that goes…"
    assert layout(COLUMNS, [row], 72)[1] == "k3x9q2ab  a-rather-long-name-of-a-service  running  a message that goes…"
    assert layout(COLUMNS, [row], 20) == ["ID        NAME", "k3x9q2ab  a-rathe…"]
    assert layout(COLUMNS, [row], 4) == ["ID", "k3x…"]


def test_a_message_stands_below_its_row_where_there_is_no_room_beside_it() -> None:
    columns = (*COLUMNS[:3], Column("MESSAGE", flexible=True, below=True))
    row = ["k3x9q2ab", "a-rather-long-name-of-a-service", "pending", "The job 4711 is queued (Resources). It waits."]
    other = ["k3x9q2ac", "chat", "running", ""]
    assert layout(columns, [row, other], 60) == [
        "ID        NAME                             STATUS",
        "k3x9q2ab  a-rather-long-name-of-a-service  pending",
        "  The job 4711 is queued (Resources). It waits.",
        "k3x9q2ac  chat                             running",
    ]
    assert layout(columns, [row], 40)[2:] == ["  The job 4711 is queued (Resources). It", "  waits."]
    assert layout(columns, [row], 72)[1] == "k3x9q2ab  a-rather-long-name-of-a-service  pending  The job 4711 is que…"
    whole = (*COLUMNS[:3], Column("MESSAGE", flexible=True, below=True, whole=True))
    assert layout(whole, [row], 72)[2] == "  The job 4711 is queued (Resources). It waits."
    assert layout(whole, [row], 97)[1].endswith("pending  The job 4711 is queued (Resources). It waits.")


cells = st.text(max_size=40)


@given(st.lists(st.tuples(cells, cells, cells, cells), max_size=4), st.integers(1, 100), st.booleans())
def test_no_line_is_ever_wider_than_the_terminal(rows: list[tuple[str, ...]], width: int, below: bool) -> None:
    lines = layout((*COLUMNS[:3], replace(COLUMNS[3], below=below, whole=below and width % 2 == 0)), rows, width)
    assert below or len(lines) == len(rows) + 1
    for line in lines:
        assert wide(line) <= width
        assert line == line.rstrip()
        assert line.isprintable()


def test_control_characters_never_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\nc") == "a\\x1b[31mb c"
    assert printable("a\u202eb\u200dc\x9b") == "a\\u202eb c\\u009b"
    assert one_line("  two\n\n lines\t") == "two lines"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünï, 漢字, 👩‍👩‍👧, \u200f\u05d0", "plain, ünï, 漢字, 👩‍👩‍👧, \u200f\u05d0"),
        ("two\nlines\tand a tab\n", "two\nlines\tand a tab\n"),
        ("\033[1;31mred\033[0m", "\033[1;31mred\033[0m"),
        ("\033[38:2::1:2:3mred\033[m", "\033[38:2::1:2:3mred\033[m"),
        ("\033[31mred for ever\n", "\033[31mred for ever\n\033[0m"),
        ("\033]0;title\a", "\\x1b]0;title\\x07"),
        ("\033[2J\033[H\033[3A\033[?1049h\033c", "\\x1b[2J\\x1b[H\\x1b[3A\\x1b[?1049h\\x1bc"),
        ("\033[31\nm", "\\x1b[31\nm"),
        ("\033P1$r0m\033\\", "\\x1bP1$r0m\\x1b\\"),
        ("\x9b31m \x7f\b", "\\u009b31m \\u007f\\x08"),
        ("5%\r10%\r\ndone\r", "5%\n10%\ndone\n"),
        ("a\u202ecod.exe\u2066\u2029", "a\\u202ecod.exe\\u2066\\u2029"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_others_wrote_can_be_read_and_no_more(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_steers_a_terminal(text: str) -> None:
    shown = re.sub(r"\033\[[0-9;:]*m", "", visible(text))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


EVIL = "\033]0;x\a"


@pytest.mark.parametrize(
    "write",
    [
        lambda console: console.line(EVIL),
        lambda console: console.text(EVIL),
        lambda console: console.note(EVIL),
        lambda console: console.passing(EVIL),
        lambda console: console.picture([EVIL]),
        lambda console: console.piece(EVIL),
        lambda console: console.aside(EVIL),
        lambda console: console.warning(EVIL),
        lambda console: console.error(EVIL),
        lambda console: console.json({"a": EVIL}),
        lambda console: console.table(COLUMNS[:1], [[EVIL]]),
        lambda console: entries(console, {"a": EVIL}),
    ],
)
def test_there_is_no_other_way_to_the_terminal(write: Callable[[Console], None]) -> None:
    terminal = Terminal()
    write(Console(color=True, out=terminal, err=terminal))
    assert EVIL not in terminal.getvalue()
    assert "\a" not in terminal.getvalue()
    assert re.search(r"\\x1b\]0;x\\x07|\\u001b\]0;x\\u0007", terminal.getvalue())


def test_files_and_pipes_get_what_was_written() -> None:
    out = io.StringIO()
    Console(color=True, out=out, err=out).text(f"{EVIL}\r")
    assert out.getvalue() == f"{EVIL}\r\n"


def test_only_the_console_writes() -> None:
    """What writes past it could let anything through to a terminal."""
    writes = re.compile(r"\bprint\(|sys\.std(out|err)\.write")
    found = [str(file.relative_to(ROOT)) for file in (ROOT / "api" / "cli").rglob("*.py")
             if writes.search(re.sub(r"'[^'\n]*'", "", file.read_text()))]  # fmt: skip
    assert found == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172799, "47h"), (172800, "2d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_terminal_there_is_no_colour_and_nothing_is_shortened() -> None:
    out = io.StringIO()
    console = Console(color=True, out=out, err=io.StringIO())
    console.table((Column("A", flexible=True, colour=lambda _: "red"),), [["x" * 500]])
    assert out.getvalue() == f"A\n{'x' * 500}\n"


@pytest.mark.parametrize(
    ("flags", "variables", "coloured"),
    [((), {}, True), (("--no-color",), {}, False), ((), {"NO_COLOR": "1"}, False), ((), {"TERM": "dumb"}, False)],
)
def test_colours_on_a_terminal(flags: tuple[str, ...], variables: dict[str, str], coloured: bool) -> None:
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60", **variables}
    assert ("\033[" in on_terminal(environment, "config", *flags)) is coloured


def test_lines_fit_a_narrow_terminal() -> None:
    text = on_terminal({**os.environ, "COLUMNS": "40", "NO_COLOR": "1"}, "config")
    assert max(map(len, text.splitlines())) <= 40


def on_terminal(environment: dict[str, str], *argv: str) -> str:
    master, slave = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "api.cli", *argv], stdout=slave, stderr=slave, env=environment):
        os.close(slave)
        data = b""
        while chunk := _read(master):
            data += chunk
    os.close(master)
    return data.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: the other end was closed
        return b""


# On a terminal


def create(live: LiveApi, *names: str) -> list[str]:
    """Declare services; return their ids."""
    for name in names:
        words = ["services", "create", "inference/vllm_dummy", "--name", name, "--server", live.url]
        subprocess.run([sys.executable, "-m", "api.cli", *words], check=True, capture_output=True)
    return [service for (service,) in live.sql("SELECT id FROM services ORDER BY created_at")]


def test_what_goes_on_is_shown_in_one_line_that_goes_away(live: LiveApi) -> None:
    (service,) = create(live, "chat")
    live.observe(service, "Queued", message=f"The job 7 is queued. {'It waits for its turn. ' * 9}")
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60"}
    text = on_terminal(environment, "services", "wait", "chat", "--timeout", "0.5", "--server", live.url)
    assert "\r\033[K⠙ chat  0s" in text
    assert "\033[2m·\033[0m chat  pending: The job 7 is queued." in text
    for line in re.split(r"[\r\n]+", re.sub(r"\033\[[0-9;]*[mK]", "", text)):
        assert len(line) <= 60 or line.startswith("ai-factory: "), line
    live.observe(service, "AsWanted", ready=1)
    text = on_terminal(environment, "services", "wait", "chat", "--server", live.url)
    assert "\033[32m✓\033[0m chat  is running" in text
    assert "\033[32mrunning\033[0m" in text


def test_a_watch_draws_a_table_that_stays_true(live: LiveApi) -> None:
    create(live, "chat", "search")
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "70", "LINES": "5"}
    text = on_terminal(environment, "watch", "--timeout", "2", "--server", live.url)
    *_, last = re.split(r"\033\[\d+F\033\[J", text)
    lines = re.sub(r"\033\[[0-9;]*m", "", last).splitlines()
    assert "2 services" in lines[0]
    assert lines[1].split()[:2] == ["ID", "NAME"]
    assert (lines[2].split()[1], lines[3]) == ("chat", "… and 1 more")
    assert "\033[33mpending\033[0m" in last
    assert max(map(len, lines)) <= 70

"""Text that fits the terminal, and can't steer it."""

from __future__ import annotations

import re
import unicodedata

_COLOUR = r"\x1b\[[0-9;:]{0,40}m"
_STEERING = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
"""Control characters, and those that turn the direction of writing, break lines, or can't be seen at all."""
_LINE_END = r"\r\n?"
_RESET = "\033[0m"


def fitted(text: str, room: int) -> str:
    """Return a text shortened to so many columns, with an ellipsis."""
    if wide(text) <= room:
        return text
    while wide(text) > room - 1:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, room: int) -> list[str]:
    """Return a text in lines of so many columns; a word that is longer than a line is shortened."""
    lines: list[str] = []
    for word in text.split():
        if lines and wide(lines[-1]) + 1 + wide(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(fitted(word, room))
    return lines


def wide(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def visible(text: str) -> str:
    """Return a text as a terminal may get it: what could steer it is spelled out, e.g. `\\x1b`.

    Line feeds and tabs stay. A carriage return ends a line, so that nothing is written over. Colours stay too, and end
    with the text.
    """
    shown = re.sub(f"{_COLOUR}|{_LINE_END}|{_STEERING}", _spelled, text)
    colours = re.findall(_COLOUR, shown)
    return shown + _RESET if colours and colours[-1] not in (_RESET, "\033[m") else shown


def printable(text: str) -> str:
    """Return a text on one line, without colours, and with what could steer the terminal spelled out."""
    shown = re.sub(f"[\\s\\x1c-\\x1f\\x85]|{_STEERING}", lambda m: " " if m[0].isspace() else _spelled(m), text)
    return "".join(c if c.isprintable() else " " for c in shown)


def _spelled(found: re.Match[str]) -> str:
    """Spell a character as JSON does where JSON would leave it as it is; a colour stays, and a line's end is one."""
    text = found[0]
    if text.startswith("\r"):
        return "\n"
    if len(text) > 1:
        return text
    code = ord(text)
    return f"\\x{code:02x}" if code < 32 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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

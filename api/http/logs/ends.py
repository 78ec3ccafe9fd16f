"""The ends of the log files of attempts' jobs."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from api.contract.job.folder import STDERR, STDOUT, job_folder, jobs_folder, rotated
from api.contract.job.token import parse_token

MOST_OF_A_FILE = 256 * 1024
MOST_OF_ALL = 8 * 1024 * 1024
"""Bytes. With many replicas, less of each file is shown."""
FILES = (("STDOUT", STDOUT), ("STDERR", STDERR))


def read_logs(run_dir: Path, tokens: Sequence[str], lines: int | None = None) -> str:
    """Return the logs of these attempts' jobs, one section a file, of each the last so many lines.

    Reads files: not for the event loop.
    """
    most = min(MOST_OF_A_FILE, MOST_OF_ALL // (len(FILES) * max(1, len(tokens))))
    sections = []
    for token in tokens:
        for title, name in FILES:
            file = folder_of(run_dir, token) / name
            sections.append(f"=== SLURM {title} ({file}) ===\n{_end(run_dir, file, most, lines)}")
    return "\n\n".join(sections)


def folder_of(run_dir: Path, token: str) -> Path:
    """Return an attempt's job folder; of a token that is none of ours, one that does not exist."""
    parts = parse_token(token)
    if parts is None:
        return run_dir / "no-such-token"
    return job_folder(jobs_folder(run_dir, parts.installation), parts.service, token)


class OutsideError(Exception):
    """What should be a log is something else, or lies elsewhere; the message says what."""


def open_log(run_dir: Path, file: Path) -> int:
    """Open a regular file in `run_dir` for reading; links out of it are not followed.

    Raises `OutsideError`, and `OSError` if it is not there or can't be read.
    """
    real = Path(os.path.realpath(file, strict=True))
    if not real.is_relative_to(os.path.realpath(run_dir)):
        raise OutsideError(f"{file} leads out of {run_dir}")
    # Neither a link nor a FIFO that takes the file's place is followed or waited for.
    opened = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OutsideError(f"{file} is not a regular file")
    return opened


def begin_of_end(opened: int, lines: int | None, most: int = MOST_OF_A_FILE) -> int:
    """Return where the last lines of a file begin, no further back than `most` bytes."""
    size = os.fstat(opened).st_size
    begin = max(0, size - most)
    if lines is None:
        return begin
    text = os.pread(opened, size - begin, begin)
    place = len(text) - text.endswith(b"\n")
    for _ in range(lines):
        place = text.rfind(b"\n", 0, max(0, place))
        if place < 0:
            return begin
    return begin + place + 1 if lines else size


def _end(run_dir: Path, file: Path, most: int, lines: int | None) -> str:
    """Return the last bytes, or lines, of a file as text; or why there is none."""
    try:
        left_out, found = _read_end(run_dir, file, most, lines)
        there = len(found.splitlines())
        if left_out == 0 and len(found) < most and (lines is None or there < lines):
            with contextlib.suppress(OSError, OutsideError):
                missing = None if lines is None else lines - there
                left_out, earlier = _read_end(run_dir, rotated(file), most - len(found), missing)
                found = earlier + found
        text = found.decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return f"File not found: {file}"
    except OutsideError as error:
        return f"Not shown: {error}"
    except OSError as error:
        return f"{file} can't be read: {error.strerror}"
    return f"[{left_out} earlier bytes are left out]\n{text}" if left_out and lines is None else text


def _read_end(run_dir: Path, file: Path, most: int, lines: int | None) -> tuple[int, bytes]:
    """Return the last bytes, or lines, of a file, and how many bytes stand before them."""
    with os.fdopen(open_log(run_dir, file), "rb") as stream:
        begin = begin_of_end(stream.fileno(), lines, most)
        stream.seek(begin)
        return begin, stream.read(most)

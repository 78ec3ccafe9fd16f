"""The ends of the log files of attempts' jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from api.contract.identity import parse_token

MOST_OF_A_FILE = 256 * 1024
MOST_OF_ALL = 8 * 1024 * 1024
"""Bytes. With many replicas, less of each file is shown."""
FILES = (("STDOUT", "stdout.log"), ("STDERR", "stderr.log"))


def read_logs(run_dir: Path, tokens: Sequence[str]) -> str:
    """Return the logs of these attempts' jobs, one section a file. Reads files: not for the event loop."""
    most = min(MOST_OF_A_FILE, MOST_OF_ALL // (len(FILES) * max(1, len(tokens))))
    sections = []
    for token in tokens:
        for title, name in FILES:
            file = _folder(run_dir, token) / name
            sections.append(f"=== SLURM {title} ({file}) ===\n{_end(run_dir, file, most)}")
    return "\n\n".join(sections)


def _folder(run_dir: Path, token: str) -> Path:
    """Return an attempt's job folder; of a token that is none of ours, one that does not exist."""
    parts = parse_token(token)
    return run_dir / parts.installation / parts.service / token if parts else run_dir / "no-such-token"


def _end(run_dir: Path, file: Path, most: int) -> str:
    """Return the last bytes of a regular file in `run_dir`, as text; links out of it are not followed."""
    try:
        real = Path(os.path.realpath(file, strict=True))
        if not real.is_relative_to(os.path.realpath(run_dir)):
            return f"Not shown: {file} leads out of {run_dir}"
        if not real.is_file():
            return f"Not shown: {file} is not a regular file"
        # Neither a link nor a FIFO that has taken the file's place since then is followed or waited for.
        with os.fdopen(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            left_out = max(0, os.fstat(stream.fileno()).st_size - most)
            stream.seek(left_out)
            text = stream.read(most).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return f"File not found: {file}"
    except OSError as error:
        return f"{file} can't be read: {error.strerror}"
    return f"[{left_out} earlier bytes are left out]\n{text}" if left_out else text

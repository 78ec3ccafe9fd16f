"""The Pythons of this machine that jobs may run on, wherever version managers keep them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from api.contract.job_shell import OLDEST

ASK = "import sys; print('%d.%d.%d' % sys.version_info[:3])"

MISSING = (
    "There is no Python {oldest} on this machine, so the oldest one that jobs may have ran nothing. Install it, "
    "e.g. by `pyenv install {oldest}` or `uv python install {oldest}`, or put python{oldest} on PATH. "
    "Looked in PATH and {places}."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """One interpreter, as it answered."""

    path: str
    version: tuple[int, int, int]

    @property
    def name(self) -> str:
        """Its version, as people write it."""
        return ".".join(map(str, self.version))


def places(environment: Mapping[str, str], home: Path) -> list[Path]:
    """Return where version managers keep Pythons: patterns, from the root on."""
    data = Path(environment.get("XDG_DATA_HOME") or home / ".local/share")
    conda = [home / name for name in ("miniconda3", "miniforge3", "anaconda3", ".conda")] + [Path("/opt/conda")]
    return [
        Path(environment.get("PYENV_ROOT") or home / ".pyenv") / "versions/*/bin",
        Path(environment.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python") / "*/bin",
        Path(environment.get("ASDF_DATA_DIR") or home / ".asdf") / "installs/python/*/bin",
        data / "mise/installs/python/*/bin",
        Path("/opt/python/*/bin"),
        Path(environment.get("RUNNER_TOOL_CACHE") or "/opt/hostedtoolcache") / "Python/*/*/bin",
        *(folder for root in conda for folder in (root / "bin", root / "envs/*/bin")),
    ]


def find(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> list[Python]:
    """Return the newest of each minor version from the oldest that jobs may have on; ours stands for its own."""
    found: dict[tuple[int, int], Python] = {}
    for path in (sys.executable, *_candidates(environment, home or Path.home())):
        version = _version(path)
        if version is None or version < OLDEST:
            continue
        known = found.get(version[:2])
        if known is None or (known.path != sys.executable and known.version < version):
            found[version[:2]] = Python(path=path, version=version)
    return [found[minor] for minor in sorted(found)]


def missing(pythons: Iterable[Python], environment: Mapping[str, str] = os.environ, home: Path | None = None) -> str:
    """Say that the oldest Python is not among those that were found, and what to do; "" if it is."""
    if any(python.version[:2] == OLDEST for python in pythons):
        return ""
    looked = ", ".join(map(str, places(environment, home or Path.home())))
    return MISSING.format(oldest=".".join(map(str, OLDEST)), places=looked)


def _candidates(environment: Mapping[str, str], home: Path) -> Iterator[str]:
    search = environment.get("PATH", "")
    for minor in range(OLDEST[1], OLDEST[1] + 12):
        path = shutil.which(f"python3.{minor}", path=search)
        if path is not None:
            yield path
    for pattern in places(environment, home):
        for folder in sorted(Path("/").glob(str(pattern.relative_to("/")))):
            if (folder / "python3").exists():
                yield str(folder / "python3")


def _version(path: str) -> tuple[int, int, int] | None:
    """Ask a Python for its version; `None`: it is none, as a shim that has nothing behind it."""
    try:
        answer = subprocess.run([path, "-c", ASK], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)\n", answer.stdout)
    return (int(match[1]), int(match[2]), int(match[3])) if match and answer.returncode == 0 else None

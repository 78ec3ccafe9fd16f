"""Whether the engine sees the models, and whatever else it is told to read.

vLLM takes a path that is not there for a name on the Hugging Face hub, and says so after it has held its GPUs for a
while. So its own container is asked before it is started.
"""

from __future__ import annotations

import difflib
import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from api.contract.job.parameters import Parameters
from api.contract.job.words import ExitReason
from controller.wrapper.report import FailedError
from controller.wrapper.sandbox.place import Place
from controller.wrapper.signals import Signals

SECONDS = 60.0
"""So long the container may take to say what it sees; then the engine is started, and says it itself."""

ASK = r'for path; do [ -e "$path" ] || printf "%s\0" "$path"; done'
"""Run by a shell: print what is not there."""

PAUSE = 0.05

ADD = "A folder of the node's is seen once models.folders in the site's configuration names it, or the recipe's binds."


def require_paths(place: Place, parameters: Parameters, signals: Signals) -> None:
    """Raise `FailedError` (`PathUnseen`) for a file or folder that the engine is told to read and does not see."""
    if not parameters.paths:
        return
    if parameters.image is None:
        unseen = [path for path in parameters.paths if not Path(place.folder, path).exists()]
    else:
        unseen = _unseen(place, parameters.paths, signals)
    if unseen:
        raise FailedError(ExitReason.PATH_UNSEEN, "\n".join(_why(path, parameters) for path in unseen))


def _unseen(place: Place, paths: Sequence[str], signals: Signals) -> list[str]:
    """Ask the engine's container; what it can't be asked is taken for seen."""
    answer = place.folder / "paths"
    output = os.open(answer, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        asked = place.start(["/bin/sh", "-c", ASK, "sh", *paths], output)
    except OSError:
        return []  # it is told when the engine is started
    finally:
        os.close(output)
    try:
        while (code := asked.exit_code()) is None and asked.age < SECONDS:
            signals.check()
            signals.wait(PAUSE)
    finally:
        asked.cut()
    said = answer.read_bytes().split(b"\0")[:-1] if code == 0 else []
    return [path for path in paths if os.fsencode(path) in said]


def _why(path: str, parameters: Parameters) -> str:
    """Say what is the matter with a path, and what to do about it."""
    here, bound = socket.gethostname(), bound_folders(parameters)
    real = os.path.realpath(path)
    if Path(path).exists() and parameters.image is not None:
        leads = f" leads to {real}, which" if _is_below(path, bound) else ""
        return f"{path}{leads} is there on {here}, but is not bound into the container. {ADD}"
    if _is_below(path, bound) or parameters.image is None:
        return f"There is no {path} on {here}.{_similar(path)}"
    return f"There is no {path}, neither on {here} nor in the image. {ADD}"


def bound_folders(parameters: Parameters) -> Mapping[str, str]:
    """Return where the container sees which folder of the node."""
    own = [*parameters.model_folders, *filter(None, [parameters.model_cache])]
    binds = [(bind.split(":") * 2)[:2] for bind in parameters.binds]
    return {**{folder: folder for folder in own}, **{target: source for source, target in binds}}


def _is_below(path: str, folders: Mapping[str, str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _similar(path: str) -> str:
    """Name what lies beside it and is spelled much like it."""
    place, _, name = path.rstrip("/").rpartition("/")
    try:
        found = difflib.get_close_matches(name, os.listdir(place or "/"), n=1, cutoff=0.6)  # noqa: PTH208
    except OSError:
        return f" There is no {shlex.quote(place)} either."
    return f" Did you mean {place}/{found[0]}?" if found else ""

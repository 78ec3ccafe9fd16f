"""The engine's command line, in a container and without one."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.contract.job.parameters import Parameters
from controller.wrapper.locks.volumes import data
from controller.wrapper.sandbox.gpus import container_options

RECIPE_FOLDER = "/recipe"
"""Where the recipe's files are inside a container."""

SOCKET_FOLDER = "/engine"
"""Where the folder of the engine's socket is inside a container."""

HOME = "/home/engine"
"""Where a home of the engine's own is: under its own path it could be hidden by the container's /tmp."""


@dataclass(frozen=True)
class Folders:
    """What of the node's a container gets to see."""

    scratch: Path
    files: Path | None
    """Those of the recipe."""
    socket: Path | None
    """The one in which the engine makes its socket."""
    models: Path | None
    """The one into which it downloads models."""


def in_container(
    parameters: Parameters,
    image: Path,
    command: Sequence[str],
    *,
    folders: Folders,
    home: str | None,
    job: Mapping[str, str],
) -> list[str]:
    """Return Apptainer's command line. No value of an environment and no secret is in it.

    `--containall` without `--workdir` would put /tmp and the home into memory, or into 64 MB where Apptainer is
    installed setuid; `home` is the engine's HOME, as it is to see it; `job` the job's environment.
    """
    scratch = folders.scratch
    options = ["--containall", "--no-eval", "--pwd", "/tmp", "--workdir", str(scratch)]  # noqa: S108
    options += container_options(parameters.nv, parameters.gpu_vendor, job)
    if parameters.home is not None or home is not None:
        source = parameters.home or str(scratch / "home")
        options += ["--home", f"{source}:{home or HOME}"]
    if folders.files is not None:
        options += ["--mount", _mount(folders.files, RECIPE_FOLDER, "ro")]
    if folders.socket is not None:
        options += ["--mount", _mount(folders.socket, SOCKET_FOLDER)]
    for volume in parameters.volumes:
        options += ["--mount", _mount(data(volume), volume.target)]
    for folder in filter(os.path.exists, parameters.model_folders):
        options += ["--mount", _mount(Path(folder), folder, "ro")]
    if folders.models is not None:
        options += ["--mount", _mount(folders.models, str(folders.models))]
    for bind in parameters.binds:
        options += ["--bind", bind]
    return [parameters.apptainer, "-q", "exec", *options, str(image), *command]


def _mount(source: Path, destination: str, *options: str) -> str:
    """Spell a bind so that commas and colons in paths are harmless (in `--bind` they are not)."""
    line = io.StringIO()
    words = ["type=bind", f"source={source}", f"destination={destination}", *options]
    csv.writer(line, lineterminator="").writerow(words)
    return line.getvalue()

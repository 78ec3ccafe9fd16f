"""The engine's environment: what it is given, and how that gets there byte for byte.

Measured with Apptainer 1.4: `--env` splits at commas, `--env-file` and, without `--no-eval`, every value is run through
a shell; APPTAINERENV_NAME with `--no-eval` arrives as it is, quotes, newlines and `$()` included. It stands in no argv.
HOME alone can't be given that way: see `command`.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api.contract.job.parameters import Parameters, SecretFiles, Text
from api.contract.job.private import open_regular
from api.contract.job.words import ExitReason
from controller.wrapper.report import FailedError
from controller.wrapper.sandbox.gpus import VARIABLES

LARGEST_SECRET = 100_000
"""Characters; the kernel takes no longer variable than 128 KiB."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Runtime:
    """What only the running job knows."""

    port: int | None
    socket: str | None
    """The path of the socket, as the engine sees it."""
    host: str
    files: str
    """The folder of the recipe's files, as the engine sees it."""

    def join(self, text: Text) -> str:
        """Return the text with its runtime values in place; raises `FailedError` for one that there is not."""
        if isinstance(text, str):
            return text
        return "".join(piece if isinstance(piece, str) else self._value(piece["runtime"]) for piece in text)

    def _value(self, name: str) -> str:
        values = {"port": self.port, "socket": self.socket, "host": self.host, "files": self.files}
        if values[name] is None:
            raise FailedError(ExitReason.PARAMETERS_BAD, f"a {name} is asked for, but the engine is to listen on none")
        return str(values[name])


def read_secrets(parameters: Parameters) -> dict[str, str]:
    """Read the values that come by file, less one newline at the end; raises `FailedError` (`SecretMissing`).

    A file that others may read is refused: what lies in it is no secret.
    """
    secrets = {}
    for name, path in parameters.environment_from.items():
        real = Path(os.path.realpath(path))
        _require_place(f"{name}: {path}", real, parameters.secret_files)
        try:
            with open_regular(real) as file:
                opened = Path(os.readlink(f"/proc/self/fd/{file.fileno()}"))  # noqa: PTH115
                _require_place(f"{name}: {path}", opened, parameters.secret_files)  # somebody may have moved it
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                value = file.read(LARGEST_SECRET + 1).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise FailedError(ExitReason.SECRET_MISSING, f"{name}: cannot read {path}: {error.strerror}") from error
        if mode & 0o077:
            raise FailedError(ExitReason.SECRET_MISSING, f"{name}: others may read {path}: chmod 600 {path}")
        if "\0" in value or len(value) > LARGEST_SECRET:
            raise FailedError(
                ExitReason.SECRET_MISSING, f"{name}: {path} is not text of at most {LARGEST_SECRET} characters"
            )
        secrets[name] = value[:-1] if value.endswith("\n") else value
    if parameters.secret is not None and parameters.secret_variable is not None:
        secrets[parameters.secret_variable] = parameters.secret
    return secrets


def _require_place(which: str, real: Path, files: SecretFiles) -> None:
    wrong = _misplaced(real, files)
    if wrong is not None:
        raise FailedError(ExitReason.SECRET_MISSING, f"{which} {wrong}")


def _misplaced(real: Path, files: SecretFiles) -> str | None:
    """Say why a file, links followed, may not be read for a service; `None`: it may."""
    for own in map(Path, files.never):
        place = Path(os.path.realpath(own))
        if place == real or place in real.parents or _is_same(own, real):
            return "is the installation's own, and never a service's secret"
    if files.roots and not any(Path(os.path.realpath(root)) in real.parents for root in files.roots):
        return f"leads to {real}, which is not below {' or '.join(files.roots)} (slurm.secret_roots)"
    return None


def _is_same(own: Path, path: Path) -> bool:
    """Whether it is one and the same file under another name (link(2))."""
    try:
        return own.samefile(path)
    except OSError:
        return False


def engine_variables(
    parameters: Parameters, secrets: Mapping[str, str], runtime: Runtime, job: Mapping[str, str]
) -> dict[str, str]:
    """Return all that the engine is given, later ones winning: the job's GPUs, the recipe's values, the secrets."""
    devices = {name: value for name, value in job.items() if name.startswith(VARIABLES)}
    given = {name: runtime.join(text) for name, text in parameters.environment.items()}
    return {**devices, "AF_RECIPE_DIR": runtime.files, **given, **secrets}


def for_models(cache: Path | None) -> dict[str, str]:
    """Return where Hugging Face's libraries keep what they download, unless the engine is told otherwise.

    Code that comes with models (`trust_remote_code`) is kept out of the cache, which other engines use too.
    """
    return {} if cache is None else {"HF_HOME": str(cache), "HF_MODULES_CACHE": "/tmp/hf-modules"}  # noqa: S108


def for_container(engine: Mapping[str, str], job: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return the environment of Apptainer itself: the job's, and the engine's under the prefix that carries it in.

    Where a node can't mount images (`/dev/fuse` is closed), Apptainer unpacks them into APPTAINER_TMPDIR, else into
    /tmp, and leaves that there when it is killed. In the job's own folder it goes with it. A site may say otherwise.
    """
    inside = {f"APPTAINERENV_{name}": value for name, value in engine.items() if name != "HOME"}
    room = {name: str(scratch) for name in ("APPTAINER_TMPDIR", "SINGULARITY_TMPDIR")}
    return {**room, **job, **inside}


def for_node(engine: Mapping[str, str], job: Mapping[str, str], home: str) -> dict[str, str]:
    """Return the environment of an engine that runs without a container: a minimal one, and what it is given."""
    minimal = {"PATH": job.get("PATH") or PATH, "HOME": home, "LANG": "C.UTF-8", "USER": _user()}
    if "SLURM_JOB_ID" in job:
        minimal["SLURM_JOB_ID"] = job["SLURM_JOB_ID"]
    return {**minimal, **engine}


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())

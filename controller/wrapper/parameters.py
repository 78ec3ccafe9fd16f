"""`params.json`: what this job is to run, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.contract.job.folder import PARAMETERS
from controller.wrapper.report import FailedError

if TYPE_CHECKING:
    Piece = str | Mapping[str, str]
    Text = str | tuple[Piece, ...]

VERSION = 1
"""The newest version of the file that is understood here."""

RUNTIME_VALUES = ("port", "host", "files")
"""What `{"runtime": …}` may stand for."""


@dataclass(frozen=True)
class Image:
    """A path or URI, or the text of a definition file."""

    source: str | None
    definition: str | None


@dataclass(frozen=True)
class Volume:
    """A folder that one job at a time may write to."""

    source: str
    """Its absolute path on the node."""
    target: str
    """Where the engine sees its data."""
    root: str | None
    """Below which it must lie, links followed; `None`: anywhere."""


@dataclass(frozen=True)
class Check:
    """A command whose exit code says whether the engine is well. Times in seconds."""

    command: tuple[Text, ...]
    interval: float
    timeout: float


@dataclass(frozen=True)
class Parameters:
    """All that the controller says about the job; see the launch spec for what each means."""

    token: str
    image: Image | None
    refresh: bool
    """The image is to be made anew."""
    image_cache: Path
    apptainer: str
    command: tuple[Text, ...]
    """Empty: the image is to be made, and nothing is run in it."""
    environment: Mapping[str, Text]
    environment_from: Mapping[str, str]
    binds: tuple[str, ...]
    volumes: tuple[Volume, ...]
    files: Mapping[str, str]
    nv: bool
    listens: bool
    host: str
    secret: str | None
    secret_variable: str | None
    port_range: tuple[int, int] | None
    """Lowest and highest port, both included; `None`: any."""
    stop_grace: float
    """Seconds between TERM and KILL."""
    home: str | None
    """The engine's home on the node; `None`: a folder that ends with the job."""
    check: Check | None
    """`None`: the controller asks the engine itself."""
    digest: str | None
    """What identifies the launch spec; told on, not used."""
    log_bytes: int
    """A log that is longer is rotated; 0: none is."""


def read(path: Path) -> Parameters:
    """Read the file; raises `FailedError` (`ParametersBad`, `ParametersTooNew`)."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FailedError("ParametersBad", f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise FailedError("ParametersBad", f"{path} is not JSON") from error
    try:
        _check_version(raw)
        return _parse(_Fields(raw))
    except (TypeError, ValueError) as error:
        raise FailedError("ParametersBad", f"{path}: {error}") from error


def _check_version(raw: object) -> None:
    version = raw.get("version") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise TypeError("no version")
    if version > VERSION:
        raise FailedError("ParametersTooNew", f"{PARAMETERS} has version {version}; this wrapper knows {VERSION}")


def _parse(fields: _Fields) -> Parameters:
    command, image = fields.get("command", _texts, ()), fields.get("image", _image, None)
    if not command and image is None:
        raise ValueError("command: empty")
    return Parameters(
        token=fields.get("token", _string, ""),
        image=image,
        refresh=fields.get("refresh", _boolean, False),
        image_cache=Path(fields.get("image_cache", _string, ".")),
        apptainer=fields.get("apptainer", _string, "apptainer"),
        command=command,
        environment=fields.get("environment", _environment, {}),
        environment_from=fields.get("environment_from", _environment_from, {}),
        binds=fields.get("binds", _strings, ()),
        volumes=fields.get("volumes", _volumes, ()),
        files=fields.get("files", _files, {}),
        nv=fields.get("nv", _boolean, False),
        listens=fields.get("listens", _boolean, True),
        host=fields.get("host", _string, "0.0.0.0"),  # noqa: S104
        secret=fields.get("secret", _string, None),
        secret_variable=fields.get("secret_variable", _variable, None),
        port_range=fields.get("port_range", _port_range, None),
        stop_grace=fields.get("stop_grace", _seconds, 30.0),
        home=fields.get("home", _string, None),
        check=fields.get("check", _check, None),
        digest=fields.get("digest", _string, None),
        log_bytes=fields.get("log_bytes", _bytes, 0),
    )


class _Fields:
    """The file's keys: null and absent are the same, unknown ones are ignored."""

    def __init__(self, raw: Mapping[str, object]) -> None:
        self._raw = raw

    def get(self, name: str, parse: Callable[[Any], Any], default: Any) -> Any:
        value = self._raw.get(name)
        try:
            return default if value is None else parse(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    if "\0" in value:
        raise ValueError("has a NUL character")
    return value


def _strings(value: object) -> tuple[str, ...]:
    return tuple(_string(item) for item in _list(value))


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not true or false")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise TypeError("not a number of seconds")
    return float(value)


def _bytes(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("not a number of bytes")
    return value


def _port_range(value: object) -> tuple[int, int]:
    low, high = _list(value)
    if not isinstance(low, int) or not isinstance(high, int) or not 0 < low <= high < 65536:
        raise TypeError("not a range of ports")
    return low, high


def _variable(value: object) -> str:
    """Check a name: Apptainer writes names into shell text, so nothing but a plain identifier may pass."""
    name = _string(value)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
        raise ValueError(f"{name!r} can't name a variable")
    return name


def _piece(value: object) -> Piece:
    if isinstance(value, str):
        return _string(value)
    runtime = _mapping(value).get("runtime")
    if runtime not in RUNTIME_VALUES:
        raise ValueError(f"unknown runtime value {runtime!r}")
    return {"runtime": str(runtime)}


def _text(value: object) -> Text:
    return _string(value) if isinstance(value, str) else tuple(_piece(piece) for piece in _list(value))


def _texts(value: object) -> tuple[Text, ...]:
    return tuple(_text(item) for item in _list(value))


def _environment(value: object) -> dict[str, Text]:
    return {_variable(name): _text(text) for name, text in _mapping(value).items()}


def _environment_from(value: object) -> dict[str, str]:
    return {_variable(name): _string(path) for name, path in _mapping(value).items()}


def _files(value: object) -> dict[str, str]:
    files = {name: _string(text) for name, text in _mapping(value).items()}
    for name in files:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} is not a plain file name")
    return files


def _check(value: object) -> Check:
    fields = _Fields(_mapping(value))
    command = fields.get("command", _texts, ())
    if not command:
        raise ValueError("its command is empty")
    return Check(
        command=command, interval=fields.get("interval", _seconds, 10.0), timeout=fields.get("timeout", _seconds, 5.0)
    )


def _volumes(value: object) -> tuple[Volume, ...]:
    fields = [_Fields(_mapping(item)) for item in _list(value)]
    volumes = tuple(
        Volume(each.get("source", _folder, ""), each.get("target", _folder, ""), each.get("root", _folder, None))
        for each in fields
    )
    if not all(volume.source and volume.target for volume in volumes):
        raise ValueError("a volume needs source and target")
    return volumes


def _folder(value: object) -> str:
    path = _string(value)
    if not path.startswith("/") or not path.isprintable() or ".." in path.split("/"):
        raise ValueError(f"{path!r} is no plain absolute path")
    return path


def _image(value: object) -> Image:
    image = _mapping(value)
    source, definition = image.get("source"), image.get("definition")
    if (source is None) == (definition is None):
        raise ValueError("needs a source or a definition")
    return Image(
        source=None if source is None else _string(source),
        definition=None if definition is None else _string(definition),
    )

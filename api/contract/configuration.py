"""Settings: one TOML file, then the environment (`AI_FACTORY_…`), then flags, each stronger than the one before.

This is the only module that reads the environment. `load` is called once, by each program's entry point.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from api.contract.exits import Exit, ExitError
from api.contract.job.parameters import is_plain_folder
from api.contract.job.sockets import LONGEST_PATH
from api.contract.settings import LeftOut, Settings

PREFIX = "AI_FACTORY_"
_OLD_NAMES = {"controller.log_format": "log_format"}
"""Settings that had another name before."""


class SettingsError(ExitError):
    """A setting is unknown or has a bad value; the message names it, its source and what to do."""

    code = Exit.SETUP


def load(
    flags: Mapping[str, str] | None = None,
    *,
    config: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Build the settings.

    `flags` are dotted keys (`api.port`) with their text values. `config` is the TOML file; without it
    AI_FACTORY_CONFIG names it, else `~/.config/ai-factory/config.toml` is read if it exists.
    Raises `SettingsError`.
    """
    environ = os.environ if environ is None else environ
    values = _from_file(_config_path(config, environ))
    for old, new in _OLD_NAMES.items():
        _rename(values, old, new, environ.get(_variable(old)))
    known = dict(_leaves(Settings))
    for key, (path, kind) in {_variable(path): (path, kind) for path, kind in known.items()}.items():
        if key in environ:
            _put(values, path, _typed(environ[key], kind, f"the environment variable {key}"))
    for path, text in (flags or {}).items():
        if path not in known:
            raise SettingsError(f"There is no setting {path}. `ai-factory config` lists them all.")
        _put(values, path, _typed(text, known[path], f"the flag for {path}"))
    return _build(values, environ)


def key_file_of_a_client(environ: Mapping[str, str]) -> Path | None:
    """Return the file with the key for a server that the command line names: there the variable means that key."""
    named = environ.get(_variable("key_file"))
    return expanded(named) if named else None


def expanded(path: str | Path, what: str = "") -> Path:
    """Return a path with `~` filled in; `what` begins the message. Raises `SettingsError` where that is nobody's."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SettingsError(
            f"{what}{path} is no path here: there is no such user, or no home folder of theirs."
        ) from error


def _home(environ: Mapping[str, str]) -> Path:
    """Return this user's home folder, by HOME, else by what the host knows of users (passwd(5))."""
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError as error:
        raise SettingsError(
            "HOME is not set, and this host knows no home folder of this user. Set HOME: configuration and state "
            "are looked for below it."
        ) from error


def process_environment() -> dict[str, str]:
    """Return a copy of the environment of this process, for the commands it starts."""
    return dict(os.environ)


def shared_folder(name: str) -> Path:
    """Return where `recipes` or `migrations` lie: in the source tree, or installed beside the package."""
    tree = Path(__file__).resolve().parents[2] / name
    if tree.is_dir():
        return tree
    return Path(__file__).resolve().parents[5] / "share" / "ai-factory" / name


def _config_path(config: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    chosen = config or environ.get(PREFIX + "CONFIG")
    if chosen:
        return expanded(chosen)
    home = Path(environ.get("XDG_CONFIG_HOME") or _home(environ) / ".config")
    usual = home / "ai-factory" / "config.toml"
    return usual if usual.exists() else None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"The configuration file {path} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The configuration file {path} is not valid TOML: {error}.") from error


def _build(values: dict[str, Any], environ: Mapping[str, str]) -> Settings:
    home = _home(environ)
    state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "ai-factory"
    values.setdefault("state_dir", str(state))
    values["state_dir"] = _absolute("state_dir", values["state_dir"])
    values["run_dir"] = _absolute("run_dir", values.get("run_dir", str(home / ".local/share/ai-factory")))
    values["key_file"] = _absolute("key_file", values.get("key_file", f"{values['state_dir']}/installation.key"))
    recipes = values.get("recipes", [str(shared_folder("recipes"))])
    if isinstance(recipes, str):
        recipes = recipes.split(os.pathsep)
    if not isinstance(recipes, list):
        raise SettingsError(f"recipes must be a list of folders, not {recipes!r}.")
    values["recipes"] = [_absolute("recipes", folder) for folder in recipes]
    values.setdefault("database_url", f"sqlite:///{Path(values['state_dir']) / 'ai-factory.db'}")
    try:
        settings = msgspec.convert(values, Settings, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise SettingsError(f"A setting has a bad value: {error}. `ai-factory config` shows them all.") from error
    _refuse_unknown(values, Settings, "")
    _check_relative(settings)
    unsafe = set("\n\r\0,:\\\"'$`% ") & set(str(settings.run_dir))
    if unsafe:
        raise SettingsError(f"run_dir ({settings.run_dir}) may not contain {' '.join(map(repr, sorted(unsafe)))}.")
    ports = settings.slurm.port_range
    if ports is not None and ports[0] > ports[1]:
        raise SettingsError(f"slurm.port_range must run from low to high, not {ports[0]} to {ports[1]}.")
    for folder in filter(None, (*settings.models.folders, settings.models.cache)):
        if not is_plain_folder(folder):
            raise SettingsError(f"models: {folder} must be a plain absolute path on the compute nodes, without `..`.")
    if settings.api.require_key:
        _check_key_required(settings)
    if (settings.api.tls_certificate is None) != (settings.api.tls_key is None):
        raise SettingsError("api.tls_certificate and api.tls_key belong together: set both, or neither.")
    return settings


def _check_relative(settings: Settings) -> None:
    """Raise `SettingsError` for a path that stays text, and is relative; a command's mere name is none."""
    slurm, commands = (
        settings.slurm,
        {"slurm.python": settings.slurm.python, "apptainer.command": settings.apptainer.command},
    )
    paths = {"slurm.conf": slurm.conf, "slurm.bin_dir": slurm.bin_dir, "slurm.volumes": slurm.volumes}
    paths |= {key: command for key, command in commands.items() if "/" in command}
    for key, path in paths.items():
        if path and not Path(path).is_absolute():
            raise SettingsError(f"{key}: {_relative(path)}.")


def _check_key_required(settings: Settings) -> None:
    """Raise `SettingsError` where the API would serve nobody over TCP, or the command line over no socket."""
    if settings.api.admin_key_file is None:
        raise SettingsError(
            "api.require_key is true, and there is no administrator's key to ask for. "
            "Make one (umask 077; openssl rand -hex 32 > FILE) and set api.admin_key_file to it."
        )
    size = len(os.fsencode(settings.api_socket))
    if size > LONGEST_PATH:
        raise SettingsError(
            f"state_dir ({settings.state_dir}) is too long for api.require_key: the socket {settings.api_socket} in it "
            f"has {size} bytes, and may have {LONGEST_PATH}. Set state_dir to a shorter path."
        )


def _absolute(key: str, path: object) -> str:
    """Return an absolute path, `~` filled in. A relative one would be another wherever a program is started."""
    if not isinstance(path, str) or not path:
        raise SettingsError(f"{key}: {path!r} is no path: give one, or leave the setting out.")
    full = expanded(path, f"{key}: ")
    if not full.is_absolute():
        raise SettingsError(f"{key}: {_relative(path)}.")
    return str(full)


def _relative(path: str) -> str:
    whole = expanded(path).absolute()
    return f"{path} is a relative path, which is another one wherever a program is started: write {whole}"


def _refuse_unknown(values: Mapping[str, Any], kind: type, prefix: str) -> None:
    names = {f.name for f in fields(kind)}
    hints = get_type_hints(kind)
    for key, value in values.items():
        if key not in names:
            raise SettingsError(f"There is no setting {prefix}{key}. `ai-factory config` lists them all.")
        if is_dataclass(hints[key]) and isinstance(value, Mapping):
            _refuse_unknown(value, hints[key], f"{prefix}{key}.")


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        path = expanded(str(value))
        if not path.is_absolute():
            raise ValueError(_relative(value))
        return path
    raise NotImplementedError(f"no way to read {kind}")


def _leaves(kind: type, prefix: str = "") -> list[tuple[str, Any]]:
    """List the dotted path and the type of every setting that one text value can hold."""
    hints = get_type_hints(kind)
    found: list[tuple[str, Any]] = []
    for item in fields(kind):
        hint = hints[item.name]
        if is_dataclass(hint):
            found += _leaves(hint, f"{prefix}{item.name}.")  # type: ignore[arg-type]
        elif item.name != "recipe":
            found.append((prefix + item.name, hint))
    return found


def _rename(values: dict[str, Any], old: str, new: str, given: str | None) -> None:
    """Have a setting's old name mean the new one, which is stronger where the file has both."""
    table, _, key = old.rpartition(".")
    inner = values.get(table)
    found = inner.pop(key, None) if isinstance(inner, dict) else None
    if given is not None:
        values[new] = given
    elif found is not None:
        values.setdefault(new, found)


def _variable(path: str) -> str:
    return PREFIX + path.replace(".", "_").upper()


def _typed(text: str, kind: Any, source: str) -> Any:
    if kind in (str, Path, Path | None):
        return text or (None if kind == Path | None else "")
    if kind == tuple[Path, ...]:
        return text.split(os.pathsep)
    if kind in (tuple[str, ...], tuple[LeftOut, ...], tuple[int, int] | None):
        items: list[Any] = [part.strip() for part in text.split(",") if part.strip()]
        return [int(item) for item in items] if kind != tuple[str, ...] and all(map(str.isdecimal, items)) else items
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source} has a bad value, {text!r}: {error}.") from error


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, last = path.split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"The setting {group} must be a table.")
        values = inner
    values[last] = value

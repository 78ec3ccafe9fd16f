"""Settings: one TOML file, then the environment (`AI_FACTORY_…`), then flags, each stronger than the one before.

This is the only module that reads the environment. `load` is called once, by each program's entry point.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from api.contract.exits import Exit, ExitError
from api.contract.job.parameters import is_plain_folder
from api.contract.job.sockets import LONGEST_PATH

PREFIX = "AI_FACTORY_"
Pause = Annotated[float, msgspec.Meta(gt=0, le=10**7)]
Grace = Annotated[float, msgspec.Meta(ge=0, le=10**7)]
"""Seconds."""
_OLD_NAMES = {"controller.log_format": "log_format"}
"""Settings that had another name before."""
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class SettingsError(ExitError):
    """A setting is unknown or has a bad value; the message names it, its source and what to do."""

    code = Exit.SETUP


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The REST API."""

    host: str = "127.0.0.1"
    """Any address but loopback needs `admin_key_file`."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8001
    admin_key_file: Path | None = None
    """File of mode 0600 with the administrator's key; sent by clients as `Authorization: Bearer KEY`."""
    require_key: bool = False
    """Over TCP the operator's own connections need the key too; the command line comes by a Unix socket."""


LeftOut = Literal["cpu", "memory", "time_limit"]
"""What of a job's resources Slurm can choose by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSettings:
    """How jobs are submitted on this site. Empty strings mean: Slurm's own default."""

    conf: str = ""
    """Path of slurm.conf where the commands do not find it themselves (SLURM_CONF)."""
    bin_dir: str = ""
    """Folder of sbatch, squeue and so on, where they are not on PATH."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    gres: str = ""
    extra_options: tuple[str, ...] = ()
    """Further sbatch options for every job, from the allow-list, e.g. `["--exclusive"]`."""
    leave_out: tuple[LeftOut, ...] = ()
    """What no job asks for, whoever says how much: Slurm chooses. Some sites refuse `--mem`."""
    gpu_vendor: Literal["auto", "nvidia", "amd", "intel"] = "auto"
    """Whose GPUs the nodes have; `auto`: each job looks."""
    prologue: str = ""
    """Shell text run in the job before anything else, e.g. `module load apptainer`. The site's own, trusted."""
    python: str = "python3"
    """The Python (3.9 or later) on the compute nodes that runs the job's supervisor; else jobs look for another."""
    volumes: str = ""
    """Folder on the compute nodes for the writable volumes of services; empty: `volumes` in run_dir."""
    volume_roots: tuple[str, ...] = ()
    """Folders on the compute nodes below which a service's config may place volumes by path."""
    secret_roots: tuple[str, ...] = ()
    """Folders on the compute nodes below which the files of `environment_from` must lie; empty: anywhere."""
    port_range: tuple[Port, Port] | None = None
    """Ports that jobs may listen on, where a firewall leaves only some open."""
    time_warning: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 120
    """Seconds before the time limit at which the job is warned."""
    command_timeout: Pause = 20.0
    """Seconds after which a Slurm command counts as unanswered."""
    log_megabytes: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 100
    """A job's stdout.log or stderr.log that is longer is moved to its one older file, `.1`; 0: they grow on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApptainerSettings:
    """The container runtime on the compute nodes."""

    command: str = "apptainer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsSettings:
    """Where models lie on the compute nodes."""

    folders: tuple[str, ...] = ()
    """Folders that every container sees at the same path, read-only."""
    cache: str = ""
    """Folder into which engines download models, each once (HF_HOME); empty: `models` in run_dir."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesSettings:
    """Where container images are made, and how long they are kept. Empty strings mean: as `slurm` has it."""

    build: Literal["host", "job"] = "host"
    """`job`: in jobs without GPUs, for which the jobs of services wait. `host`: `ai-factory images pull` and `build`
    work on the host where they are typed, and what is missing then is made by the first job that needs it."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    cpu: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 4
    memory: str = "16G"
    """As in a recipe's resources; packing an image takes the more of it the more CPUs there are."""
    time_limit: Annotated[int, msgspec.Meta(ge=1, le=525_600)] = 120
    """Minutes."""
    extra_options: tuple[str, ...] = ()
    """Further sbatch options of these jobs, from the allow-list; those of `slurm` are not theirs."""
    keep_days: Annotated[float, msgspec.Meta(ge=0, le=36_500)] = 0.0
    """How long the controller keeps an image that nothing uses; 0: for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The OpenAI-compatible address in front of the models."""

    silence: Pause = 600.0
    """Seconds for which an engine may say nothing, before its answer and in it."""
    largest_body: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    """Megabytes of a request."""
    media_hosts: tuple[str, ...] = ()
    """Hosts from which engines may fetch what the URLs in requests name (pictures, sounds)."""
    stale_keys: Grace = 3600.0
    """For so many seconds the keys that are known go on while the database is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """The controller's rhythm, in seconds, and what it tells of itself."""

    lease: Pause = 15.0
    """A standby takes over when the leader has not renewed for this long."""
    fastest_reading: Pause = 2.0
    """Between two readings of the cluster while something changes."""
    slowest_reading: Pause = 15.0
    resync: Pause = 300.0
    """Every service is looked at this often even if nothing woke it."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    """Services worked on at the same time."""
    watches: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 20_000
    """Doors of engines that are watched, a connection each, but for half of the descriptors at most; the others are
    probed by turns."""
    submit_burst: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 50
    """Jobs that are submitted at once; what is more waits for its turn."""
    submit_rate: Annotated[float, msgspec.Meta(ge=0.01, le=10_000)] = 10.0
    """Jobs a second that are submitted when more than a burst is wanted; see slurm.conf(5), rl_enable."""
    absence_grace: Grace = 15.0
    accounting_grace: Grace = 60.0
    backoff_first: Grace = 2.0
    backoff_most: Grace = 300.0
    quick_end: Grace = 60.0
    steady_after: Grace = 600.0
    doubt_grace: Grace = 600.0
    """How long a mass vanishing is doubted for which no other source speaks."""
    keep_days: Annotated[float, msgspec.Meta(ge=0, le=36_500)] = 30.0
    """How long events, ended attempts with their job folders, and deleted services are kept; 0: for ever."""
    plan_log: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 20
    """Megabytes of each of the two files in state_dir that hold every plan with its inputs; 0: none are kept."""
    metrics_host: str = "127.0.0.1"
    """There is no key to them: figures only, no names."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Where /metrics (for Prometheus) and /health answer; 0: nowhere."""
    failpoint: str = ""
    """For tests: where the controller kills itself; see `controller.failpoints`."""


Ceiling = Annotated[int, msgspec.Meta(ge=0, le=10**6)]
Hours = Annotated[float, msgspec.Meta(ge=0, le=10**9)]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """Ceilings on GPUs; 0: none. What does not fit waits, and says so."""

    gpus: Ceiling = 0
    """GPUs that the jobs of all services together may ask for at a time."""
    gpus_per_service: Ceiling = 0
    gpu_hours: Hours = 0.0
    """GPU-hours that all services together may use in a calendar month (UTC); then their GPU jobs are ended."""
    gpu_hours_per_service: Hours = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. The defaults work on one machine."""

    state_dir: Path
    """Local to the controller's host: the SQLite database and the keys."""
    run_dir: Path
    """Shared with the compute nodes: job folders, logs, images."""
    recipes: tuple[Path, ...]
    """Folders of recipes; an earlier one wins."""
    database_url: str
    key_file: Path
    """The installation's key: 32 random bytes, mode 0600, the same for API and controller."""
    server: str = ""
    """Where the command line finds the API, `http://HOST:PORT` or `unix:PATH`; empty: as `api` has it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    """The log lines of all programs: text for people, or one JSON object each."""
    api: ApiSettings = field(default_factory=ApiSettings)
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    apptainer: ApptainerSettings = field(default_factory=ApptainerSettings)
    models: ModelsSettings = field(default_factory=ModelsSettings)
    images: ImagesSettings = field(default_factory=ImagesSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    controller: ControllerSettings = field(default_factory=ControllerSettings)
    quota: QuotaSettings = field(default_factory=QuotaSettings)
    recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Changes of this site to recipes, by path: merged over the YAML file before it is checked."""

    @property
    def api_socket(self) -> Path:
        """Where the API serves the command line with `api.require_key`."""
        return self.state_dir / "api.sock"

    @property
    def model_cache(self) -> str:
        """Where engines keep the models that they download."""
        return self.models.cache or str(self.run_dir / "models")


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
    return Path(named).expanduser() if named else None


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
        return Path(chosen).expanduser()
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
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
    home = Path(environ.get("HOME") or Path.home())
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
    try:
        full = Path(path).expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{key}: {path} is no path here: {error}.") from error
    if not full.is_absolute():
        raise SettingsError(f"{key}: {_relative(path)}.")
    return str(full)


def _relative(path: str) -> str:
    whole = Path(path).expanduser().absolute()
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
        path = Path(str(value)).expanduser()
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

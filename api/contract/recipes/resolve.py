"""Merge a service's config over its recipe, check every value, and return what can be launched.

The API resolves to refuse early, the controller to launch: both through this one function.
Values from users end up as whole words of an argument list, as environment values or as checked sbatch options;
none is ever read by a shell.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from api.contract.job.parameters import Image, Piece, Text
from api.contract.launch import Health, LaunchSpec, Resources
from api.contract.recipes.book import Recipe
from api.contract.recipes.checks import health_kind, placeholders
from api.contract.recipes.errors import ConfigError as ConfigError
from api.contract.recipes.schema import Command, HealthPart, Parameter, RecipeFile, ResourcesPart
from api.contract.recipes.units import gpus, memory_mb, minutes, whole_number
from api.contract.recipes.volumes import resolve_volumes
from api.contract.sbatch_options import check_extra_options, check_value
from api.contract.settings import SlurmSettings

Quantity = TypeVar("Quantity")

LONGEST_VALUE = 16_384
MOST_ITEMS = 256
LONGEST_MARK = 64
RUNTIME = frozenset({"port", "host", "files"})
"""Placeholders whose values only the running job knows."""
FIXED_BY_RECIPE = frozenset(
    {"command", "program", "args", "entrypoint", "image", "container_def", "binds", "files", "ports", "kind", "engine"}
)
"""Keys that would change the job's command, and that only a recipe may set."""
OLDER_SPELLINGS = {
    "nodes": "nodes",
    "cpu": "cpu",
    "cpus": "cpu",
    "memory": "memory",
    "gpu": "gpu",
    "time": "time_limit",
    "time_limit": "time_limit",
}
"""Top-level keys of older clients -> the key in `resources`."""
FORBIDDEN_VARIABLES = re.compile(
    r"(SLURM|SBATCH|APPTAINER|APPTAINERENV|SINGULARITY|SINGULARITYENV)_.*|LD_PRELOAD|AF_.*"
)


def resolve(recipe: Recipe, config: Mapping[str, Any], *, replicas: int | None, site: SlurmSettings) -> LaunchSpec:
    """Return the launch spec of a recipe under a config; `replicas` outweighs the config's. Raises `ConfigError`."""
    content = recipe.content
    _refuse_fixed(content, config)
    values = _parameters(content, config)
    count = _replicas(content, config, replicas)
    return LaunchSpec(
        recipe=recipe.path,
        kind=content.kind,
        engine=content.engine,
        model=_model(content, values),
        image=_image(recipe),
        command=_command([*content.program, *content.command], values),
        environment=_environment(content, config, values),
        environment_from=_environment_from(content, config, values),
        binds=tuple(content.binds),
        volumes=resolve_volumes(content, config, replicas=count, roots=site.volume_roots),
        files=dict(recipe.files),
        resources=_resources(content, config, site),
        health=_health(content, values),
        replicas=count,
        stop_grace=content.stop_grace,
        max_failures=content.restart.max_failures,
        update_strategy=content.update.strategy,
        secret_variable=_secret_variable(content),
        restarted_at=_restarted_at(content, config),
    )


def digest(spec: LaunchSpec) -> str:
    """Return what identifies a launch: two specs that differ in more than the number of replicas differ here."""
    value = msgspec.to_builtins(spec) | {"replicas": 0}
    _leave_out_later(value)
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:32]


def _leave_out_later(value: dict[str, Any]) -> None:
    """Leave out what came later and is not used, so that an upgrade changes the digest of nothing that runs."""
    health = value["health"]
    if health is not None and health["kind"] == "http":
        del health["kind"], health["command"]
    if not value["volumes"]:
        del value["volumes"]
    if value["restarted_at"] is None:
        del value["restarted_at"]


def encode_spec(spec: LaunchSpec) -> bytes:
    """Return the spec as JSON, keys in order."""
    return msgspec.json.encode(spec, order="deterministic")


def decode_spec(text: str | bytes) -> LaunchSpec:
    """Read what `encode_spec` wrote; raises `ConfigError` for what is none."""
    try:
        return msgspec.json.decode(text, type=LaunchSpec)
    except msgspec.MsgspecError as error:
        raise ConfigError("", f"The stored launch spec can't be read: {error}.") from error


def _refuse_fixed(content: RecipeFile, config: Mapping[str, Any]) -> None:
    for key in config:
        if key in content.parameters:
            continue
        if key in FIXED_BY_RECIPE:
            raise ConfigError(key, "Only a recipe may set this. Make a recipe of your own, or leave it out.")
        if key in ResourcesPart.__struct_fields__ and key not in OLDER_SPELLINGS:
            raise ConfigError(key, f"It has no effect here. Give it as resources.{key}.")


def _parameters(content: RecipeFile, config: Mapping[str, Any]) -> dict[str, Any]:
    nested = _table(config, "parameters")
    for name in nested:
        if name not in content.parameters:
            known = ", ".join(sorted(content.parameters)) or "none"
            raise ConfigError(f"parameters.{name}", f"The recipe has no such parameter. It has: {known}.")
    values: dict[str, Any] = {}
    for name, parameter in content.parameters.items():
        key, given = _given(name, parameter, config)
        value = parameter.default if given is None else given
        if value is None and parameter.required:
            raise ConfigError(key, f"This recipe needs it. {parameter.description}".strip())
        values[name] = None if value is None else _checked(key, parameter, value)
    return values


def _given(name: str, parameter: Parameter, config: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the value that a config gives a parameter, after the key under which it does."""
    nested, environment = _table(config, "parameters"), _table(config, "environment")
    key, value = (f"parameters.{name}", nested[name]) if name in nested else (name, config.get(name))
    if value is None and parameter.variable is not None and environment.get(parameter.variable) is not None:
        return f"environment.{parameter.variable}", environment[parameter.variable]
    return key, value


def _checked(key: str, parameter: Parameter, value: Any) -> Any:
    """Return the value as text or list of texts, once it is of the declared type and within its bounds."""
    if parameter.type == "list":
        return _checked_list(key, parameter, value)
    result = _scalar(key, parameter, value)
    number = value if isinstance(value, int | float) else None
    if parameter.choices is not None and value not in parameter.choices and result not in parameter.choices:
        raise ConfigError(key, f"must be one of {', '.join(map(str, parameter.choices))}.")
    if parameter.pattern is not None and not re.fullmatch(parameter.pattern, result):
        raise ConfigError(key, f"must match {parameter.pattern}.")
    if number is None and parameter.type in ("integer", "number"):
        number = float(result)
    if number is not None and parameter.minimum is not None and number < parameter.minimum:
        raise ConfigError(key, f"must be at least {parameter.minimum:g}.")
    if number is not None and parameter.maximum is not None and number > parameter.maximum:
        raise ConfigError(key, f"must be at most {parameter.maximum:g}.")
    return result


def _scalar(key: str, parameter: Parameter, value: Any) -> str:
    if parameter.type == "boolean":
        if not isinstance(value, bool):
            raise ConfigError(key, "must be true or false.")
        return "true" if value else "false"
    if parameter.type == "integer":
        return str(_quantity(key, lambda: whole_number(value, least=-(10**9), most=10**9)))
    if parameter.type == "number":
        text = _as_text(key, value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        if not isinstance(text, str) or not re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", text):
            raise ConfigError(key, "must be a number.")
        return text
    if not isinstance(value, str):
        raise ConfigError(key, "must be text.")
    return _text(key, value, argument=True)


def _checked_list(key: str, parameter: Parameter, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > MOST_ITEMS:
        raise ConfigError(key, f"must be a list of at most {MOST_ITEMS} texts.")
    items: list[str] = []
    for index, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise ConfigError(f"{key}.{index}", "must be text.")
        text = _text(f"{key}.{index}", _as_text(f"{key}.{index}", item))
        option = text.partition("=")[0].replace("_", "-")
        # argparse takes any unique beginning of an option's name for the option.
        if option.startswith("-") and any(f.startswith(option) for f in parameter.forbidden):
            raise ConfigError(f"{key}.{index}", f"{option} is set by the recipe; leave it out.")
        items.append(text)
    return items


def _text(key: str, value: str, *, argument: bool = False) -> str:
    if len(value) > LONGEST_VALUE:
        raise ConfigError(key, f"is longer than {LONGEST_VALUE} characters.")
    if "\0" in value:
        raise ConfigError(key, "must not contain the character NUL.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(key, "is not valid Unicode text.") from None
    if argument and value.startswith("-"):
        raise ConfigError(key, "must not begin with a hyphen: it would be taken for an option.")
    return value


def _quantity(key: str, read: Callable[[], Quantity]) -> Quantity:
    try:
        return read()
    except ValueError as error:
        raise ConfigError(key, f"{error}.") from error


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(key, "must be an object.")
    return value


def _filled(text: str, values: Mapping[str, Any]) -> Text:
    """Put values into a text of the recipe; what only the job knows stays as a piece."""
    pieces: list[Piece] = []
    for part in re.split(r"((?<!\{)\{[A-Za-z_][A-Za-z0-9_]*\}(?!\}))", text):
        name = part[1:-1] if part.startswith("{") and part.endswith("}") else ""
        if name in values:
            pieces.append(values[name] if isinstance(values[name], str) else " ".join(values[name] or ()))
        elif name in RUNTIME:
            pieces.append({"runtime": name})
        elif part:
            pieces.append(part.replace("{{", "{").replace("}}", "}"))
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(str(piece) for piece in pieces)
    return tuple(pieces)


def _health(content: RecipeFile, values: Mapping[str, Any]) -> Health | None:
    if not content.ports:
        return None
    part = content.health_check or HealthPart()
    return Health(
        kind=health_kind(content),
        path=part.endpoint or "/health",
        command=_command(part.command, values),
        interval=part.interval,
        timeout=part.timeout,
        retries=part.retries,
        startup_timeout=part.startup_timeout,
    )


def _command(items: Command, values: Mapping[str, Any]) -> tuple[Text, ...]:
    words: list[Text] = []
    for item in items:
        group = [item] if isinstance(item, str) else item
        if not isinstance(item, str) and any(values.get(n, "") is None for w in group for n in placeholders(w)):
            continue
        for word in group:
            name = word[1:-1]
            if word == f"{{{name}}}" and isinstance(values.get(name), list):
                words.extend(values[name])
            elif word == f"{{{name}}}" and name in values and values[name] is None:
                continue
            else:
                words.append(_filled(word, values))
    return tuple(words)


def _environment(content: RecipeFile, config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Text]:
    """Return the engine's variables; one that is a parameter's older spelling has the value that the parameter has."""
    parameters = {p.variable: values[name] for name, p in content.parameters.items() if p.variable is not None}
    result: dict[str, Text] = {}
    for name, raw in content.environment.items():
        result[name] = _filled(_plain(raw), values)
    for name, raw in _table(config, "environment").items():
        key = f"environment.{name}"
        _check_variable(content, key, name)
        if raw is None:
            result.pop(name, None)
            continue
        if not isinstance(raw, str | int | float | bool):
            raise ConfigError(key, "must be text.")
        result[name] = _text(key, _as_text(key, parameters.get(name, raw)))
    return result


def _environment_from(content: RecipeFile, config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of secrets; one whose parameter is not set is left out."""
    result: dict[str, str] = {}
    for name, path in content.environment_from.items():
        named = placeholders(path)
        if all(values[parameter] is not None for parameter in named):
            result[name] = str(_filled(path, values))
            if not result[name].startswith("/"):
                key = named[0] if named else f"environment_from.{name}"
                raise ConfigError(key, "must be the absolute path of a file that holds the value.")
    for name, path in _table(config, "environment_from").items():
        key = f"environment_from.{name}"
        _check_variable(content, key, name)
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigError(key, "must be the absolute path of a file that holds the value.")
        result[name] = _text(key, path)
    return result


def _check_variable(content: RecipeFile, key: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
        raise ConfigError(key, "is not the name of an environment variable (letters, digits, underscores).")
    if FORBIDDEN_VARIABLES.fullmatch(name) or name == _secret_variable(content):
        raise ConfigError(key, "is reserved and can't be set by a service.")


def _as_text(key: str, value: str | int | float | bool) -> str:
    """Return a value as text; Python refuses that for integers of thousands of digits."""
    return _quantity(key, lambda: _plain(value))


def _plain(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _resources(content: RecipeFile, config: Mapping[str, Any], site: SlurmSettings) -> Resources:
    """Site, recipe, older top-level spellings, `resources`: each outweighs the one before, key by key."""
    part = content.resources
    merged: dict[str, tuple[str, Any]] = {}
    for name in ("partition", "account", "qos", "constraint", "reservation", "gres"):
        if getattr(site, name):
            merged[name] = (name, getattr(site, name))
    for name in ResourcesPart.__struct_fields__:
        if name != "extra_options" and getattr(part, name) is not None:
            merged[name] = (name, getattr(part, name))
    for older, name in OLDER_SPELLINGS.items():
        if config.get(older) is not None and older not in content.parameters:
            merged[name] = (older, config[older])
    extra = [*site.extra_options, *(part.extra_options or ())]
    for name, value in _table(config, "resources").items():
        plain = OLDER_SPELLINGS.get(name, name)
        if plain not in ResourcesPart.__struct_fields__:
            known = ", ".join(ResourcesPart.__struct_fields__)
            raise ConfigError(f"resources.{name}", f"There is no such resource. There are: {known}.")
        if plain == "extra_options":
            extra += _extra_options(value)
        elif value is not None:
            merged[plain] = (f"resources.{name}", value)
    return _read_resources(merged, extra)


def _read_resources(merged: Mapping[str, tuple[str, Any]], extra: list[str]) -> Resources:
    def text(name: str) -> str | None:
        key, value = merged.get(name, (name, None))
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise ConfigError(key, "must be text.")
        return _quantity(key, lambda: check_value(name, value))

    def read(name: str, reader: Callable[[Any], Quantity], default: Any) -> Quantity:
        key, value = merged.get(name, (name, default))
        return _quantity(key, lambda: reader(value))

    count, kind = read("gpu", gpus, 0)
    return Resources(
        nodes=read("nodes", lambda v: whole_number(v, least=1, most=10_000), 1),
        cpu=read("cpu", lambda v: whole_number(v, least=1, most=10_000), 1),
        memory_mb=read("memory", memory_mb, 1024),
        gpu=count,
        gpu_type=kind,
        time_limit=read("time_limit", minutes, 60),
        partition=text("partition"),
        account=text("account"),
        qos=text("qos"),
        constraint=text("constraint"),
        reservation=text("reservation"),
        gres=text("gres"),
        extra_options=_quantity("resources.extra_options", lambda: check_extra_options(extra)),
    )


def _extra_options(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError("resources.extra_options", 'must be a list of texts such as "--exclusive".')
    return value


def _replicas(content: RecipeFile, config: Mapping[str, Any], given: int | None) -> int:
    value = config.get("replicas")
    if "replicas" in config and value is not None:
        value = _quantity("replicas", lambda: whole_number(config["replicas"], most=1000))
    if given is not None:
        return given
    return content.replicas if value is None else int(value)


def _restarted_at(content: RecipeFile, config: Mapping[str, Any]) -> str | None:
    """Return the mark of the last restart; a recipe's own parameter of that name goes first."""
    value = config.get("restarted_at")
    if value is None or "restarted_at" in content.parameters:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError("restarted_at", "must be a time, as text or number. Any new value restarts the service.")
    text = _text("restarted_at", _as_text("restarted_at", value))
    if len(text) > LONGEST_MARK:
        raise ConfigError("restarted_at", f"is longer than {LONGEST_MARK} characters.")
    return text


def _model(content: RecipeFile, values: Mapping[str, Any]) -> str | None:
    if content.model is None:
        return None
    filled = _filled(content.model, values)
    if isinstance(filled, str) and filled:
        return filled
    fallback = values.get("model")
    return fallback if isinstance(fallback, str) else None


def _secret_variable(content: RecipeFile) -> str | None:
    if content.secret_variable is UNSET:
        return "VLLM_API_KEY" if content.engine == "vllm" else None
    return content.secret_variable or None


def _image(recipe: Recipe) -> Image | None:
    if recipe.definition is not None:
        return Image(definition=recipe.definition)
    return Image(source=recipe.content.image) if recipe.content.image else None

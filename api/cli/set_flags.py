"""Config of a service from the command line: `--set key=value` and `--config-file`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from api.cli.errors import CliError
from api.contract.exits import Exit


def config_from(file: str | None, assignments: Sequence[str]) -> dict[str, Any]:
    """Return the config that a file and `key=value` texts make, the latter stronger. Raises `CliError` (usage)."""
    config = read_config(Path(file)) if file else {}
    for assignment in assignments:
        assign(config, assignment)
    return config


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 or JSON file that holds one mapping. Raises `CliError` (usage)."""
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        content = {} if content is None else content
        json.dumps(content, allow_nan=False)
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"The config file {path} can't be read: {error}.", Exit.USAGE) from error
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        raise CliError(f"The config file {path} is neither YAML nor JSON: {complaint(error)}.", Exit.USAGE) from error
    if not isinstance(content, dict):
        raise CliError(f"The config file {path} must hold a mapping of keys to values.", Exit.USAGE)
    return content


def complaint(error: Exception) -> str:
    """Return what a reader of YAML complains of, with the line; without its advice to whoever programmed it."""
    if isinstance(error, MarkedYAMLError) and error.problem:
        mark = error.problem_mark
        return f"{f'line {mark.line + 1}: ' if mark is not None else ''}{error.problem.splitlines()[0].rstrip('.')}"
    return str(error).rstrip(".")


def assign(config: dict[str, Any], assignment: str) -> None:
    """Put one `key=value` into a config; dots in the key lead into inner mappings. Raises `CliError` (usage)."""
    key, equals, text = assignment.partition("=")
    *groups, last = key.split(".")
    if not equals or not all([*groups, last]):
        raise CliError(f"{assignment!r} is no key=value. Example: resources.gpu=1", Exit.USAGE)
    for group in groups:
        inner = config.setdefault(group, {})
        if not isinstance(inner, dict):
            raise CliError(f"--set {assignment}: {group} already has a value of its own.", Exit.USAGE)
        config = inner
    config[last] = value_of(text)


def value_of(text: str) -> Any:
    """Read a value as JSON where it is JSON (`8`, `true`, `null`, `"8"`, `[1, 2]`); any other text is itself.

    Raises `CliError` (usage) for what begins like JSON and is none.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        if text[:1] in ('"', "[", "{"):
            raise CliError(f"The value {text} begins like JSON, but is none: {error}.", Exit.USAGE) from error
        return text


def _no_constant(name: str) -> Mapping[str, Any]:
    raise ValueError(f"{name} is not JSON")

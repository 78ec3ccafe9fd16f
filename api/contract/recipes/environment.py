"""The variables of an engine's environment, and the files that hold the secret ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from msgspec import UNSET

from api.contract.job.parameters import Text
from api.contract.recipes.checks import placeholders
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.schema import RecipeFile
from api.contract.recipes.values import as_text, checked_text, plain_text, table
from api.contract.recipes.words import filled

FORBIDDEN_VARIABLES = re.compile(
    r"(SLURM|SBATCH|APPTAINER|APPTAINERENV|SINGULARITY|SINGULARITYENV)_.*|LD_PRELOAD|AF_.*"
)

STEERING_VARIABLES = re.compile(
    r"PATH|HOME|SHELL|ENV|IFS|CDPATH|PS4|SHELLOPTS|PROMPT_COMMAND|ZDOTDIR|BASH.*"
    r"|LD_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|NLSPATH|TERMINFO.*|XDG_(CONFIG|DATA)_.*|OPENSSL_.*|OCL_ICD_.*|CUDA_INJECTION.*"
    r"|PYTHON.*|PERL.*|RUBY.*|GEM_.*|BUNDLE_.*|NODE_(OPTIONS|PATH)|LUA_.*|TCL.*|JULIA_.*|R_(HOME|LIBS|PROFILE|ENVIRON).*"
    r"|_?JAVA_.*|MODULE.*|LMOD_.*|JDK_.*|CLASSPATH|GIT_.*|(PIP|UV|CONDA|NPM)_.*|EDITOR|VISUAL|PAGER"
)
"""What has programs load or start another. Without a container that is a file on the node, which may be anybody's."""


def resolve_environment(content: RecipeFile, config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Text]:
    """Return the engine's variables; one that is a parameter's older spelling has the value that the parameter has."""
    parameters = {p.variable: values[name] for name, p in content.parameters.items() if p.variable is not None}
    result: dict[str, Text] = {}
    for name, raw in content.environment.items():
        result[name] = filled(plain_text(raw), values)
    for name, raw in table(config, "environment").items():
        key = f"environment.{name}"
        _check_variable(content, key, name)
        if raw is None:
            result.pop(name, None)
            continue
        if not isinstance(raw, str | int | float | bool):
            raise ConfigError(key, "must be text.")
        result[name] = checked_text(key, as_text(key, parameters.get(name, raw)))
    return result


def resolve_environment_from(
    content: RecipeFile, config: Mapping[str, Any], values: Mapping[str, Any], *, roots: Sequence[str] = ()
) -> dict[str, str]:
    """Return the files of secrets; one whose parameter is not set is left out.

    If there are `roots`, they lie below one of them; the job looks again, links followed.
    """
    result: dict[str, str] = {}
    for name, path in content.environment_from.items():
        named = placeholders(path)
        if all(values[parameter] is not None for parameter in named):
            result[name] = str(filled(path, values))
            if not result[name].startswith("/"):
                key = named[0] if named else f"environment_from.{name}"
                raise ConfigError(key, "must be the absolute path of a file that holds the value.")
            _check_place(named[0] if named else f"environment_from.{name}", result[name], roots)
    for name, path in table(config, "environment_from").items():
        key = f"environment_from.{name}"
        _check_variable(content, key, name)
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigError(key, "must be the absolute path of a file that holds the value.")
        result[name] = checked_text(key, path)
        _check_place(key, path, roots)
    return result


def _check_place(key: str, path: str, roots: Sequence[str]) -> None:
    inside = ".." not in PurePosixPath(path).parts and any(
        PurePosixPath(root) in PurePosixPath(path).parents for root in roots
    )
    if roots and not inside:
        raise ConfigError(key, f"The file must lie below one of {', '.join(roots)} (slurm.secret_roots).")


def _check_variable(content: RecipeFile, key: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
        raise ConfigError(key, "is not the name of an environment variable (letters, digits, underscores).")
    if FORBIDDEN_VARIABLES.fullmatch(name) or name == secret_variable(content):
        raise ConfigError(key, "is reserved and can't be set by a service.")
    offered = name in {parameter.variable for parameter in content.parameters.values()}
    if not (content.image or content.container_def or offered) and STEERING_VARIABLES.fullmatch(name):
        what = "has programs on the node load or start others, since this recipe has no container"
        raise ConfigError(key, f"{what}. Only the recipe may set it.")


def secret_variable(content: RecipeFile) -> str | None:
    """Return the variable through which the engine takes its key, if there is one."""
    if content.secret_variable is UNSET:
        return "VLLM_API_KEY" if content.engine == "vllm" else None
    return content.secret_variable or None

"""Merge a service's config over its recipe, check every value, and return what can be launched.

The API resolves to refuse early, the controller to launch: both through this one function.
Values from users end up as whole words of an argument list, as environment values or as checked sbatch options;
none is ever read by a shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.contract.gpus import has_gpus
from api.contract.job.parameters import Image
from api.contract.launch import GpuVendor, Health, LaunchSpec, Resources
from api.contract.recipes.book import Recipe
from api.contract.recipes.checks import health_kind
from api.contract.recipes.engine_arguments import arguments, files, served_names
from api.contract.recipes.environment import resolve_environment, resolve_environment_from, secret_variable
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.parameters import resolve_parameters
from api.contract.recipes.resources import OLDER_SPELLINGS, resolve_resources
from api.contract.recipes.schema import HealthPart, RecipeFile, ResourcesPart
from api.contract.recipes.size import size_problem
from api.contract.recipes.units import whole_number
from api.contract.recipes.update import resolve_update
from api.contract.recipes.values import as_text, checked_text, read_quantity, table
from api.contract.recipes.volumes import resolve_volumes
from api.contract.recipes.warnings import warnings
from api.contract.recipes.words import command, filled
from api.contract.settings import SlurmSettings

LONGEST_MARK = 64
FIXED_BY_RECIPE = frozenset(
    {
        "command",
        "program",
        "args",
        "entrypoint",
        "image",
        "container_def",
        "binds",
        "files",
        "ports",
        "kind",
        "engine",
        "access",
        "exposed",
        "network",
        "gpu_vendor",
    }
)
"""Keys that would change the job's command, and that only a recipe may set."""


def resolve(recipe: Recipe, config: Mapping[str, Any], *, replicas: int | None, site: SlurmSettings) -> LaunchSpec:
    """Return the launch spec of a recipe under a config; `replicas` outweighs the config's. Raises `ConfigError`."""
    content = recipe.content
    if (problem := size_problem(config)) is not None:
        raise ConfigError("config", problem)
    _refuse_fixed(content, config)
    values = resolve_parameters(content, config)
    count = _replicas(content, config, replicas)
    access = content.access if content.ports else "direct"
    words = command([*content.program, *content.command], values)
    told = arguments(words) if content.engine == "vllm" else {}
    resources = resolve_resources(content, config, site)
    _refuse_idle_nodes(content, config, resources)
    model = _model(content, values)
    update = resolve_update(content, config)
    return LaunchSpec(
        recipe=recipe.path,
        kind=content.kind,
        engine=content.engine,
        model=model,
        further_models=tuple(dict.fromkeys(name for name in served_names(told) if name != model)),
        image=_image(recipe),
        command=words,
        environment=resolve_environment(content, config, values),
        environment_from=resolve_environment_from(content, config, values, roots=site.secret_roots),
        binds=tuple(content.binds),
        volumes=resolve_volumes(content, config, replicas=count, roots=site.volume_roots),
        files=dict(recipe.files),
        resources=resources,
        gpu_vendor=_gpu_vendor(content, resources, site),
        health=_health(content, values),
        replicas=count,
        stop_grace=content.stop_grace,
        max_failures=content.restart.max_failures,
        update_strategy=update.strategy,
        surge=update.surge,
        max_unavailable=update.max_unavailable,
        no_room=update.no_room,
        secret_variable=secret_variable(content) if access == "direct" else None,
        access=access,
        network=content.network,
        exposed=content.exposed,
        restarted_at=_restarted_at(content, config),
        paths=tuple(files(told)),
        warnings=warnings(content, config, told, resources),
    )


def _gpu_vendor(content: RecipeFile, resources: Resources, site: SlurmSettings) -> GpuVendor | None:
    if content.gpu_vendor is not None:
        return content.gpu_vendor
    return None if site.gpu_vendor == "auto" or not has_gpus(resources) else site.gpu_vendor


def _refuse_fixed(content: RecipeFile, config: Mapping[str, Any]) -> None:
    for key in config:
        if key in content.parameters:
            continue
        if key in FIXED_BY_RECIPE:
            raise ConfigError(key, "Only a recipe may set this. Make a recipe of your own, or leave it out.")
        if key in ResourcesPart.__struct_fields__ and key not in OLDER_SPELLINGS:
            raise ConfigError(key, f"It has no effect here. Give it as resources.{key}.")


def _refuse_idle_nodes(content: RecipeFile, config: Mapping[str, Any], resources: Resources) -> None:
    """Refuse nodes on which nothing would run: the job's command runs on the first one. A recipe may know of more."""
    own = content.resources.nodes
    runs_on_one = content.engine == "vllm" if own is None else str(own) == "1"
    if resources.nodes > 1 and runs_on_one:
        key = "resources.nodes" if "nodes" in table(config, "resources") else "nodes"
        raise ConfigError(key, "This recipe runs on one node, and would leave the others idle. Leave it out.")


def _health(content: RecipeFile, values: Mapping[str, Any]) -> Health | None:
    if not content.ports:
        return None
    part = content.health_check or HealthPart()
    return Health(
        kind=health_kind(content),
        path=part.endpoint or "/health",
        command=command(part.command, values),
        interval=part.interval,
        timeout=part.timeout,
        retries=part.retries,
        startup_timeout=part.startup_timeout,
        startup_guess=part.startup_guess,
    )


def _replicas(content: RecipeFile, config: Mapping[str, Any], given: int | None) -> int:
    value = config.get("replicas")
    if "replicas" in config and value is not None:
        value = read_quantity("replicas", lambda: whole_number(config["replicas"], most=1000))
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
    text = checked_text("restarted_at", as_text("restarted_at", value))
    if len(text) > LONGEST_MARK:
        raise ConfigError("restarted_at", f"is longer than {LONGEST_MARK} characters.")
    return text


def _model(content: RecipeFile, values: Mapping[str, Any]) -> str | None:
    if content.model is None:
        return None
    # the first of several names is the one that an engine answers with
    name = filled(
        content.model, {key: value[:1] if isinstance(value, list) else value for key, value in values.items()}
    )
    if isinstance(name, str) and name:
        return name
    fallback = values.get("model")
    return fallback if isinstance(fallback, str) else None


def _image(recipe: Recipe) -> Image | None:
    if recipe.definition is not None:
        return Image(definition=recipe.definition)
    return Image(source=recipe.content.image) if recipe.content.image else None

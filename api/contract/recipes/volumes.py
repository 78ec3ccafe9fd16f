"""Writable volumes: what a recipe may declare, and where a service's config may put them.

A recipe is the operator's and may name any path. A config may only say where the volumes of its recipe lie: under a
name of the service's own, or below a folder that the site opened for that (`slurm.volume_roots`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from api.contract.launch import REPLICA, Volume
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.schema import VOLUME_NAME, RecipeFile, VolumePart

LONGEST_PATH = 1024


def problems(content: RecipeFile) -> Iterator[tuple[Sequence[str], str]]:
    """Find what is wrong with a recipe's volumes: the keys that lead there, and why."""
    for index, volume in enumerate(content.volumes):
        at = ["volumes", str(index)]
        if (volume.name is None) == (volume.path is None):
            yield at, "a volume needs either a name or a path"
        for key, path in (("target", volume.target), ("path", volume.path)):
            wrong = None if path is None else _wrong(path)
            if wrong is not None:
                yield [*at, key], wrong
    volumes = [_of_recipe(part) for part in content.volumes]
    twice = _twice(volumes)
    if twice is not None:
        yield ["volumes"], f"{twice} is given twice"
    if volumes and content.update.strategy != "recreate":
        yield ["volumes"], "a volume is written by one job at a time: set update: {strategy: recreate}"
    if volumes and not (content.image or content.container_def):
        yield ["volumes"], "without a container nothing can be bound: give image or container_def"
    if content.replicas > 1 and _shared(volumes) is not None:
        yield ["replicas"], f"only one may write to a volume: put {REPLICA} into its name or path"


def resolve_volumes(
    content: RecipeFile, config: Mapping[str, Any], *, replicas: int, roots: Sequence[str]
) -> tuple[Volume, ...]:
    """Return a service's volumes, those of its config instead of the recipe's of the same target."""
    volumes = {part.target: _of_recipe(part) for part in content.volumes}
    given = config.get("volumes")
    if given is not None and not isinstance(given, list):
        raise ConfigError("volumes", "must be a list of objects with target, and name or path.")
    for index, item in enumerate(given or ()):
        volume = _of_config(f"volumes.{index}", item, roots)
        if volume.target not in volumes:
            known = ", ".join(volumes) or "none"
            raise ConfigError(f"volumes.{index}.target", f"The recipe has no volume there. It has: {known}.")
        volumes[volume.target] = volume
    found = tuple(volumes.values())
    twice = _twice(found)
    if twice is not None:
        raise ConfigError("volumes", f"{twice} is given twice.")
    shared = _shared(found)
    if replicas > 1 and shared is not None:
        place = shared.name or shared.path
        what = f"Only one replica may write to the volume {place}: ask for one"
        raise ConfigError("replicas", f"{what}, or put {REPLICA} into the volume's name or path.")
    return found


def _of_recipe(part: VolumePart) -> Volume:
    return Volume(target=part.target, name=part.name, path=part.path)


def _of_config(key: str, item: Any, roots: Sequence[str]) -> Volume:
    if not isinstance(item, Mapping) or not all(isinstance(text, str) for text in item.values()):
        raise ConfigError(key, "must be an object of texts: target, and name or path.")
    unknown = next((name for name in item if name not in VolumePart.__struct_fields__), None)
    if unknown is not None:
        raise ConfigError(f"{key}.{unknown}", "There is no such key. There are: target, name, path.")
    target, name, path = item.get("target"), item.get("name"), item.get("path")
    if target is None or (name is None) == (path is None):
        raise ConfigError(key, "A volume needs target, and either a name or a path.")
    if name is not None and not re.match(VOLUME_NAME, name):
        what = f"must be at most 64 letters, digits, dots, hyphens, underscores and {REPLICA}."
        raise ConfigError(f"{key}.name", what)
    return Volume(target=target, name=name, path=path, root=None if path is None else _root(f"{key}.path", path, roots))


def _root(key: str, path: str, roots: Sequence[str]) -> str:
    """Return the folder of the site's that a path lies below; raises `ConfigError`."""
    wrong = _wrong(path)
    if wrong is not None:
        raise ConfigError(key, f"{wrong}.")
    for root in roots:
        if PurePosixPath(root) in PurePosixPath(path).parents:
            return root
    where = f"below one of {', '.join(roots)}" if roots else "nowhere on this site (slurm.volume_roots); give a name"
    raise ConfigError(key, f"A volume may lie {where}.")


def _wrong(path: str) -> str | None:
    """Say why a text is no place for a volume."""
    if len(path) > LONGEST_PATH or not path.isprintable():
        return f"must be a path of at most {LONGEST_PATH} characters, without control characters"
    if (
        not path.startswith("/")
        or str(PurePosixPath(path)) != path
        or ".." in path.split("/")
        or path[:2] in ("/", "//")
    ):
        return "must be a plain absolute path of a folder, without .., doubled slashes and one at its end"
    return None


def _twice(volumes: Sequence[Volume]) -> str | None:
    """Return a target or place that two volumes have in common."""
    for texts in ([volume.target for volume in volumes], [volume.name or volume.path or "" for volume in volumes]):
        repeated = next((text for text, count in Counter(texts).items() if count > 1), None)
        if repeated is not None:
            return repeated
    return None


def _shared(volumes: Sequence[Volume]) -> Volume | None:
    """Return a volume that all replicas would have in common."""
    return next((volume for volume in volumes if REPLICA not in (volume.name or volume.path or "")), None)

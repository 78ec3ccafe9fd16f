"""Whether an engine sees the files that it is told to read, as far as this host can know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from api.contract.launch import LaunchSpec
from api.contract.recipes.errors import ConfigError


def check_paths(
    spec: LaunchSpec, config: Mapping[str, Any], folders: Sequence[str], is_here: Callable[[str], bool]
) -> None:
    """Raise `ConfigError` for a path of a config that no container of the service can see.

    Only one that `is_here`, on this host, is surely meant to be the nodes', and not the image's own. Of all others the
    job knows, which looks before it starts the engine. `folders` are those that every container sees.
    """
    if spec.image is None:
        return
    seen = [*folders, *(bind.split(":")[1] if ":" in bind else bind for bind in spec.binds)]
    seen += [volume.target for volume in spec.volumes]
    for path in spec.paths:
        key = next(_keys(config, path), None)
        if key is None:
            continue
        if not path.startswith("/"):
            raise ConfigError(
                key, f"{path} is not an absolute path: the engine runs in an empty folder. Give the whole path."
            )
        if is_here(path) and not any(_is_below(path, folder) for folder in seen):
            what = f"The engine's container does not see {path}. It sees: {', '.join(sorted(seen)) or 'no folder'}"
            raise ConfigError(key, f"{what}. Add its folder to models.folders in the site's configuration.")


def _is_below(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def _keys(value: Any, path: str, *above: str) -> Iterator[str]:
    """Find where in a config a path stands."""
    if isinstance(value, str) and path in value:
        yield ".".join(above)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _keys(inner, path, *above, key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _keys(inner, path, *above, str(index))

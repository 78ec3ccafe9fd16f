"""What is wanted of a service, as people write it: YAML, compared and turned into what the API is asked to do.

name: chat
recipe_name: inference/vllm
replicas: 2
config:
  model: Qwen/Qwen2.5-7B-Instruct
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from api.cli.errors import CliError
from api.cli.set_flags import complaint
from api.cli.terminal.yaml_text import same_json, yaml_text
from api.contract.exits import Exit

KEYS = ("name", "recipe_name", "replicas", "desired_state", "access", "config")
STATES = ("running", "stopped")
ACCESS_WORDS = ("owner", "project", "everyone")
MARK = "applied_as"
"""The key of the config that says to which set of applied services one belongs. To the job it means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDeclaration:
    """What is wanted of one service."""

    name: str
    recipe_name: str
    replicas: int | None = None
    """`None`: as many as the recipe says."""
    desired_state: str = "running"
    access: str | None = None
    """`None`: as the site has it."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Without `replicas`, which stands beside it."""

    def document(self) -> dict[str, Any]:
        """Return it as people write it: without what goes without saying."""
        written: dict[str, Any] = {"name": self.name, "recipe_name": self.recipe_name}
        if self.replicas is not None:
            written["replicas"] = self.replicas
        if self.desired_state != "running":
            written["desired_state"] = self.desired_state
        if self.access is not None:
            written["access"] = self.access
        return {**written, "config": dict(self.config)} if self.config else written

    def request(self) -> dict[str, Any]:
        """Return what the API is sent to create it."""
        config = dict(self.config) | ({} if self.replicas is None else {"replicas": self.replicas})
        access = {} if self.access is None else {"access": self.access}
        return {"name": self.name, "recipe_name": self.recipe_name, **access, "config": config}


def of_api(declared: Mapping[str, Any]) -> ServiceDeclaration:
    """Return what the API says was declared."""
    config = dict(declared["config"])
    inner = config.pop("replicas", None)
    own = declared["replicas"]
    return ServiceDeclaration(
        name=str(declared["name"]),
        recipe_name=str(declared["recipe_name"]),
        replicas=_whole(inner) if own is None else int(own),
        desired_state=str(declared["desired_state"]),
        access=declared.get("access"),
        config=config,
    )


def of_document(document: object, where: str) -> ServiceDeclaration:
    """Read a document that people wrote; raises `CliError` (usage), which names `where` and the key."""
    if not isinstance(document, dict):
        raise CliError(f"{where}: a service is a mapping with name, recipe_name and config.", Exit.USAGE)
    for key in document:
        if key not in KEYS:
            raise CliError(f"{where}: {key}: there is no such key. Known are: {', '.join(KEYS)}.", Exit.USAGE)
    for key in ("name", "recipe_name"):
        if not isinstance(document.get(key), str) or not document[key].strip():
            raise CliError(f"{where}: {key}: must be there, and be text.", Exit.USAGE)
    state = document.get("desired_state", "running")
    if state not in STATES:
        raise CliError(f"{where}: desired_state: must be {' or '.join(STATES)}.", Exit.USAGE)
    access = document.get("access")
    if access is not None and access not in ACCESS_WORDS:
        raise CliError(f"{where}: access: must be one of {', '.join(ACCESS_WORDS)}.", Exit.USAGE)
    config = document.get("config")
    config = {} if config is None else config
    if not isinstance(config, dict):
        raise CliError(f"{where}: config: must be a mapping of keys to values.", Exit.USAGE)
    config, replicas = dict(config), document.get("replicas")
    inner = _whole(config.pop("replicas", None))
    if replicas is not None and inner is not None and inner != replicas:
        raise CliError(f"{where}: replicas: the config says {inner}, and beside it stands {replicas}.", Exit.USAGE)
    replicas = inner if replicas is None else replicas
    if replicas is not None and (type(replicas) is not int or not 0 <= replicas <= 1000):
        raise CliError(f"{where}: replicas: must be a whole number from 0 to 1000.", Exit.USAGE)
    return ServiceDeclaration(
        name=document["name"],
        recipe_name=document["recipe_name"],
        replicas=replicas,
        desired_state=state,
        access=access,
        config=config,
    )


def _whole(value: Any) -> Any:
    """Return a number that is written as text as what it is."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value


def read(text: str, where: str) -> list[ServiceDeclaration]:
    """Read all documents of a text; raises `CliError` (usage)."""
    try:
        documents = [one for one in YAML(typ="safe", pure=True).load_all(text) if one is not None]
    except (YAMLError, ValueError, RecursionError) as error:
        raise CliError(f"{where} is neither YAML nor JSON: {complaint(error)}.", Exit.USAGE) from error
    found = []
    for number, document in enumerate(documents, 1):
        place = where if len(documents) == 1 else f"{where}, document {number}"
        try:
            json.dumps(document, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise CliError(
                f"{place}: it holds a value that JSON does not know ({error}). A date must stand in quotes.", Exit.USAGE
            ) from error
        found.append(of_document(document, place))
    return found


def text_of(file: str) -> str:
    """Read a file, or standard input; raises `CliError` (usage)."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{file} can't be read: {error}.", Exit.USAGE) from error


def write(declaration: ServiceDeclaration) -> str:
    """Return the YAML of a declaration; what `read` makes of it is the same."""
    return yaml_text(declaration.document())


def write_all(declarations: Sequence[ServiceDeclaration]) -> str:
    """Return one text of many declarations."""
    return "---\n".join(map(write, declarations))


def same(one: ServiceDeclaration, other: ServiceDeclaration) -> bool:
    """Whether two declarations of one name want the same."""
    return _same_recipe(one, other) and same_json(
        {**one.document(), "recipe_name": ""}, {**other.document(), "recipe_name": ""}
    )


def _same_recipe(one: ServiceDeclaration, other: ServiceDeclaration) -> bool:
    """Whether they name one recipe; its stem alone will do."""
    names = (one.recipe_name, other.recipe_name)
    if all("/" in name for name in names):
        return names[0] == names[1]
    return names[0].rpartition("/")[2] == names[1].rpartition("/")[2]


def patch(before: ServiceDeclaration, after: ServiceDeclaration) -> dict[str, Any]:
    """Return the PATCH that makes the one of the other: only what differs. Raises `CliError` for what none can do."""
    if before.name != after.name:
        raise CliError(f"name: a service keeps its name, {before.name}. For another, create another service.")
    if not _same_recipe(before, after):
        raise CliError(
            f"recipe_name: {before.name} is made of {before.recipe_name}, and can't become one of {after.recipe_name}. "
            "Delete it first, or choose another name."
        )
    asked: dict[str, Any] = {}
    if not same_json(before.config, after.config):
        asked["config"] = _merge_patch(before.config, after.config, "config")
    if before.replicas != after.replicas:
        asked["replicas"] = after.replicas
    if before.desired_state != after.desired_state:
        asked["desired_state"] = after.desired_state
    if before.access != after.access:
        asked["access"] = after.access
    return asked


def _merge_patch(before: Mapping[str, Any], after: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the merge patch (RFC 7396) that makes the one of the other; null removes, and so can't be a value."""
    found: dict[str, Any] = dict.fromkeys(key for key in before if key not in after)
    for key, value in after.items():
        if key in before and same_json(before[key], value):
            continue
        inner = before.get(key)
        if isinstance(value, dict) and isinstance(inner, dict):
            found[key] = _merge_patch(inner, value, f"{where}.{key}")
        elif _holds_null(value):
            raise CliError(
                f"{where}.{key}: a service that is there can't be given null. Leave the key out, "
                "or delete the service and create it anew."
            )
        else:
            found[key] = value
    return found


def _holds_null(value: Any) -> bool:
    """Whether a merge patch would lose something of a value: arrays are taken as they are."""
    return value is None or (isinstance(value, dict) and any(map(_holds_null, value.values())))


def difference(before: ServiceDeclaration | None, after: ServiceDeclaration | None) -> Iterator[str]:
    """Yield the lines of a unified diff; `None` is a service that is not there."""
    old = write(before).splitlines() if before else []
    new = write(after).splitlines() if after else []
    name = (after or before).name  # type: ignore[union-attr]
    titles = (f"{name} (now)" if before else "/dev/null", f"{name} (wanted)" if after else "/dev/null")
    return difflib.unified_diff(old, new, *titles, lineterm="")

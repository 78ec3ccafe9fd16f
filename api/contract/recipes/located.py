"""Where a mistake in a recipe stands: in its file, in that which it extends, or in the site's configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from api.contract.recipes.schema import RecipeFile


class RecipeError(Exception):
    """A recipe file is not as it should be; the message names file, line and key."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says of a recipe."""

    content: Any
    file: Path | None = None
    """`None`: it is the site's configuration, under `recipe`."""
    recipe: str = ""
    """Whose recipe's changes they are, in the configuration."""

    def at(self, keys: Sequence[str]) -> str:
        """Name the place of a key."""
        if self.file is None:
            return f'the configuration, [recipe."{self.recipe}"]'
        return f"{self.file}:{line_of(self.content, keys)}"

    def has(self, keys: Sequence[str]) -> bool:
        """Whether all these keys, one inside the other, are said here."""
        content = self.content
        for key in keys:
            if isinstance(content, Mapping) and key in content:
                content = content[key]
            elif isinstance(content, list) and key.isdigit() and int(key) < len(content):
                content = content[int(key)]
            else:
                return False
        return True


@dataclass(frozen=True, slots=True)
class Layers:
    """All that a recipe is made of, the strongest first; its own file is among them."""

    layers: tuple[Layer, ...]
    own: Layer

    def error(self, keys: Sequence[str], what: str, shown: str | None = None) -> RecipeError:
        """Return the error that names where the keys are said; what is said nowhere is missing in its own file."""
        layer = next((one for one in self.layers if keys and one.has(keys)), self.own)
        return RecipeError(f"{layer.at(keys)}: {shown or '.'.join(keys) or 'recipe'}: {what}.")


def check_texts(layers: Layers, value: Any, keys: tuple[str, ...] = ()) -> None:
    """Refuse texts that could never be an argument, a file name or a value in the environment."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_texts(layers, key, (*keys, key))
            check_texts(layers, inner, (*keys, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            check_texts(layers, inner, (*keys, str(index)))
    elif isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        shown = ascii(".".join(keys))[1:-1]
        raise layers.error(keys, "it has a NUL or half a surrogate pair in it", shown)


def located(layers: Layers, merged: Mapping[str, Any], error: msgspec.ValidationError) -> RecipeError:
    """Turn msgspec's `… - at `$.a.b[0]`` into file, line and key."""
    text = str(error)
    match = re.fullmatch(r"(?P<what>.*?)(?: - at `(?P<where>.*)`)?", text, re.DOTALL)
    what = match["what"] if match else text
    where = (match["where"] if match else None) or "$"
    keys: list[str] = re.findall(r"[^.\[\]$]+", where)
    if "[...]" in where:
        keys[1:1] = _guilty(merged, keys[0], text)
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown:
        keys, what = [*keys, unknown[1]], "there is no such key"
    missing = re.search(r"missing required field `(.*)`", what)
    if missing:
        keys, what = [*keys, missing[1]], "it is missing"
    return layers.error(keys, what)


def _guilty(merged: Mapping[str, Any], table: str, text: str) -> Iterator[str]:
    """Find the key that msgspec leaves open (`$.parameters[...].type`): that which fails alone as it fails in all."""
    for key, value in merged[table].items():
        try:
            msgspec.convert({**merged, table: {key: value}}, RecipeFile)
        except msgspec.ValidationError as error:
            if str(error) == text:
                yield key
                return


def line_of(tree: Any, keys: Sequence[str]) -> int:
    """Return the line (from 1) of the deepest of these keys that the file has."""
    line = 1
    for key in keys:
        if isinstance(tree, CommentedMap) and key in tree:
            line = int(tree.lc.key(key)[0]) + 1
            tree = tree[key]
        elif isinstance(tree, CommentedSeq) and key.isdigit() and int(key) < len(tree):
            line = int(tree.lc.item(int(key))[0]) + 1
            tree = tree[int(key)]
        else:
            break
    return line

"""Texts and commands of a recipe, with the values of its parameters put into them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from api.contract.job.parameters import RUNTIME_VALUES, Piece, Text
from api.contract.recipes.checks import placeholders
from api.contract.recipes.schema import Command


def filled(text: str, values: Mapping[str, Any]) -> Text:
    """Put values into a text of the recipe; what only the job knows stays as a piece."""
    pieces: list[Piece] = []
    for part in re.split(r"((?<!\{)\{[A-Za-z_][A-Za-z0-9_]*\}(?!\}))", text):
        name = part[1:-1] if part.startswith("{") and part.endswith("}") else ""
        if name in values:
            pieces.append(values[name] if isinstance(values[name], str) else " ".join(values[name] or ()))
        elif name in RUNTIME_VALUES:
            pieces.append({"runtime": name})
        elif part:
            pieces.append(part.replace("{{", "{").replace("}}", "}"))
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(str(piece) for piece in pieces)
    return tuple(pieces)


def command(items: Command, values: Mapping[str, Any]) -> tuple[Text, ...]:
    """Return a command's words; a group is left out where a parameter in it is not set, or a list of none."""
    words: list[Text] = []
    for item in items:
        group = [item] if isinstance(item, str) else item
        if not isinstance(item, str) and any(values.get(n, "") in (None, []) for w in group for n in placeholders(w)):
            continue
        for word in group:
            name = word[1:-1]
            if word == f"{{{name}}}" and isinstance(values.get(name), list):
                words.extend(values[name])
            elif word == f"{{{name}}}" and name in values and values[name] is None:
                continue
            else:
                words.append(filled(word, values))
    return tuple(words)

"""What the command line of `vllm serve` says: how many GPUs it wants, and which files it reads.

Options and their values are those of vLLM 0.8 to 0.32 (`vllm serve --help=all`): an underscore may stand for a hyphen,
a value beside its option or behind `=`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.contract.job.parameters import Text

MODEL = "model"
"""Stands for the argument that has no option before it: vLLM's model."""

PROGRAM = "program"
"""Stands for what comes before the options of another program than `vllm serve`: nothing is known of it."""

SHORT = {"-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-dp": "--data-parallel-size"}
SPLITS = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")
"""Each GPU has a place in the product of these."""

FILES = (
    MODEL,
    "--model",
    "--tokenizer",
    "--hf-config-path",
    "--config",
    "--chat-template",
    "--lora-modules",
    "--speculative-config",
    "--tool-parser-plugin",
    "--reasoning-parser-plugin",
)
"""Options whose value may be the path of a file or folder that the engine reads."""


def arguments(command: Sequence[Text]) -> dict[str, list[str]]:
    """Return the values of each option, by its long name; what only the job knows is left out."""
    words = [word for word in command if isinstance(word, str)]
    option, words = (MODEL, words[words.index("serve") + 1 :]) if "serve" in words[:4] else (PROGRAM, words)
    found: dict[str, list[str]] = {MODEL: []}
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            name, equals, value = word.partition("=")
            option = _long(name)
            found.setdefault(option, []).extend([value] if equals else [])
        else:
            found.setdefault(option, []).append(word)
    return found


def _long(name: str) -> str:
    """Return the long name of an option; one of those that split may be cut short, as argparse allows for all."""
    name = SHORT.get(name, name.replace("_", "-"))
    cut = [option for option in SPLITS if option.startswith(name)] if name.endswith("parallel") else []
    return cut[0] if len(cut) == 1 else name


def gpus_wanted(found: Mapping[str, Sequence[str]]) -> int:
    """Return over how many GPUs the engine splits its work."""
    wanted = 1
    for option in SPLITS:
        size = found.get(option, ("1",))[-1:]
        wanted *= int(size[0]) if size and size[0].isdecimal() else 1
    return wanted


def files(found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Return the paths that the engine reads, each once; names on the Hugging Face hub are none."""
    seen = {path for option in FILES for value in found.get(option, ()) for path in _paths(option, value)}
    yield from sorted(seen)


def served_names(found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the names that clients may ask for: the model's, and those of its LoRA adapters."""
    yield from found.get("--served-model-name", ())
    for value in found.get("--lora-modules", ()):
        if value.startswith(("{", "[")):
            yield from (name for name in _strings(_json(value), "name") if name)
        elif "=" in value:
            yield value.partition("=")[0]


def _paths(option: str, value: str) -> Iterator[str]:
    if option == "--lora-modules" and not value.startswith(("{", "[")):
        value = value.partition("=")[2]
    if value.startswith(("{", "[")):
        yield from (path for path in _strings(_json(value), "model", "path") if _is_path(path))
    elif _is_path(value) or (option == "--chat-template" and _is_template(value)):
        yield value


def _strings(value: Any, *keys: str) -> Iterator[str]:
    """Yield what stands under some keys of an object, or of a list of them."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield from (item[key] for key in keys if isinstance(item.get(key), str))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_path(value: str) -> bool:
    return value.startswith(("/", "./", "../", "~")) and "\n" not in value


def _is_template(value: str) -> bool:
    """Whether a chat template is the name of a file; vLLM takes the text of one too."""
    return not re.search(r"[\n{}]", value) and ("/" in value or value.endswith(".jinja"))

"""What is to be said about a config that can be launched, and is probably not what was meant.

Each is `key: what is the matter, what to write instead`. No value that may be a secret is repeated.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.contract.gpus import gpus_asked
from api.contract.launch import Resources
from api.contract.recipes.engine_arguments import gpus_wanted
from api.contract.recipes.errors import printable
from api.contract.recipes.keys import without_effect
from api.contract.recipes.schema import RecipeFile
from api.contract.recipes.values import table

SECRET_NAME = re.compile(
    r"(.*_)?(TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY)", re.IGNORECASE
)
SECRET_OPTION = re.compile(r"--(hf|api|auth)[-_](token|key)")
SEVERAL = re.compile(r"--?[A-Za-z][\w.-]*\s+\S")
"""An option with a blank behind it: no name of one holds any."""
QUOTED = re.compile(r"""(?P<mark>['"]).*(?P=mark)""", re.DOTALL)
LONGEST_SHOWN = 80
LONGEST = 500
MOST = 20


def warnings(
    content: RecipeFile, config: Mapping[str, Any], arguments: Mapping[str, Sequence[str]], resources: Resources
) -> tuple[str, ...]:
    """Return what is to be said; `arguments` are those of the engine (`engine_arguments`), if they are known."""
    found = [
        *_secrets(config),
        *_items(content, config),
        *_split(arguments, resources),
        *without_effect(content, config),
    ]
    more = [f"There are {len(found) - MOST} warnings more."] if len(found) > MOST else []
    return tuple(printable(text, LONGEST) for text in (*found[:MOST], *more))


def _secrets(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table(config, "environment").items():
        if SECRET_NAME.fullmatch(name) and isinstance(value, str) and value and not value.startswith("/"):
            yield (
                f"environment.{name}: it looks like a secret, and stands in clear in the database and in answers. Put "
                f"it into a file of mode 0600 that the nodes see, and write environment_from.{name} with its path "
                "instead. Take the secret for known, and make a new one."
            )


def _items(content: RecipeFile, config: Mapping[str, Any]) -> Iterator[str]:
    """Look at the items of the lists that become arguments."""
    nested = table(config, "parameters")
    for name, parameter in content.parameters.items():
        is_nested = nested.get(name) is not None
        value, key = (nested[name], f"parameters.{name}") if is_nested else (config.get(name), name)
        if parameter.type == "list" and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, str) and (what := _item(item)):
                    yield f"{key}.{index}: {what}"


def _item(item: str) -> str | None:
    """Say what is the matter with an argument; `None`: nothing is."""
    option = re.match(r"(--?[A-Za-z][\w.-]*)=", item)
    value = item[option.end() :] if option else item
    if SECRET_OPTION.match(item):
        return (
            "a secret among the arguments is seen by all users of the node, and stands in clear in the database. "
            "Put it into a file of mode 0600 and write environment_from.HF_TOKEN with its path instead."
        )
    if SEVERAL.match(item):
        return f"{_shown(item)} is one argument to the engine. Write one item a word: {_shown(_words(item))}."
    if QUOTED.fullmatch(value) and len(value) > 2:
        bare = _unquoted(value)
        return f"the quotes around {_shown(value)} are the shell's, and reach the engine here. Write {_shown(bare)}."
    if re.match(r'\{\s*(["}]|\w+\s*:)', value) or value.startswith("{'"):
        try:
            json.loads(value)
        except ValueError as error:
            return f"it begins like JSON, and is none ({error}): {_shown(value)}."
    return None


def _unquoted(value: str) -> str:
    """Take the quotes off, and the backslashes with which the shell has inner ones escaped."""
    bare = value[1:-1]
    return bare.replace('\\"', '"') if value[0] == '"' else bare


def _words(item: str) -> str:
    try:
        words = shlex.split(item)
    except ValueError:
        words = item.split()
    return json.dumps(words, ensure_ascii=False)


def _split(arguments: Mapping[str, Sequence[str]], resources: Resources) -> Iterator[str]:
    wanted, asked = gpus_wanted(arguments), gpus_asked(resources)
    if asked in (0, wanted):
        return
    if wanted > asked:
        what = f"the engine is to use {_gpus(wanted)}, and the job asks for {asked}"
        yield f"resources.gpu: {what}. Write resources.gpu={wanted}."
    else:
        what = f"the job asks for {_gpus(asked)}, and the engine uses {wanted}"
        yield f"resources.gpu: {what}. Write tensor_parallel_size={asked}, or resources.gpu={wanted}."


def _gpus(number: int) -> str:
    return f"{number} GPU{'' if number == 1 else 's'}"


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"

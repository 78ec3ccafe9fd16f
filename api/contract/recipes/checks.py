"""What a recipe's schema can't say: which keys need, exclude or name each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import regex

from api.contract.job.parameters import RUNTIME_VALUES
from api.contract.job.words import Network
from api.contract.recipes import update, volumes
from api.contract.recipes.schema import Command, HealthPart, RecipeFile

Problem = tuple[Sequence[str], str]
"""The keys that lead to what is wrong, and why it is."""


def problems(content: RecipeFile) -> Iterator[Problem]:
    """Find what is wrong with a recipe."""
    if content.image and content.container_def:
        yield ["container_def"], "give either image or container_def, not both"
    if content.health_check and not content.ports:
        yield ["health_check"], "something must listen for it: give ports"
    if content.engine == "vllm" and not (content.ports and content.model):
        yield ["engine"], "an engine of kind vllm needs ports and model"
    yield from _health(content, content.health_check or HealthPart())
    yield from volumes.problems(content)
    yield from update.problems(content)
    yield from _placeholders(content)
    yield from _address(content)
    for name, parameter in content.parameters.items():
        if parameter.variable is not None and parameter.type == "list":
            yield ["parameters", name, "variable"], "a variable can't hold a list"
        if parameter.pattern is not None:
            try:
                regex.compile(parameter.pattern)
            except regex.error as error:
                yield ["parameters", name, "pattern"], f"not a regular expression: {error}"


def placeholders(text: str) -> list[str]:
    """Return the names in braces: `--port={port}` gives `port`. Doubled braces are literal ones."""
    return re.findall(r"(?<!\{)\{([A-Za-z_][A-Za-z0-9_]*)\}(?!\})", text)


def health_kind(content: RecipeFile) -> Literal["http", "tcp", "command"]:
    """Return of what kind a recipe's health check is, where it says so and where it does not."""
    health = content.health_check or HealthPart()
    if health.kind is not None:
        return health.kind
    if health.command:
        return "command"
    return "http" if health.endpoint is not None or content.engine == "vllm" else "tcp"


def _health(content: RecipeFile, health: HealthPart) -> Iterator[Problem]:
    """Find keys of the health check that do not fit its kind."""
    kind = health_kind(content)
    if content.engine == "vllm" and kind != "http":
        yield ["health_check", "kind"], "an engine of kind vllm is asked over http"
    if kind == "command" and not health.command:
        yield ["health_check", "command"], "a check of kind command needs one"
    if kind != "command" and health.command:
        what = f"a check of kind {kind} runs none; leave it out, or say kind: command"
        yield ["health_check", "command"], what
    if kind != "http" and health.endpoint is not None:
        yield ["health_check", "endpoint"], f"a check of kind {kind} asks for none; leave it out, or say kind: http"


def _placeholders(content: RecipeFile) -> Iterator[Problem]:
    """Find names in braces that stand for nothing."""
    known = {*content.parameters, *RUNTIME_VALUES}
    check = content.health_check.command if content.health_check else []
    for keys, texts, names in (
        (["command"], _words([*content.program, *content.command]), known),
        (["health_check", "command"], _words(check), known),
        (["environment"], [str(v) for v in content.environment.values()], known),
        (["environment_from"], list(content.environment_from.values()), {*content.parameters}),
        (["model"], [content.model or ""], {*content.parameters}),
    ):
        for name in (n for text in texts for n in placeholders(text)):
            if name not in names:
                yield keys, f"{{{name}}} is not a parameter of this recipe"


def _address(content: RecipeFile) -> Iterator[Problem]:
    """Find what keeps an engine, or who asks it, from being told where it listens."""
    environment = [str(value) for value in content.environment.values()]
    told = _names([*_words([*content.program, *content.command]), *environment], content)
    asked = _names(_words(content.health_check.command if content.health_check else []), content)
    at = ["command"]
    if content.access == "direct" and "socket" in told | asked:
        yield at, "{socket} is behind a door: give {port}, or leave access out"
    if content.access == "direct" and content.ports and content.network is Network.PRIVATE:
        yield ["network"], "nobody reaches a port in there but a door: leave it out, or access"
    if content.exposed and (content.access == "direct" or not content.ports or content.engine == "vllm"):
        yield ["exposed"], "only what listens behind a door is, and a model's paths are passed on anyway: leave it out"
    if content.access == "door" and {"socket", "port"} <= told | asked:
        yield at, "behind a door an engine listens on {socket} or on {port}: give one of them"
    if content.access == "door" and content.ports and not told & {"socket", "port"}:
        yield at, "nothing says where to listen: give {socket}, or {port} to what can't listen on Unix sockets"


def _names(texts: Sequence[str], content: RecipeFile) -> set[str]:
    """Return what only the job knows of what these texts name."""
    return {name for text in texts for name in placeholders(text)} - content.parameters.keys()


def _words(command: Command) -> list[str]:
    return [word for item in command for word in ([item] if isinstance(item, str) else item)]

"""How a change is rolled out: what a recipe says, and where a service's config outweighs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from msgspec.structs import replace

from api.contract.launch import NoRoomPolicy
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.schema import MOST_AT_ONCE, RecipeFile, UpdatePart
from api.contract.recipes.units import whole_number
from api.contract.recipes.values import read_quantity, table

NOTHING_MOVES = "with neither room for a successor nor a replica less no change would come about: set one of them to 1"
NO_ROOM_POLICIES: tuple[NoRoomPolicy, ...] = get_args(NoRoomPolicy)
UPDATE_KEYS = ("surge", "max_unavailable", "no_room")
"""What a service may set."""


def problems(content: RecipeFile) -> Iterator[tuple[Sequence[str], str]]:
    """Find what is wrong with a recipe's way of rolling out: the keys that lead there, and why."""
    if content.update.surge == content.update.max_unavailable == 0:
        yield ["update"], f"surge and max_unavailable are 0: {NOTHING_MOVES}"


def resolve_update(content: RecipeFile, config: Mapping[str, Any]) -> UpdatePart:
    """Return how changes of a service are rolled out; raises `ConfigError`."""
    given = {} if "update" in content.parameters else table(config, "update")
    for key in given:
        if key == "strategy":
            raise ConfigError("update.strategy", "Only a recipe may set this: leave it out.")
        if key not in UPDATE_KEYS:
            raise ConfigError(f"update.{key}", f"There is no such key. There are: {', '.join(UPDATE_KEYS)}.")
    update = content.update
    surge, less = (_number(given, key, getattr(update, key)) for key in ("surge", "max_unavailable"))
    if surge == less == 0:
        raise ConfigError("update", f"surge and max_unavailable are 0: {NOTHING_MOVES}.")
    return replace(update, surge=surge, max_unavailable=less, no_room=_no_room(given, update.no_room))


def _no_room(given: Mapping[str, Any], otherwise: NoRoomPolicy) -> NoRoomPolicy:
    value = given.get("no_room")
    if value is None:
        return otherwise
    for policy in NO_ROOM_POLICIES:
        if value == policy:
            return policy
    raise ConfigError("update.no_room", f"must be one of: {', '.join(NO_ROOM_POLICIES)}.")


def _number(given: Mapping[str, Any], key: str, otherwise: int) -> int:
    if given.get(key) is None:
        return otherwise
    return read_quantity(f"update.{key}", lambda: whole_number(given[key], most=MOST_AT_ONCE))

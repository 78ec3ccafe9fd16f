"""What is sent: the contract's schemas, with the further fields that a client may use or ignore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import Row

from api.contract.doors import base_url
from api.contract.recipes.book import Recipe
from api.contract.status import Condition, explanation, word


class RecipeResponse(Struct, frozen=True, kw_only=True):
    """A recipe as clients see it."""

    name: str
    category: str
    description: str
    version: str
    path: str


class ServiceResponse(Struct, frozen=True, kw_only=True):
    """A service as clients see it. The fields after `created_at` are not the contract's."""

    id: str
    name: str
    recipe_name: str
    status: str
    config: dict[str, Any]
    created_at: str
    message: str = ""
    """What matters most now, for people."""
    conditions: Sequence[Condition] = ()
    replicas: int | None = None
    """How many are wanted; null until the controller has looked, where only the recipe says."""
    ready_replicas: int = 0
    generation: int = 1
    observed_generation: int = 0
    """Up to which generation `status`, `message` and `conditions` speak."""
    endpoint: str | None = None
    """Where a ready replica answers."""
    deleted_at: str | None = None
    version: int = 1
    """Counts the changes of what is wanted; in quotes it is the ETag."""
    owner: str | None = None
    """Whose it is; null: the operator's."""
    project: str | None = None
    access: str | None = None
    """Who sees it and may ask it beside its owner; null: as the site has it."""
    warnings: Sequence[str] | UnsetType = UNSET
    """What is probably not meant in the config; left out where there is nothing to say."""


class Declaration(Struct, frozen=True, kw_only=True):
    """What is wanted of a service, exactly as it was declared: nothing of the recipe's, nothing of what is seen."""

    id: str
    name: str
    recipe_name: str
    config: dict[str, Any]
    replicas: int | None
    """`None`: as many as the recipe says."""
    desired_state: str
    deleted_at: str | None
    version: int
    access: str | None = None
    """`None`: as the site has it."""


def recipe_response(recipe: Recipe) -> RecipeResponse:
    """Show a recipe."""
    content = recipe.content
    return RecipeResponse(
        name=content.name,
        category=content.category,
        description=content.description,
        version=content.version,
        path=recipe.path,
    )


def service_response(row: Row[Any], gateway: str, warnings: Sequence[str] | UnsetType = UNSET) -> ServiceResponse:
    """Show a row of `services.VIEW`; with `warnings` to who has just written it. `gateway`: its URL."""
    conditions = conditions_of(row)
    return ServiceResponse(
        id=row.id,
        name=row.name,
        recipe_name=row.recipe_name,
        status=word(wanted=is_wanted(row), conditions=conditions),
        config=shown_config(row.config),
        created_at=iso(row.created_at),
        message=explanation(conditions),
        conditions=conditions,
        replicas=row.replicas,
        ready_replicas=row.ready_replicas or 0,
        generation=row.generation,
        observed_generation=row.observed_generation or 0,
        endpoint=endpoint_of(row, gateway),
        deleted_at=None if row.deletion_requested_at is None else iso(row.deletion_requested_at),
        version=row.version,
        owner=row.owner,
        project=row.project,
        access=row.access,
        warnings=warnings or UNSET,
    )


def declaration(row: Row[Any]) -> Declaration:
    """Show what is wanted by a row of `services.VIEW`."""
    return Declaration(
        id=row.id,
        name=row.name,
        recipe_name=row.recipe_name,
        config=row.config,
        replicas=row.own_replicas,
        desired_state=row.desired_state,
        deleted_at=None if row.deletion_requested_at is None else iso(row.deletion_requested_at),
        version=row.version,
        access=row.access,
    )


def new_service_response(row: Mapping[str, Any], created_at: float, warnings: Sequence[str] = ()) -> ServiceResponse:
    """Show a service that was just made, of its row."""
    return ServiceResponse(
        id=row["id"],
        name=row["name"],
        recipe_name=row["recipe_name"],
        status="pending",
        config=shown_config(row["config"]),
        created_at=iso(created_at),
        replicas=row["replicas"],
        owner=row["owner"],
        project=row["project"],
        access=row["access"],
        warnings=warnings or UNSET,
    )


def etag(version: int) -> str:
    """Return the entity tag of a service's version: it names what is wanted, not what the service's status is."""
    return f'"{version}"'


def conditions_of(row: Row[Any]) -> tuple[Condition, ...]:
    """Return what the controller said last; nothing if it has not looked yet."""
    return msgspec.convert(row.conditions or (), tuple[Condition, ...])


def status_of(row: Row[Any]) -> str:
    """Return the status word."""
    return word(wanted=is_wanted(row), conditions=conditions_of(row))


def is_wanted(row: Row[Any]) -> bool:
    """Whether the service is neither stopped nor deleted."""
    return row.deletion_requested_at is None and bool(row.desired_state == "running")


def endpoint_of(row: Row[Any], gateway: str) -> str | None:
    """Return where clients reach a service whose joined endpoint is ready, if it is still wanted.

    That is the gateway, where it passes requests on; else the engine itself.
    """
    if row.host is None or not is_wanted(row):
        return None
    if row.door is not None and (row.is_exposed or row.models):
        return service_url(gateway, row.name)
    return base_url(row.host, row.port, has_door=row.door is not None)


def service_url(gateway: str, name: str) -> str:
    """Return where the gateway passes requests on to a service."""
    return f"{gateway}/services/{name}"


def shown_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config as it was sent, plus `nodes` where it is absent.

    It is added here and never stored: stored, it would outweigh the recipe's own number of nodes.
    """
    return config if "nodes" in config else {**config, "nodes": 1}


def iso(seconds: float) -> str:
    """Write Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")

"""Whose a service is, and what that means for who asks: principal × belonging → may. Pure.

This is the one place that decides it. `api.http.sight` says the same in SQL, where services are read; the gateway's
routing table is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from api.web.errors import ApiError
from api.web.principal import KeyScope, Principal, verdict


class Access(StrEnum):
    """Who sees a service and may ask it, beside its owner."""

    OWNER = "owner"
    """Nobody."""
    PROJECT = "project"
    """All of its project, who may change it too."""
    EVERYONE = "everyone"
    """Everybody: it is published."""


@dataclass(frozen=True, slots=True)
class Belonging:
    """Whose a service is."""

    owner: str | None
    """`None`: the operator."""
    project: str | None
    access: Access

    @classmethod
    def of(cls, row: Any, default: Access) -> Self:
        """Read it of a row that has a service's columns; `default` is the site's, for a service that says nothing."""
        return cls(row.owner, row.project, default if row.access is None else Access(row.access))


def is_theirs(principal: Principal, belonging: Belonging) -> bool:
    """Whether a service is the caller's own, or their project's."""
    if principal.owner == belonging.owner:
        return True
    is_shared = belonging.access is not Access.OWNER and belonging.project is not None
    return is_shared and principal.project == belonging.project


def may_see(principal: Principal, belonging: Belonging) -> bool:
    """Whether a service is there at all for the caller."""
    return principal.is_admin or belonging.access is Access.EVERYONE or is_theirs(principal, belonging)


def why_not_changed(principal: Principal, belonging: Belonging) -> ApiError | None:
    """Return why the caller may not change a service that they see; `None` if they may."""
    if principal.is_admin or is_theirs(principal, belonging):
        return None
    return ApiError(
        403,
        f"This service is another's: {principal} may ask it and look at it, and not change it.",
        code="not_yours",
    )


def access_of_new(principal: Principal, wanted: Access | None, default: Access) -> Access | None:
    """Return the access of a service that the caller makes, where they want this or (`None`) say nothing.

    Raises `ApiError` (403, 422) for what they may not have. Where the operator says nothing, nor does the service;
    others get the site's default, or what is nearest to it of what they may have.
    """
    if wanted is not None:
        check_access(principal, wanted, principal.project)
        return wanted
    may_publish = verdict(principal, KeyScope.PUBLISH) is None
    if principal.owner is None and may_publish:
        return None
    nearest = Access.PROJECT if default is Access.EVERYONE and not may_publish else default
    return Access.OWNER if nearest is Access.PROJECT and principal.project is None else nearest


def check_access(principal: Principal, wanted: Access, project: str | None) -> None:
    """Raise `ApiError` (403, 422) unless the caller may give this access to a service of a project."""
    if wanted is Access.EVERYONE and (refusal := verdict(principal, KeyScope.PUBLISH)) is not None:
        raise refusal
    if wanted is Access.PROJECT and project is None:
        raise ApiError(422, "There is no project that it could be for: set access to owner or everyone.")


def check_recipe(principal: Principal, recipe: str) -> None:
    """Raise `ApiError` (403) unless the caller may launch a recipe, by its path."""
    if not principal.may_launch(recipe):
        allowed = ", ".join(sorted(principal.recipes or ())) or "none"
        detail = f"The recipe {recipe} is not one that {principal} may launch: {allowed}."
        raise ApiError(403, detail, code="recipe_not_allowed")

"""Who asks, and whether they may: principal × scope × model → verdict. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from api.web.errors import ApiError
from api.web.key_limits import UNLIMITED, KeyLimits


class KeyScope(StrEnum):
    """What a key is good for."""

    INFER = "infer"
    """Asking models, under the gateway's routes."""
    READ = "read"
    """Looking at services, their logs and configs."""
    WRITE = "write"
    """Changing services: running containers as the operator."""
    PUBLISH = "publish"
    """Publishing services to everybody, beside `write`."""
    ADMIN = "admin"
    """Keys themselves; and everything else."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they are known to be good for."""

    key: str | None
    """Id of the key that was sent; `None`: a user of this host, or who has the administrator's key."""
    scopes: frozenset[KeyScope]
    owner: str | None
    """Who they are, and whose is what they make; `None`: the operator."""
    models: frozenset[str] | None = None
    """Names of models that may be asked for; `None`: all."""
    project: str | None = None
    """In which they work; `None`: in none."""
    recipes: frozenset[str] | None = None
    """Paths of recipes that may be launched; `None`: all."""
    limits: KeyLimits = UNLIMITED
    until: float | None = None
    """Unix seconds, for what a signed key opens; `None`: as long as they are known."""

    @property
    def is_admin(self) -> bool:
        """Whether nothing is kept from them."""
        return KeyScope.ADMIN in self.scopes

    def may_ask(self, model: str) -> bool:
        """Whether it may ask for a model of this name."""
        return self.models is None or model in self.models

    def may_launch(self, recipe: str) -> bool:
        """Whether it may launch a recipe, by its path."""
        return self.recipes is None or recipe in self.recipes

    def __str__(self) -> str:
        if self.key is not None:
            return f"the key {self.key}"
        return "the operator" if self.owner is None else f"the user {self.owner}"


OPERATOR = Principal(None, frozenset(KeyScope), owner=None)


def verdict(principal: Principal, needed: KeyScope, model: str | None = None) -> ApiError | None:
    """Return why a request is refused; `None` if it may pass."""
    if needed not in principal.scopes and not principal.is_admin:
        has = ", ".join(sorted(principal.scopes)) or "none"
        return ApiError(
            403,
            f"This needs the scope {needed.value}; {principal} has {has}. "
            "Who has the scope admin can make one: ai-factory api-keys create.",
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed.value}"'},
            code="insufficient_scope",
        )
    if model is not None and not principal.may_ask(model):
        allowed = ", ".join(sorted(principal.models or ())) or "none"
        return ApiError(
            403, f"The model {model!r} is not one that {principal} may ask for: {allowed}.", code="model_not_allowed"
        )
    return None

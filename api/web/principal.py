"""Who asks, and whether they may: principal × scope × model → verdict. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from api.web.errors import ApiError


class KeyScope(StrEnum):
    """What a key is good for."""

    INFER = "infer"
    """Asking models, under the gateway's routes."""
    READ = "read"
    """Looking at services, their logs and configs."""
    WRITE = "write"
    """Changing services: running containers as the operator."""
    ADMIN = "admin"
    """Keys themselves; and everything else."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they are known to be good for."""

    key: str | None
    """Id of the key that was sent; `None`: the operator, or who has the administrator's key."""
    scopes: frozenset[KeyScope]
    models: frozenset[str] | None = None
    """Names of models that may be asked for; `None`: all."""

    def may_ask(self, model: str) -> bool:
        """Whether it may ask for a model of this name."""
        return self.models is None or model in self.models

    def __str__(self) -> str:
        return "the operator" if self.key is None else f"the key {self.key}"


OPERATOR = Principal(None, frozenset(KeyScope))


def verdict(principal: Principal, needed: KeyScope, model: str | None = None) -> ApiError | None:
    """Return why a request is refused; `None` if it may pass."""
    if not principal.scopes & {needed, KeyScope.ADMIN}:
        has = ", ".join(sorted(principal.scopes)) or "none"
        return ApiError(
            403,
            f"This needs a key with the scope {needed.value}; {principal} has {has}. "
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

"""What of the services a caller sees, as a part of the statements that read them: to them no others are there.

What it says in SQL is `api.web.belonging.may_see`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Boolean, String, and_, bindparam, func, or_

from api.contract.tables import Service
from api.web.belonging import Access, Belonging, may_see, why_not_changed
from api.web.principal import OPERATOR, Principal

_ACCESS = func.coalesce(Service.access, bindparam("site_access", type_=String))
IS_SEEN = or_(
    bindparam("sees_all", type_=Boolean),
    _ACCESS == Access.EVERYONE,
    Service.owner.is_not_distinct_from(bindparam("callers_owner", type_=String)),
    and_(Service.project == bindparam("callers_project", type_=String), _ACCESS == Access.PROJECT),
)
"""For the WHERE of a statement that selects services; `Sight.keys` are its parameters."""


class Sight:
    """Who sees what on this site."""

    def __init__(self, default: Access) -> None:
        """`default` is the access of services that say nothing of it."""
        self.default = default

    def keys(self, principal: Principal) -> dict[str, Any]:
        """Return the parameters of `IS_SEEN` for a caller."""
        return {
            "sees_all": principal.is_admin,
            "site_access": self.default.value,
            "callers_owner": principal.owner,
            "callers_project": principal.project,
        }

    @property
    def all(self) -> Mapping[str, Any]:
        """The parameters with which nothing is kept back: for what answers nobody."""
        return self.keys(OPERATOR)

    def sees(self, principal: Principal, row: Any) -> bool:
        """Whether a caller sees the service of a row that was read for somebody else."""
        return may_see(principal, Belonging.of(row, self.default))

    def check_change(self, principal: Principal, row: Any) -> None:
        """Raise `ApiError` (403) unless a caller may change the service of a row that they see."""
        refusal = why_not_changed(principal, Belonging.of(row, self.default))
        if refusal is not None:
            raise refusal

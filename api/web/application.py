"""The framework's application, and what is served past it."""

from __future__ import annotations

from collections.abc import Mapping

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import ASGIApp, LifeSpanReceive, LifeSpanScope, LifeSpanSend, Receive, Scope, Send


class Application(Litestar):
    """An application some of whose paths are served past the framework: `direct`, by path."""

    direct: Mapping[str, ASGIApp] = {}

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Serve a request."""
        served = self.direct.get(scope["path"]) if scope["type"] == ScopeType.HTTP else None  # type: ignore[typeddict-item]
        if served is not None:
            await served(scope, receive, send)  # type: ignore[arg-type]
        else:
            await super().__call__(scope, receive, send)

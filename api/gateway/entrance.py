"""How REST's own questions come to engines: as requests for models do, under limits of keys and in their queues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from litestar.types import Receive

from api.gateway.admission import AdmittedRequest, Limiter
from api.gateway.following import RoutingTableReader
from api.gateway.forward import Forwarder
from api.gateway.leaving import Leaving
from api.gateway.models import busy
from api.gateway.queue import Queues
from api.gateway.token_count import Reserve
from api.web.principal import Principal
from api.web.replicas import ReadyReplica


@dataclass(frozen=True, slots=True)
class AskedService:
    """A service of which something is asked, and the replicas that may be asked it."""

    id: str
    name: str
    replicas: Sequence[ReadyReplica]

    @property
    def queue(self) -> str:
        """In which queue who asks it waits."""
        return self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEntrance:
    """Lets in who asks one service."""

    limiter: Limiter
    queues: Queues
    forwarder: Forwarder
    reader: RoutingTableReader
    in_flight: int
    """Requests that each replica is asked at a time; 0: any number."""

    @asynccontextmanager
    async def let_in(
        self, principal: Principal, service: AskedService, reserve: Callable[[], Reserve] | None, receive: Receive
    ) -> AsyncIterator[tuple[AskedService, AdmittedRequest]]:
        """Wait for the request's turn, whose body has been read; give the service as it is then.

        Raises `GatewayError` for what is over a limit, finds the queue full, waits too long, or leaves before its turn.
        What is asked within this and ends with a `GatewayError` costs nothing. `reserve`: None where no model is run.
        """
        has_looked = False

        def look() -> AskedService:
            nonlocal has_looked
            now = self._known(service) if has_looked else service
            has_looked = True
            if not self.forwarder.has_room(now.replicas):
                raise busy(now.id, len(now.replicas), now.name, self.in_flight)
            return now

        with self.limiter.admitted(principal, reserve) as admitted:
            leaving = Leaving(receive)
            try:
                found = await self.queues.turn(look, leaving, principal.key or "")
            finally:
                leaving.close()
            try:
                yield found, admitted
            finally:
                self.queues.ring()

    def _known(self, service: AskedService) -> AskedService:
        """Return the service as the routing table has it, as long as that knows of any replica."""
        known = None if self.reader.table is None else self.reader.table.by_key.get(service.id)
        return service if known is None or not known.replicas else replace(service, replicas=known.replicas)

"""What clients are told of models: which there are, and why one does not answer. Pure."""

from __future__ import annotations

from typing import Any

from api.gateway.refusals import GatewayError
from api.gateway.table import Destination, RoutingTable, ServedModel
from api.web.belonging import may_see
from api.web.principal import Principal
from api.web.replicas import ReadyReplica

SOON = ("starting", "running")
"""Words of services that may have a replica shortly; `running`: what this process has read is a little old."""
BUSY_SECONDS = 2
STARTING_SECONDS = 10
"""After which a client may ask again for a model that is on its way."""


class NotNowError(GatewayError):
    """A service takes no request now, and may shortly."""

    def __init__(self, service: str, message: str, *, code: str, retry_after: int, is_load: bool = False) -> None:
        """`service` is its id; `is_load`: whether it is that it has too many."""
        super().__init__(503, message, code=code, retry_after=retry_after)
        self.service = service
        self.is_load = is_load


def destination_of(table: RoutingTable, principal: Principal, name: str) -> Destination:
    """Return where a caller's model is served that is up; raises `GatewayError`."""
    destination = _known(table, principal, name)
    if destination.replicas:
        return destination
    services = destination.services
    if all(service.status == "cancelled" for service in services):
        raise GatewayError(
            503,
            f"The model {name!r} is stopped. Start it: ai-factory services start {services[0].name}",
            code="model_stopped",
        )
    service = next(service for service in services if service.status != "cancelled")
    why = f": {service.message}" if service.message else "."
    if service.status == "failed":
        message = f"The model {name!r} is not there: its service failed{why}"
        raise GatewayError(503, message, code="model_not_ready", retry_after=STARTING_SECONDS)
    message = f"The model {name!r} is not ready yet, its service is {service.status}{why}"
    if service.status not in SOON:
        raise GatewayError(503, message, code="model_not_ready", retry_after=STARTING_SECONDS)
    raise NotNowError(destination.queue, message, code="model_not_ready", retry_after=STARTING_SECONDS)


def busy(queue: str, replicas: int, name: str, most: int) -> NotNowError:
    """Say that all replicas of a model have as much to do as they may; who waits for it does so in this queue."""
    message = f"The model {name!r} is busy: {replicas} replicas answer {most} requests each (gateway.in_flight)."
    return NotNowError(queue, message, code="model_busy", retry_after=BUSY_SECONDS, is_load=True)


def service_of(table: RoutingTable, principal: Principal, key: str) -> ServedModel:
    """Return a service to which a caller's requests are passed on, by id or name; raises `GatewayError`."""
    service = table.by_key.get(key)
    if service is None or not may_see(principal, service.belonging):
        message = f"There is no service {key} here to which requests are passed on."
        raise GatewayError(404, message, code="service_not_found")
    return service


def ready_replicas(service: ServedModel) -> tuple[ReadyReplica, ...]:
    """Return the replicas of a service that may be asked; raises `GatewayError` if there are none."""
    replicas = tuple(replica for replica in service.replicas if replica.door is not None)
    if not replicas:
        why = f": {service.message}" if service.message else "."
        raise GatewayError(
            503,
            f"The service {service.name} is not ready, it is {service.status}{why}",
            code="service_not_ready",
            retry_after=STARTING_SECONDS,
        )
    return replicas


def models_shown(table: RoutingTable, principal: Principal, name: str) -> dict[str, Any]:
    """Return in OpenAI's form the models that a caller may ask for, or one; raises `GatewayError` if it is none."""
    if name:
        if not principal.may_ask(name):
            raise _unknown(name)
        return _shown(name, _known(table, principal, name))
    shown = [_shown(*item) for item in table.names(principal).items() if principal.may_ask(item[0])]
    return {"object": "list", "data": shown}


def _known(table: RoutingTable, principal: Principal, name: str) -> Destination:
    destination = table.find(principal, name)
    if destination is None:
        raise _unknown(name)
    if destination.is_ambiguous:
        raise _ambiguous(name, destination)
    return destination


def _unknown(name: str) -> GatewayError:
    message = f"There is no model {name!r}: GET /v1/models lists those that there are."
    return GatewayError(404, message, param="model", code="model_not_found")


def _ambiguous(name: str, destination: Destination) -> GatewayError:
    named = ", ".join(service.name for service in destination.services)
    message = f"The name {name!r} does not tell which model is meant: ask for one by its service's name ({named})."
    return GatewayError(400, message, param="model", code="model_ambiguous")


def _shown(name: str, destination: Destination) -> dict[str, Any]:
    """Describe a model; `status` and `message` are its service's."""
    service = max(destination.services, key=lambda service: len(service.replicas))
    return {
        "id": name,
        "object": "model",
        "created": int(service.created_at),
        "owned_by": "ai-factory",
        "root": destination.model,
        "status": service.status,
        "message": service.message,
        "ready_replicas": len(destination.replicas),
    }

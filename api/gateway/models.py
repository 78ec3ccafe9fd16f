"""What clients are told of models: which there are, and why one does not answer. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.gateway.refusals import GatewayError
from api.gateway.table import Destination, RoutingTable

STARTING_SECONDS = 10
"""After which a client may ask again for a model that is on its way."""


def destination_of(table: RoutingTable, name: str) -> Destination:
    """Return where a model is served that is up; raises `GatewayError`."""
    destination = _known(table, name)
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
    raise GatewayError(
        503,
        f"The model {name!r} is not ready yet, its service is {service.status}{why}"
        if service.status != "failed"
        else f"The model {name!r} is not there: its service failed{why}",
        code="model_not_ready",
        retry_after=STARTING_SECONDS,
    )


def models_shown(table: RoutingTable, name: str, may_ask: Callable[[str], bool]) -> dict[str, Any]:
    """Return in OpenAI's form the models that may be asked for, or one; raises `GatewayError` if it is none of them."""
    if name:
        if not may_ask(name):
            raise _unknown(name)
        return _shown(name, _known(table, name))
    shown = [_shown(*item) for item in table.destinations.items() if may_ask(item[0])]
    return {"object": "list", "data": shown}


def _known(table: RoutingTable, name: str) -> Destination:
    destination = table.find(name)
    if destination is None:
        raise _unknown(name)
    return destination


def _unknown(name: str) -> GatewayError:
    message = f"There is no model {name!r}: GET /v1/models lists those that there are."
    return GatewayError(404, message, param="model", code="model_not_found")


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

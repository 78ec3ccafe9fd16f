"""The routing table: which model is served where. Immutable, and replaced when anything changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from api.web.replicas import ReadyReplica


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A service that serves a model, whether or not it is up."""

    id: str
    """The service's."""
    name: str
    """The service's."""
    models: tuple[str, ...]
    """The names that its engine answers to."""
    created_at: float
    status: str
    """The word that REST has for it."""
    message: str
    """What is the matter with it, for people."""
    replicas: tuple[ReadyReplica, ...] = ()
    """Those that are ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a request for a model goes."""

    model: str
    """What the engine calls it."""
    services: tuple[ServedModel, ...]
    """All that serve it."""

    @property
    def replicas(self) -> tuple[ReadyReplica, ...]:
        """Those that may be asked."""
        return tuple(replica for service in self.services for replica in service.replicas)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All models, by the names under which they are asked for."""

    destinations: Mapping[str, Destination] = field(default_factory=dict)
    services: Sequence[ServedModel] = ()
    """The oldest first."""

    def find(self, name: str) -> Destination | None:
        """Return where a model is served; `None` if nothing serves one of that name."""
        return self.destinations.get(name)


def routing_table(services: Iterable[ServedModel]) -> RoutingTable:
    """Make the table. A service's name goes before the names of models; services of one model share its load."""
    ordered = sorted(services, key=lambda service: (service.created_at, service.id))
    by_model: defaultdict[str, list[ServedModel]] = defaultdict(list)
    for service in ordered:
        for model in service.models:
            by_model[model].append(service)
    found = {model: Destination(model=model, services=tuple(those)) for model, those in by_model.items()}
    for service in ordered:
        model = service.name if service.name in service.models else service.models[0]
        found[service.name] = Destination(model=model, services=(service,))
    return RoutingTable(found, ordered)

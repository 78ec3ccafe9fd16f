"""The routing table: which model is served where, and to whom. Immutable, and replaced when anything changes.

A name is looked for in circles, the nearest first: among the caller's own services, those of their project, those that
are published to everybody. Services share the load of a name within one owner or one project alone, so whoever else
takes a name gets nothing of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from api.web.belonging import Access, Belonging
from api.web.principal import Principal
from api.web.replicas import ReadyReplica


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A service to which requests are passed on, whether or not it is up."""

    id: str
    """The service's."""
    name: str
    """The service's."""
    models: tuple[str, ...]
    """The names that its engine answers to; none where it serves no model: its recipe says `exposed`."""
    belonging: Belonging
    aliases: tuple[str, ...] = ()
    """Further names, under which it is asked for and which its engine does not know."""
    created_at: float
    status: str
    """The word that REST has for it."""
    message: str
    """What is the matter with it, for people."""
    replicas: tuple[ReadyReplica, ...] = ()
    """Those that are ready."""

    def called(self, name: str) -> str:
        """Return what its engine calls the model that is asked for under a name."""
        return name if name in self.models else self.models[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a request for a model goes."""

    model: str
    """What the engine calls it."""
    services: tuple[ServedModel, ...]
    """All that serve it."""
    is_ambiguous: bool = False
    """Whether it can't be told which of them is meant: several have the name who do not belong together."""
    replicas: tuple[ReadyReplica, ...] = field(init=False)
    """Those that may be asked."""

    def __post_init__(self) -> None:
        """Gather the replicas, once for all requests."""
        replicas = tuple(replica for service in self.services for replica in service.replicas)
        object.__setattr__(self, "replicas", replicas)

    @property
    def queue(self) -> str:
        """In which queue who asks for it waits."""
        return self.services[0].id


Names = Mapping[str, Destination]


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All models, by the names under which they are asked for, and by whom."""

    owned: Mapping[str | None, Names] = field(default_factory=dict)
    """By owner."""
    shared: Mapping[str | None, Names] = field(default_factory=dict)
    """By project."""
    published: Names = field(default_factory=dict)
    services: Sequence[ServedModel] = ()
    """All, the oldest first."""
    by_key: Mapping[str, ServedModel] = field(default_factory=dict)
    """The same by id and by name; an id goes first."""

    def find(self, principal: Principal, name: str) -> Destination | None:
        """Return where a caller's model is served; `None` if nothing that they see serves one of that name."""
        for names in self._circles(principal):
            if (found := names.get(name)) is not None:
                return found
        return None

    def names(self, principal: Principal) -> Names:
        """Return all that a caller can ask for."""
        found: dict[str, Destination] = {}
        for names in reversed(tuple(self._circles(principal))):
            found |= names
        return {name: destination for name, destination in found.items() if not destination.is_ambiguous}

    def _circles(self, principal: Principal) -> Iterator[Names]:
        yield self.owned.get(principal.owner, {})
        if principal.project is not None:
            yield self.shared.get(principal.project, {})
        yield self.published


def routing_table(services: Iterable[ServedModel]) -> RoutingTable:
    """Make the table."""
    ordered = sorted(services, key=lambda service: (service.created_at, service.id))
    owned: defaultdict[str | None, list[ServedModel]] = defaultdict(list)
    shared: defaultdict[str | None, list[ServedModel]] = defaultdict(list)
    for service in ordered:
        owned[service.belonging.owner].append(service)
        if service.belonging.access is not Access.OWNER:
            shared[service.belonging.project].append(service)
    return RoutingTable(
        owned={owner: _names(those) for owner, those in owned.items()},
        shared={project: _names(those) for project, those in shared.items() if project is not None},
        published=_names([service for service in ordered if service.belonging.access is Access.EVERYONE]),
        services=ordered,
        by_key={service.name: service for service in ordered} | {service.id: service for service in ordered},
    )


def _names(services: Sequence[ServedModel]) -> Names:
    """Return what services are asked for by.

    Among those that belong together, a service's own name goes before the names of models, and these before aliases.
    """
    models, aliases, own = (defaultdict[str, list[ServedModel]](list) for _ in range(3))
    for service in [service for service in services if service.models]:
        for model in service.models:
            models[model].append(service)
        for alias in service.aliases:
            aliases[alias].append(service)
        own[service.name].append(service)
    names = dict.fromkeys(chain(models, aliases, own))
    return {name: _destination(name, own.get(name), models.get(name), aliases.get(name)) for name in names}


def _destination(name: str, *claims: Sequence[ServedModel] | None) -> Destination:
    """Return where a name leads that services claim, the stronger claims first."""
    given = [those for those in claims if those]
    everybody, strongest = tuple(dict.fromkeys(chain(*given))), tuple(given[0])
    called = strongest[0].called(name)
    if _belong_together(everybody) and all(service.called(name) == called for service in strongest):
        return Destination(model=called, services=strongest)
    return Destination(model=called, services=everybody, is_ambiguous=True)


def _belong_together(services: Sequence[ServedModel]) -> bool:
    """Whether services are one owner's or one project's."""
    owners = {service.belonging.owner for service in services}
    projects = {service.belonging.project for service in services}
    return len(owners) == 1 or (len(projects) == 1 and projects != {None})

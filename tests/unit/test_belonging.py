"""Whose a service is, and what that means: for callers, for names of models."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract.recipes.aliases import alias_problem, aliases
from api.gateway.models import destination_of, models_shown
from api.gateway.refusals import GatewayError
from api.gateway.table import RoutingTable, ServedModel, routing_table
from api.web.belonging import Access, Belonging, access_of_new, check_access, is_theirs, may_see, why_not_changed
from api.web.errors import ApiError
from api.web.principal import OPERATOR, KeyScope, Principal
from api.web.replicas import ReadyReplica

SCOPES = st.frozensets(st.sampled_from(KeyScope))
PEOPLE = st.sampled_from(["alice", "bob"])
PROJECTS = st.none() | st.sampled_from(["p", "q"])
CALLERS = st.builds(lambda scopes, owner, project: Principal("k", scopes, owner=owner, project=project),
                    SCOPES, PEOPLE, PROJECTS)  # fmt: skip
BELONGINGS = st.builds(Belonging, st.none() | PEOPLE, PROJECTS, st.sampled_from(Access))
NAMES = st.sampled_from(["gpt-4", "chat", "qwen"])


def caller(owner: str, *scopes: KeyScope, project: str | None = None) -> Principal:
    return Principal("k", frozenset(scopes), owner=owner, project=project)


# Whose it is


@given(CALLERS, BELONGINGS)
def test_who_sees_and_changes_what(principal: Principal, belonging: Belonging) -> None:
    is_own = principal.owner == belonging.owner
    is_project = belonging.project is not None and principal.project == belonging.project
    changes = KeyScope.ADMIN in principal.scopes or is_own or (is_project and belonging.access is not Access.OWNER)
    assert (why_not_changed(principal, belonging) is None) == changes
    assert may_see(principal, belonging) == (changes or belonging.access is Access.EVERYONE)
    assert may_see(OPERATOR, belonging)
    assert why_not_changed(OPERATOR, belonging) is None


@given(CALLERS, st.none() | st.sampled_from(Access), st.sampled_from(Access))
def test_what_is_made_is_published_by_who_may(principal: Principal, wanted: Access | None, default: Access) -> None:
    publishes = bool(principal.scopes & {KeyScope.PUBLISH, KeyScope.ADMIN})
    try:
        access = access_of_new(principal, wanted, default)
    except ApiError as error:
        refused = {Access.EVERYONE: not publishes, Access.PROJECT: principal.project is None}
        assert wanted is not None
        assert refused[wanted]
        assert error.status == {Access.EVERYONE: 403, Access.PROJECT: 422}[wanted]
        return
    assert access is not None, "the operator's alone says nothing"
    assert access is not Access.EVERYONE or publishes
    assert access is not Access.PROJECT or principal.project is not None
    assert wanted in (None, access)
    if wanted is None and access is not default:
        assert default in (Access.EVERYONE, Access.PROJECT)


def test_what_the_operator_makes_is_as_the_site_has_it() -> None:
    assert access_of_new(OPERATOR, None, Access.EVERYONE) is None
    assert access_of_new(OPERATOR, Access.OWNER, Access.EVERYONE) is Access.OWNER


def test_who_may_not_publish_is_told_which_scope_it_takes() -> None:
    with pytest.raises(ApiError, match="scope publish") as raised:
        check_access(caller("alice", KeyScope.WRITE), Access.EVERYONE, None)
    assert raised.value.code == "insufficient_scope"


# Aliases


def test_aliases_of_a_config() -> None:
    assert list(aliases({"aliases": ["gpt-4", "gpt-4", "", 5, "a\nb", "x" * 161, "ok"]})) == ["gpt-4", "ok"]
    for value in (None, [], ["gpt-4"]):
        assert alias_problem(value) is None
    for value in ("gpt-4", {"a": 1}, [1], [""], ["x" * 161], ["a\0"], ["x"] * 101):
        assert alias_problem(value) is not None
        list(aliases({"aliases": value}))


# Names of models


def service(
    name: str,
    model: str,
    belonging: Belonging,
    *others: str,
    aliases: Iterable[str] = (),
) -> ServedModel:
    replica = ReadyReplica(token=name, name=name, models=(model,), host="n1", port=1, door=None)
    return ServedModel(
        id=name, name=name, models=(model, *others), belonging=belonging, aliases=tuple(aliases), created_at=1.0,
        status="running", message="", replicas=(replica,),
    )  # fmt: skip


def told(table: RoutingTable, principal: Principal, name: str) -> list[str] | str:
    """Return the replicas that are asked, or the code of what is said instead."""
    try:
        return [replica.token for replica in destination_of(table, principal, name).replicas]
    except GatewayError as error:
        return str(error.code)


ALICE, BOB = caller("alice", KeyScope.INFER), caller("bob", KeyScope.INFER)
ALICE_P, BOB_P, CAROL_P = (caller(one, KeyScope.INFER, project="p") for one in ("alice", "bob", "carol"))
OWN, SHARED, PUBLIC = Access.OWNER, Access.PROJECT, Access.EVERYONE


def test_the_nearest_who_has_a_name_is_asked() -> None:
    table = routing_table([
        service("public", "gpt-4", Belonging(None, None, PUBLIC)),
        service("projects", "gpt-4", Belonging("carol", "p", SHARED)),
        service("alices", "gpt-4", Belonging("alice", None, OWN)),
    ])  # fmt: skip
    asked = [told(table, one, "gpt-4") for one in (ALICE, ALICE_P, BOB_P, CAROL_P, BOB, OPERATOR)]
    assert asked == [["alices"], ["alices"], ["projects"], ["projects"], ["public"], ["public"]]


def test_the_load_is_shared_within_an_owner_or_a_project() -> None:
    table = routing_table([
        service("a", "qwen", Belonging("alice", None, OWN)),
        service("b", "qwen", Belonging("alice", "q", OWN)),
        service("c", "llama", Belonging("alice", "p", SHARED)),
        service("d", "llama", Belonging("bob", "p", SHARED)),
    ])  # fmt: skip
    assert told(table, ALICE, "qwen") == ["a", "b"]
    assert told(table, BOB_P, "qwen") == "model_not_found"
    assert told(table, CAROL_P, "llama") == ["c", "d"]
    assert told(table, ALICE_P, "llama") == ["c"]


def test_a_name_that_two_publish_is_nobodys() -> None:
    table = routing_table([
        service("sites", "gpt-4", Belonging(None, None, PUBLIC)),
        service("mallorys", "gpt-4", Belonging("mallory", None, PUBLIC)),
    ])  # fmt: skip
    with pytest.raises(GatewayError, match=r"by its service's name \(mallorys, sites\)") as raised:
        destination_of(table, ALICE, "gpt-4")
    assert (raised.value.status, raised.value.code) == (400, "model_ambiguous")
    assert told(table, ALICE, "sites") == ["sites"]
    assert told(table, OPERATOR, "gpt-4") == ["sites"]
    assert [model["id"] for model in models_shown(table, ALICE, "")["data"]] == ["mallorys", "sites"]


def test_a_services_name_goes_before_models_and_these_before_aliases_among_ones_own() -> None:
    alice = Belonging("alice", None, OWN)
    table = routing_table([
        service("a", "qwen", alice, aliases=["b", "gpt-4", "chat"]),
        service("b", "chat", alice, aliases=["gpt-4"]),
    ])  # fmt: skip
    assert told(table, ALICE, "b") == ["b"]
    assert told(table, ALICE, "chat") == ["b"]
    assert table.find(ALICE, "b").model == "chat"  # type: ignore[union-attr]
    assert told(table, ALICE, "gpt-4") == "model_ambiguous", "two engines would be asked for different models"


def test_an_alias_is_asked_for_as_the_engine_calls_it() -> None:
    alice = Belonging("alice", None, OWN)
    table = routing_table([service(name, "qwen", alice, "adapter", aliases=["gpt-4"]) for name in "ab"])
    found = table.find(ALICE, "gpt-4")
    assert found is not None
    assert (found.model, [one.id for one in found.services]) == ("qwen", ["a", "b"])
    adapter = table.find(ALICE, "adapter")
    assert adapter is not None
    assert adapter.model == "adapter"


SERVICES = st.lists(st.tuples(NAMES, BELONGINGS, st.lists(NAMES, max_size=2)), max_size=6).map(
    lambda drawn: [service(f"s{i}", model, whose, aliases=also) for i, (model, whose, also) in enumerate(drawn)]
)


@given(SERVICES, CALLERS, NAMES)
def test_no_name_leads_to_what_the_caller_does_not_see(
    services: list[ServedModel], principal: Principal, name: str
) -> None:
    table = routing_table(services)
    found = table.find(principal, name)
    claiming = [one for one in services if name in (one.name, *one.models, *one.aliases)]
    nobody = Principal("k", frozenset(), owner=principal.owner, project=principal.project)
    seen = [one for one in claiming if may_see(nobody, one.belonging)]
    assert (found is None) == (seen == [])
    if found is None:
        return
    assert all(one in seen for one in found.services)
    if not found.is_ambiguous:
        owners = {one.belonging.owner for one in found.services}
        projects = {one.belonging.project for one in found.services}
        assert len(owners) == 1 or (len(projects) == 1 and projects != {None})
        assert all(found.model in one.models for one in found.services)
    if any(is_theirs(nobody, one.belonging) for one in seen):
        assert all(is_theirs(nobody, one.belonging) for one in found.services)
    assert (name in table.names(principal)) == (not found.is_ambiguous)


@given(SERVICES, CALLERS, NAMES)
def test_a_second_owner_who_claims_a_name_gets_no_request_of_others(
    services: list[ServedModel], principal: Principal, name: str
) -> None:
    whose = [Belonging("mallory", None, access) for access in Access]
    mallory = [service(name, "qwen", one, aliases=["gpt-4", "chat"]) for one in whose]
    before = routing_table(services).find(principal, name)
    after = routing_table([*services, *mallory]).find(principal, name)
    assert after is not None
    is_mallorys = any(one.belonging.owner == "mallory" for one in after.services)
    if before is None:
        assert is_mallorys, "nobody else has the name"
    else:
        assert not is_mallorys or after.is_ambiguous

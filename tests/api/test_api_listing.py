"""Filters, order and pages of GET /api/v1/services; events, attempts and conditions."""

from __future__ import annotations

import re
from typing import Any

import pytest
from api_world import World, condition

from api.contract.status import Truth

SERVICES = "/api/v1/services"


async def listed(world: World, query: str) -> list[str]:
    answer = await world.get(f"{SERVICES}?{query}")
    assert answer.status_code == 200, answer.text
    return [service["name"] for service in answer.json()]


async def pages(world: World, path: str) -> list[list[Any]]:
    """Follow the header Link to the end."""
    found = []
    while path:
        answer = await world.get(path)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        link = answer.headers.get("link", "")
        match = re.fullmatch(r'<(/.+)>; rel="next"', link)
        assert bool(match) == bool(link)
        path = match[1] if match else ""
        assert len(found) < 50
    return found


async def test_filters(anywhere: World) -> None:
    world = anywhere
    ids = {name: await world.create(name=name) for name in ("chat-a", "chat-b", "other")}
    await world.create("simple/hello", name="hello")
    await world.create("hello-world", name="hello-2")
    await world.observe(ids["chat-a"], available=True, reason="AsWanted")
    await world.observe(ids["chat-b"], reason="Starting")
    token = await world.attempt(ids["other"])
    await world.delete(f"{SERVICES}/other")
    for query, names in (
        ("status=running", ["chat-a"]),
        ("status=running,starting", ["chat-a", "chat-b"]),
        ("status=running&status=cancelled", ["chat-a", "other"]),
        ("ready=true", ["chat-a"]),
        ("ready=false&deleted=false", ["chat-b", "hello", "hello-2"]),
        ("deleted=true", ["other"]),
        ("name=chat-*", ["chat-a", "chat-b"]),
        ("name=*_*", []),
        ("name=%25", []),
        ("name=chat-a", ["chat-a"]),
        ("recipe=inference/engine", ["chat-a", "chat-b", "other"]),
        ("recipe=engine", ["chat-a", "chat-b", "other"]),
        ("recipe=hello", ["hello"]),
        ("sort=-name", ["other", "hello-2", "hello", "chat-b", "chat-a"]),
        ("sort=name&limit=2", ["chat-a", "chat-b"]),
        ("sort=-created_at&limit=1", ["hello-2"]),
        ("sort=-updated_at&limit=1", ["other"]),
        ("unheard=of", ["chat-a", "chat-b", "other", "hello", "hello-2"]),
    ):
        assert await listed(world, query) == names, query
    await world.end(token)
    for query, names in (
        ("status=cancelled", []),
        ("status=cancelled&deleted=true", ["other"]),
        ("recipe=hello", ["hello"]),
    ):
        assert await listed(world, query) == names, query


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "name", "-name", "updated_at", "-updated_at"])
async def test_pages_show_each_service_once(anywhere: World, sort: str) -> None:
    world = anywhere
    for number in range(7):
        await world.create(name=f"s{number}")
    names = await listed(world, f"sort={sort}")
    assert sorted(names) == [f"s{number}" for number in range(7)]
    assert names == (sorted(names)[::-1] if sort.startswith("-") else sorted(names))
    found = await pages(world, f"{SERVICES}?sort={sort}&limit=3")
    assert [len(page) for page in found] == [3, 3, 1]
    assert [service["name"] for page in found for service in page] == names


async def test_a_page_goes_on_behind_one_that_is_gone_or_new(world: World) -> None:
    for number in range(4):
        await world.create(name=f"s{number}")
    first = await world.get(f"{SERVICES}?limit=2")
    await world.delete(f"{SERVICES}/s1")
    await world.create(name="s4")
    link = first.headers["link"].split(">")[0][1:]
    assert [service["name"] for service in (await world.get(link)).json()] == ["s2", "s3"]


@pytest.mark.parametrize(
    "query",
    [
        *(
            "status=nope",
            "status=",
            "ready=maybe",
            "deleted=2",
            "sort=id",
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=",
        ),
        *("limit=%C2%B2", "after=x", "after=", "after=%00", "name=%00", "recipe=" + "x" * 500, "after=W10"),
        "after=WyJuYW1lIiwieCIsInkiXQ",
    ],
)
async def test_bad_parameters(world: World, query: str) -> None:
    answer = await world.get(f"{SERVICES}?{query}")
    assert answer.status_code == 422, answer.text
    problem = answer.json()["detail"][0]
    assert problem["loc"] == ["query", query.split("=", maxsplit=1)[0]]
    assert problem["msg"].startswith(query.split("=", maxsplit=1)[0])


async def test_events_of_the_controller_and_of_users(anywhere: World) -> None:
    world = anywhere
    service = await world.create(name="mine")
    await world.event(service, "Ready", 1.0, message="It answers.")
    await world.event(service, "Failed", 9e9, type="Warning", count=3, first_at=5.0)
    other = await world.create()
    await world.event(other, "Ready", 2.0)
    events = (await world.get(f"{SERVICES}/mine/events")).json()
    assert [event["reason"] for event in events] == ["Ready", "create", "Failed"]
    assert events[0] == {
        "source": "controller",
        "type": "Normal",
        "reason": "Ready",
        "message": "It answers.",
        "count": 1,
        "first_at": "1970-01-01T00:00:01.000+00:00",
        "last_at": "1970-01-01T00:00:01.000+00:00",
    }
    assert (events[1]["source"], events[2]["count"]) == ("user", 3)
    for query, reasons in (
        ("source=user", ["create"]),
        ("type=Warning", ["Failed"]),
        ("reason=Ready", ["Ready"]),
        ("tail=2", ["create", "Failed"]),
        ("limit=2", ["Ready", "create"]),
    ):
        answer = await world.get(f"{SERVICES}/{service}/events?{query}")
        assert [event["reason"] for event in answer.json()] == reasons, query
    found = await pages(world, f"{SERVICES}/mine/events?limit=1")
    assert [event for page in found for event in page] == events
    assert (await world.get(f"{SERVICES}/999/events")).status_code == 404
    assert (await world.get(f"{SERVICES}/mine/events?tail=1&limit=1")).status_code == 422


async def test_attempts(anywhere: World) -> None:
    world = anywhere
    service = await world.create(name="mine")
    await world.attempt(service, 0, 1, intent_at=1.0, closed_at=2.0, outcome="Failed", exit_code=1, job_id=2**40)
    await world.attempt(service, 0, 2, intent_at=3.0, job_id=7, started_at=4.0, ready_at=5.0, node="n1")
    await world.attempt(service, 1, 1, intent_at=2.0, started_at=2.5)
    await world.attempt(service, 2, 1, intent_at=4.0)
    attempts = (await world.get(f"{SERVICES}/mine/attempts")).json()
    assert [(a["replica"], a["attempt"], a["state"]) for a in attempts] == [
        (0, 1, "ended"),
        (1, 1, "starting"),
        (0, 2, "ready"),
        (2, 1, "pending"),
    ]
    assert (attempts[0]["job_id"], attempts[0]["exit_code"], attempts[2]["node"]) == (2**40, 1, "n1")
    assert (attempts[0]["closed_at"], attempts[2]["closed_at"]) == ("1970-01-01T00:00:02.000+00:00", None)
    for query, number in (("replica=0", 2), ("open=true", 3), ("open=false", 1), ("outcome=Failed", 1), ("tail=1", 1)):
        assert len((await world.get(f"{SERVICES}/mine/attempts?{query}")).json()) == number, query
    found = await pages(world, f"{SERVICES}/{service}/attempts?limit=3")
    assert [attempt for page in found for attempt in page] == attempts
    assert (await world.get(f"{SERVICES}/999/attempts")).status_code == 404


async def test_conditions(world: World) -> None:
    service = await world.create()
    assert (await world.get(f"{SERVICES}/{service}/conditions")).json() == []
    await world.status(
        service, [condition("Accepted", Truth.TRUE, "Valid"), condition("Ready", Truth.FALSE, "No", "x")]
    )
    path = f"{SERVICES}/{service}/conditions"
    assert [c["type"] for c in (await world.get(path)).json()] == ["Accepted", "Ready"]
    assert [c["reason"] for c in (await world.get(f"{path}?status=False")).json()] == ["No"]
    assert [c["reason"] for c in (await world.get(f"{path}?type=Accepted,Observed")).json()] == ["Valid"]
    assert (await world.get(path)).json()[0]["since"] == "1970-01-01T00:00:01.000+00:00"
    assert (await world.get(f"{path}?type=Nope")).status_code == 422
    assert (await world.get(f"{SERVICES}/999/conditions")).status_code == 404

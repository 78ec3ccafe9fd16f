"""…/rollout: how far a change is, what was before, undo, pause and resume."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from api_world import ENGINE, World, condition
from sqlalchemy import select, text
from test_api_every_route import hidden
from test_api_keys import STRANGER, bearer, keyed, make

from api.contract.status import Truth
from api.contract.tables import Service, ServiceStatus, UserEvent

SERVICES = "/api/v1/services"
__all__ = ["keyed"]


async def sql(world: World, statement: str, **values: Any) -> None:
    async with world.database.write() as connection:
        await connection.execute(text(statement), values)


async def rollout(world: World, key: str = "mine") -> dict[str, Any]:
    answer = await world.get(f"{SERVICES}/{key}/rollout")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def generations(world: World, key: str = "mine") -> list[tuple[int, Any]]:
    answer = await world.get(f"{SERVICES}/{key}/rollout/history")
    assert answer.status_code == 200, answer.text
    return [(one["generation"], one["config"].get("max_model_len")) for one in answer.json()]


async def change(world: World, config: dict[str, Any]) -> None:
    assert (await world.patch(f"{SERVICES}/mine", {"config": config})).status_code == 200


async def undo(world: World, content: Any = b"") -> Any:
    return await world.post(f"{SERVICES}/mine/rollout/undo", content)


async def config_of(world: World) -> dict[str, Any]:
    return dict((await world.get(f"{SERVICES}/mine/declaration")).json()["config"])


async def user_events(world: World, service: str) -> list[str]:
    query = select(UserEvent.action).where(UserEvent.service_id == service).order_by(UserEvent.id)
    return list(await world.database.read(lambda connection: connection.scalars(query).all()))


# history


async def test_each_launch_that_was_asked_for_is_kept(anywhere: World) -> None:
    world = anywhere
    service = await world.create(name="mine", config={"max_model_len": 1})
    await change(world, {"max_model_len": 2})
    await world.patch(f"{SERVICES}/mine", {"replicas": 3})
    await world.patch(f"{SERVICES}/mine", {"desired_state": "stopped"})
    await world.patch(f"{SERVICES}/mine", {"desired_state": "running", "access": "everyone"})
    await change(world, {"max_model_len": None, "note": "x"})
    assert await generations(world) == [(1, 1), (2, 2), (6, None)]
    shown = (await world.get(f"{SERVICES}/{service}/rollout/history")).json()
    assert [one["changed"] for one in shown] == [[], ["max_model_len"], ["max_model_len", "note"]]
    assert [one["is_wanted"] for one in shown] == [False, False, True]
    assert {one["recipe_name"] for one in shown} == {ENGINE}


async def test_what_sql_changes_is_kept_too(anywhere: World) -> None:
    """Nobody but the database sees all who write: there it is done."""
    world = anywhere
    await sql(world, f"INSERT INTO services (name, recipe_name) VALUES ('mine', '{ENGINE}')")
    for config in ('{"max_model_len": 7}', '{"max_model_len":  7}', '{"max_model_len": 7, "replicas": 2}'):
        await sql(world, "UPDATE services SET config = :config WHERE name = 'mine'", config=config)
    assert await generations(world) == [(1, None), (2, 7)]
    await sql(world, "UPDATE services SET recipe_name = 'other/recipe' WHERE name = 'mine'")
    shown = (await world.get(f"{SERVICES}/mine/rollout/history")).json()
    assert (shown[-1]["recipe_name"], shown[-1]["changed"]) == ("other/recipe", ["recipe_name", "replicas"])


async def test_ten_are_kept(anywhere: World) -> None:
    await anywhere.create(name="mine")
    await anywhere.create(name="other")
    for number in range(1, 13):
        await change(anywhere, {"max_model_len": number})
    assert await generations(anywhere) == [(number + 1, number) for number in range(3, 13)]
    assert await generations(anywhere, "other") == [(1, None)]


async def test_what_is_removed_for_good_leaves_nothing(anywhere: World) -> None:
    service = await anywhere.create(name="mine")
    await sql(anywhere, "UPDATE services SET purge = 1 WHERE id = :id", id=service)
    await sql(anywhere, "DELETE FROM services WHERE id = :id", id=service)
    query = text("SELECT count(*) FROM service_generations")
    assert await anywhere.database.read(lambda connection: connection.scalar(query)) == 0


# undo


async def test_undo_asks_again_for_what_was_before(anywhere: World) -> None:
    world = anywhere
    service = await world.create(name="mine", config={"max_model_len": 1})
    await change(world, {"max_model_len": 2, "note": "x"})
    await world.patch(f"{SERVICES}/mine", {"replicas": 3})
    answer = await undo(world)
    assert (answer.status_code, answer.json()["generation"]) == (200, 4)
    declared = (await world.get(f"{SERVICES}/mine/declaration")).json()
    assert (declared["config"], declared["replicas"]) == ({"max_model_len": 1}, 3)
    assert await generations(world) == [(1, 1), (2, 2), (4, 1)]
    assert (await undo(world)).json()["generation"] == 5
    assert await config_of(world) == {"max_model_len": 2, "note": "x"}
    assert (await user_events(world, service))[-2:] == ["undo", "undo"]


async def test_undo_to_a_generation(world: World) -> None:
    await world.create(name="mine", config={"max_model_len": 1})
    await change(world, {"max_model_len": 2})
    await world.patch(f"{SERVICES}/mine", {"replicas": 2})
    await change(world, {"max_model_len": 4})
    assert (await undo(world, {"to_generation": 1})).status_code == 200
    assert (await config_of(world))["max_model_len"] == 1
    between = await undo(world, {"to_generation": 3})
    assert (between.status_code, (await config_of(world))["max_model_len"]) == (200, 2)
    same = await undo(world, {"to_generation": 6})
    assert (same.status_code, same.json()["generation"]) == (200, 6), "it is what is wanted: nothing to do"


async def test_undo_never_scales(world: World) -> None:
    await world.create(name="mine", config={"max_model_len": 1, "replicas": 2})
    await change(world, {"max_model_len": 2, "replicas": 5})
    assert (await undo(world)).status_code == 200
    assert await config_of(world) == {"max_model_len": 1, "replicas": 5}
    await change(world, {"replicas": 4})
    assert (await undo(world)).status_code == 200
    assert await config_of(world) == {"max_model_len": 2, "replicas": 4}


async def test_what_there_is_no_way_back_to(world: World) -> None:
    await world.create(name="mine", config={"max_model_len": 1})
    nothing = await undo(world)
    assert (nothing.status_code, "nothing to go back to" in nothing.text) == (409, True)
    for generation in (2, 99):
        missing = await undo(world, {"to_generation": generation})
        assert (missing.status_code, "rollout/history" in missing.text) == (404, True)
    for bad in ({"to_generation": 0}, {"to_generation": True}, {"to_generation": "1"}, {"to": 1}, []):
        assert (await undo(world, bad)).status_code == 422, bad
    await sql(world, "UPDATE services SET recipe_name = 'gone/recipe' WHERE name = 'mine'")
    await sql(world, f"UPDATE services SET recipe_name = '{ENGINE}', config = '{{}}' WHERE name = 'mine'")
    gone = await undo(world)
    assert (gone.status_code, "gone/recipe" in gone.text) == (404, True)
    await world.delete(f"{SERVICES}/mine")
    service = (await world.get(f"{SERVICES}?deleted=true")).json()[0]["id"]
    assert (await world.post(f"{SERVICES}/{service}/rollout/undo", b"")).status_code == 409


async def test_undo_only_to_what_can_be_launched(world: World) -> None:
    await sql(
        world,
        f"INSERT INTO services (name, recipe_name, config) VALUES ('mine', '{ENGINE}', '{{\"max_model_len\": 0}}')",
    )
    await change(world, {"max_model_len": 2})
    refused = await undo(world)
    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "config", "max_model_len"])
    assert await config_of(world) == {"max_model_len": 2}


async def test_of_many_at_once_each_undo_is_whole(anywhere: World) -> None:
    await anywhere.create(name="mine", config={"max_model_len": 1})
    await change(anywhere, {"max_model_len": 2})
    answers = await asyncio.gather(*(undo(anywhere, {"to_generation": 1}) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert await generations(anywhere) == [(1, 1), (2, 2), (3, 1)]


# pause and resume


async def test_a_pause_is_no_new_generation_and_wakes_who_follows(anywhere: World) -> None:
    world = anywhere
    service = await world.create(name="mine")

    async def columns() -> Any:
        query = select(Service.generation, Service.version, Service.change_seq, Service.rollout_paused)
        return await world.database.read(lambda connection: connection.execute(query).one())

    first = await columns()
    paused = await world.post(f"{SERVICES}/mine/rollout/pause")
    assert (paused.status_code, paused.json()["paused"]) == (200, True)
    then = await columns()
    assert (then.generation, then.version, then.rollout_paused) == (first.generation, first.version + 1, 1)
    assert then.change_seq > first.change_seq
    assert (await world.post(f"{SERVICES}/mine/rollout/pause")).status_code == 200
    assert await columns() == then, "it was already"
    assert (await world.post(f"{SERVICES}/mine/rollout/resume")).json()["paused"] is False
    assert (await columns()).version == first.version + 2
    assert await user_events(world, service) == ["create", "paused", "resumed"]


@pytest.mark.parametrize("value", ["2", "-1", "NULL"])
async def test_a_pause_is_one_or_zero(anywhere: World, value: str) -> None:
    await anywhere.create(name="mine")
    with pytest.raises(Exception, match=r"rollout_paused must be 1|NOT NULL|null value"):
        await sql(anywhere, f"UPDATE services SET rollout_paused = {value}")


async def test_one_statement_may_change_and_pause(anywhere: World) -> None:
    await anywhere.create(name="mine")
    await sql(anywhere, "UPDATE services SET rollout_paused = 1, config = '{\"max_model_len\": 3}'")
    found = await rollout(anywhere)
    assert (found["generation"], found["paused"]) == (2, True)
    assert await generations(anywhere) == [(1, None), (2, 3)]


# status


async def standing(world: World, service: str, replica: int, *, is_new: bool, **rest: Any) -> None:
    query = select(ServiceStatus.digest).where(ServiceStatus.service_id == service)
    now = await world.database.read(lambda connection: connection.scalar(query))
    values = {"started_at": 1.0, "ready_at": 2.0, "digest": now if is_new else "old", **rest}
    await world.attempt(
        service, replica, rest.pop("incarnation", 1), **{k: v for k, v in values.items() if k != "incarnation"}
    )


async def test_how_far_a_rollout_is(anywhere: World) -> None:
    world = anywhere
    service = await world.create(name="mine", replicas=2)
    assert (await rollout(world))["state"] == "progressing"
    assert "not looked at generation 1 yet" in (await rollout(world))["message"]
    await world.observe(service, reason="Starting", message="It starts.", target=2, wanted_replicas=2)
    await standing(world, service, 0, is_new=True)
    await standing(world, service, 1, is_new=False)
    found = await rollout(world)
    assert (found["state"], found["updated_replicas"], found["ready_replicas"], found["replicas"]) == (
        "progressing", 1, 2, 2,
    )  # fmt: skip
    assert found["message"] == "1 of 2 replicas answer as generation 1 says. It starts."
    assert [one["is_updated"] for one in found["attempts"]] == [True, False]
    await world.post(f"{SERVICES}/mine/rollout/pause")
    assert (await rollout(world))["state"] == "paused"
    await world.observe(service, reason="Failed", message="No such image.", target=2)
    failed = await rollout(world)
    assert (failed["state"], "No such image." in failed["message"]) == ("failed", True)
    await world.observe(service, reason="RolloutFailed", message="Replica 1 does not come to it.", target=2)
    vain = await rollout(world)
    assert (vain["state"], "Replica 1 does not come to it." in vain["message"]) == ("failed", True)
    await world.observe(service, reason="AsWanted", target=2)
    await sql(world, "UPDATE attempts SET closed_at = 3, outcome = 'Outdated' WHERE digest = 'old'")
    assert (await rollout(world))["state"] == "paused", "one replica is not there"
    await standing(world, service, 1, is_new=True, incarnation=2)
    assert (await rollout(world))["state"] == "complete"
    await world.patch(f"{SERVICES}/mine", {"desired_state": "stopped"})
    assert (await rollout(world))["state"] == "stopped"


@pytest.mark.parametrize(("reason", "state"), [("Completed", "complete"), ("Failed", "failed")])
async def test_the_ends_of_a_job(world: World, reason: str, state: str) -> None:
    service = await world.create(name="mine")
    await world.observe(service, reason=reason, target=1)
    assert (await rollout(world))["state"] == state


async def test_a_refused_change_has_failed(world: World) -> None:
    service = await world.create(name="mine")
    await world.status(service, [condition("Accepted", Truth.FALSE, "BadConfig", "replicas: too many.")], target=1)
    found = await rollout(world)
    assert (found["state"], "replicas: too many." in found["message"]) == ("failed", True)


async def test_lanes_draining_and_ends_are_shown(world: World) -> None:
    service = await world.create(name="mine")
    await world.observe(service, reason="AsWanted", target=1)
    ends = time.time() + 100
    await standing(world, service, 0, is_new=True, ends_at=ends, draining_since=ends - 200)
    await standing(world, service, 0, is_new=True, incarnation=2, lane="b", beside="TimeLimit", ends_at=ends + 3600)
    found = await rollout(world)
    old, successor = found["attempts"]
    assert (old["lane"], old["beside"], old["draining_since"] is not None) == ("main", None, True)
    assert "ended once nothing is in flight" in old["then"]
    assert (successor["lane"], successor["beside"], successor["then"]) == ("b", "TimeLimit", "handed over before it")
    assert successor["ends_at"] > old["ends_at"]
    assert (found["updated_replicas"], found["state"]) == (1, "complete")
    listed = (await world.get(f"{SERVICES}/mine/attempts")).json()
    assert [(one["beside"], one["draining_since"]) for one in listed] == [
        (None, old["draining_since"]), ("TimeLimit", None),
    ]  # fmt: skip


async def test_a_draining_attempt_is_no_updated_replica(world: World) -> None:
    service = await world.create(name="mine")
    await world.observe(service, reason="AsWanted", target=1)
    await standing(world, service, 0, is_new=True, draining_since=1.0)
    assert (await rollout(world))["updated_replicas"] == 0


# whose it is


@pytest.mark.parametrize(("access", "looking", "changing"), [("project", 404, 404), ("everyone", 200, 403)])
async def test_only_who_may_change_a_service_changes_its_rollout(
    keyed: World, access: str, looking: int, changing: int
) -> None:
    service = await hidden(keyed, access=access)
    mate = bearer((await make(keyed, "read", "write", owner="bob", project="p"))["secret"])
    stranger = bearer((await make(keyed, "read", "write", owner="eve"))["secret"])
    keyed.uid = STRANGER
    for what in ("rollout", "rollout/history"):
        path = f"{SERVICES}/{service}/{what}"
        assert (await keyed.get(path, headers=mate)).status_code == 200
        assert (await keyed.get(path, headers=stranger)).status_code == looking
    for what, code in (("pause", 200), ("resume", 200), ("undo", 409)):
        path = f"{SERVICES}/{service}/rollout/{what}"
        assert (await keyed.post(path, b"", headers=stranger)).status_code == changing
        assert (await keyed.post(path, b"", headers=mate)).status_code == code


async def test_undo_launches_no_recipe_that_a_key_may_not(keyed: World) -> None:
    bound = await make(keyed, "read", "write", owner="alice", recipes=["inference/engine"])
    made = await keyed.post(SERVICES, {"recipe_name": ENGINE, "name": "mine"}, headers=bearer(bound["secret"]))
    assert made.status_code == 200, made.text
    await sql(keyed, "UPDATE services SET recipe_name = 'simple/hello' WHERE name = 'mine'")
    await sql(keyed, f"UPDATE services SET recipe_name = '{ENGINE}', config = '{{\"max_model_len\": 2}}'")
    keyed.uid = STRANGER
    refused = await keyed.post(f"{SERVICES}/mine/rollout/undo", b"", headers=bearer(bound["secret"]))
    assert (refused.status_code, "may launch" in refused.text) == (403, True), refused.text

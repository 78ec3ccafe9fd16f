"""contract.md: GET and DELETE of services, status words, service ids."""

from __future__ import annotations

import asyncio

import pytest
from api_world import ENGINE, World, condition

from api.contract.status import Truth

SERVICES = "/api/v1/services"
CONTRACT_FIELDS = {"id", "name", "recipe_name", "status", "config", "created_at"}


async def test_list_is_empty_and_then_has_the_newest_last(world: World) -> None:
    answer = await world.get(SERVICES)
    assert (answer.status_code, answer.json()) == (200, [])
    made = [await world.create() for _ in range(5)]
    assert [service["id"] for service in (await world.get(SERVICES)).json()] == made


async def test_a_service_carries_the_contracts_fields_and_more(world: World) -> None:
    service_id = await world.create()
    await world.observe(service_id, reason="Queued", message="Waiting for a GPU.")
    service = (await world.get(f"{SERVICES}/{service_id}")).json()
    assert set(service) >= CONTRACT_FIELDS
    assert service["message"] == "Waiting for a GPU."
    assert service["conditions"][0]["reason"] == "Queued"
    assert (service["generation"], service["observed_generation"]) == (1, 1)
    assert service["endpoint"] is None


async def test_endpoint_and_ready_replicas(world: World) -> None:
    service_id = await world.create(config={"replicas": 2})
    await world.observe(service_id, available=True, ready_replicas=1)
    await world.endpoint(service_id, "10.0.0.1", 8000, token="af-x-y-0-1", replica=0, state="unready")
    await world.endpoint(service_id, "fe80::1", 8001, token="af-x-y-1-1", replica=1)
    service = (await world.get(f"{SERVICES}/{service_id}")).json()
    assert service["endpoint"] == "http://[fe80::1]:8001"
    assert (service["replicas"], service["ready_replicas"]) == (2, 1)
    assert len((await world.get(SERVICES)).json()) == 1


WORDS = [
    ([], "pending"),
    ([condition("Progressing", Truth.TRUE, "Submitting")], "pending"),
    ([condition("Progressing", Truth.TRUE, "Queued")], "pending"),
    ([condition("Progressing", Truth.TRUE, "BackOff")], "pending"),
    ([condition("Progressing", Truth.TRUE, "BuildingImage")], "building"),
    ([condition("Progressing", Truth.TRUE, "Starting")], "starting"),
    (
        [condition("Progressing", Truth.FALSE, "AsWanted"), condition("Available", Truth.TRUE, "Answering")],
        "running",
    ),
    ([condition("Progressing", Truth.FALSE, "Completed")], "completed"),
    ([condition("Progressing", Truth.FALSE, "Failed")], "failed"),
    ([condition("Accepted", Truth.FALSE, "NoSuchRecipe")], "failed"),
]


@pytest.mark.parametrize(("conditions", "word"), WORDS, ids=lambda value: str(value)[-40:])
async def test_status_words(world: World, conditions: list[object], word: str) -> None:
    service = await world.create()
    await world.status(service, conditions)  # type: ignore[arg-type]
    answer = await world.get(f"{SERVICES}/{service}/status")
    assert (answer.status_code, answer.json()) == (200, {"status": word})
    assert (await world.get(f"{SERVICES}/{service}")).json()["status"] == word
    assert (await world.get(SERVICES)).json()[0]["status"] == word
    await world.delete(f"{SERVICES}/{service}")
    assert (await world.get(f"{SERVICES}/{service}/status")).json() == {"status": "cancelled"}


async def test_get_unknown(world: World) -> None:
    for key in ("999", "nope", "%00", "a%2Fb", "x" * 500, "%F0%9F%98%80", "%27%20OR%201=1%20--"):
        answer = await world.get(f"{SERVICES}/{key}")
        assert answer.status_code == 404
        assert answer.json() == ({"detail": "Not Found"} if "%2F" in key else {"detail": "Service not found"})


async def test_status_of_unknown_is_unknown(world: World) -> None:
    answer = await world.get(f"{SERVICES}/999/status")
    assert (answer.status_code, answer.json()) == (200, {"status": "unknown"})


async def test_delete(world: World) -> None:
    service = await world.create()
    for _ in range(3):
        answer = await world.delete(f"{SERVICES}/{service}")
        assert (answer.status_code, answer.json()) == (200, {"message": f"Service {service} stopped successfully"})
    shown = (await world.get(f"{SERVICES}/{service}")).json()
    assert shown["status"] == "cancelled"
    assert shown["deleted_at"] is not None


async def test_a_deleted_service_leaves_lists_and_names_when_nothing_of_it_is_left(anywhere: World) -> None:
    world = anywhere
    service = await world.create(name="chat")
    token = await world.attempt(service, job_id=7)
    await world.delete(f"{SERVICES}/chat")
    for _ in range(2):
        assert [(s["id"], s["status"]) for s in (await world.get(SERVICES)).json()] == [(service, "cancelled")]
        assert (await world.get(f"{SERVICES}/chat")).json()["id"] == service
    before = (await world.get(f"{SERVICES}/{service}")).json()
    await world.end(token)
    assert (await world.get(SERVICES)).json() == []
    assert (await world.get(f"{SERVICES}/chat")).json() == {"detail": "Service not found"}
    assert (await world.get(f"{SERVICES}/chat/status")).json() == {"status": "unknown"}
    assert (await world.get(f"{SERVICES}/{service}")).json() == before
    assert [s["id"] for s in (await world.get(f"{SERVICES}?deleted=true")).json()] == [service]
    assert (await world.delete(f"{SERVICES}/chat")).json() == {"message": "Service chat stopped successfully"}
    again = await world.create(name="chat")
    assert [s["id"] for s in (await world.get(SERVICES)).json()] == [again]
    assert (await world.get(f"{SERVICES}/chat")).json()["id"] == again


async def test_delete_keeps_the_first_time_and_one_generation(world: World) -> None:
    service = await world.create()
    await world.delete(f"{SERVICES}/{service}")
    before = (await world.get(f"{SERVICES}/{service}")).json()
    await asyncio.sleep(0.01)
    await world.delete(f"{SERVICES}/{service}")
    assert (await world.get(f"{SERVICES}/{service}")).json() == before
    assert before["generation"] == 2


async def test_delete_many_at_once(world: World) -> None:
    service = await world.create()
    answers = await asyncio.gather(*(world.delete(f"{SERVICES}/{service}") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}


async def test_delete_unknown(world: World) -> None:
    answer = await world.delete(f"{SERVICES}/999")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Service not found or failed to stop"})


async def test_wherever_an_id_stands_the_name_does_too(world: World) -> None:
    service = await world.create(name="llama-3")
    assert (await world.get(f"{SERVICES}/llama-3")).json()["id"] == service
    assert (await world.get(f"{SERVICES}/llama-3/status")).json() == {"status": "pending"}
    assert "No logs yet" in (await world.get(f"{SERVICES}/llama-3/logs")).json()["logs"]
    assert (await world.get("/api/v1/vllm/llama-3/models")).json()["service_id"] == service
    prompt = await world.post("/api/v1/vllm/llama-3/prompt", {"prompt": "hi"})
    assert prompt.json()["service_id"] == service
    answer = await world.delete(f"{SERVICES}/llama-3")
    assert answer.json() == {"message": "Service llama-3 stopped successfully"}
    assert (await world.get(f"{SERVICES}/{service}")).json()["status"] == "cancelled"


async def test_a_name_means_the_living_one_then_the_newest_that_is_ending(world: World) -> None:
    made = []
    for _ in range(3):
        made.append(await world.create(name="again"))
        assert (await world.get(f"{SERVICES}/again")).json()["id"] == made[-1]
        await world.attempt(made[-1])
        await world.delete(f"{SERVICES}/again")
        assert (await world.get(f"{SERVICES}/again")).json()["id"] == made[-1]
        await asyncio.sleep(0.002)


async def test_an_id_goes_before_a_name(world: World) -> None:
    first = await world.create()
    second = await world.create(name=first)
    assert (await world.get(f"{SERVICES}/{first}")).json()["id"] == first
    await world.delete(f"{SERVICES}/{first}")
    assert (await world.get(f"{SERVICES}/{first}/status")).json() == {"status": "cancelled"}
    assert (await world.get(f"{SERVICES}/{second}/status")).json() == {"status": "pending"}


async def test_a_service_stopped_by_sql_reads_cancelled(world: World) -> None:
    from sqlalchemy import text

    service = await world.create()
    async with world.database.write() as connection:
        await connection.execute(text("UPDATE services SET desired_state = 'stopped'"))
    assert (await world.get(f"{SERVICES}/{service}/status")).json() == {"status": "cancelled"}


async def test_everything_is_answered_with_neither_slurm_nor_controller(world: World) -> None:
    """No controller has written a thing, and there is no Slurm: the API needs neither."""
    service = await world.create(ENGINE)
    for path in (SERVICES, f"{SERVICES}/{service}", f"{SERVICES}/{service}/status", "/api/v1/vllm/services"):
        assert (await world.get(path)).status_code == 200
    assert (await world.delete(f"{SERVICES}/{service}")).status_code == 200

"""contract.md, "Replicas, as later clients of this API see them": groups, targets and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from api_servers import RunningEngine
from api_world import World
from prometheus_client.parser import text_string_to_metric_families

SERVICES = "/api/v1/services"
GROUPS = "/api/v1/service-groups"


async def test_of_two_lanes_the_one_that_is_ready_speaks(world: World) -> None:
    service = await world.create(name="many", config={"replicas": 2})
    await world.attempt(service, 0, 1, job_id=7, started_at=1.0, ready_at=2.0, port=8000, node="n1")
    await world.attempt(service, 0, 2, lane="b", job_id=8, started_at=1.0)
    jobs = (await world.get(f"{GROUPS}/many")).json()["node_jobs"]
    assert jobs[0] == job(service, 0, "7", "n1", 8000, "ready")


async def test_a_service_of_several_replicas_is_a_group(anywhere: World) -> None:
    world = anywhere
    await world.create(name="alone")
    service = await world.create(name="many", config={"replicas": 3})
    await world.attempt(service, 0, 1, closed_at=1.0, gone_at=1.0, outcome="Failed", job_id=6)
    first = await world.attempt(service, 0, 2, job_id=7, started_at=1.0, ready_at=2.0, port=8000, node="n1")
    jobs = [first, await world.attempt(service, 1, 1, job_id=8, started_at=1.0)]
    groups = (await world.get(GROUPS)).json()
    assert [group["name"] for group in groups] == ["many"]
    group = (await world.get(f"{GROUPS}/many")).json()
    assert groups == [group]
    assert group == {
        "id": service,
        "name": "many",
        "type": "replica_group",
        "recipe_name": "inference/engine",
        "num_nodes": 3,
        "replicas_per_node": 1,
        "total_replicas": 3,
        "node_jobs": [job(service, 0, "7", "n1", 8000, "ready"), job(service, 1, "8", None, None, "starting"),
                      job(service, 2, None, None, None, "pending")],
        "config": {"replicas": 3, "nodes": 1},
        "created_at": (await world.get(f"{SERVICES}/many")).json()["created_at"],
        "status": "pending",
    }  # fmt: skip
    assert (await world.get(f"{GROUPS}/{service}/status")).json() == {
        "group_id": service,
        "overall_status": "partial",
        "total_replicas": 3,
        "healthy_replicas": 1,
        "starting_replicas": 1,
        "pending_replicas": 1,
        "failed_replicas": 0,
    }
    stopped = (await world.delete(f"{GROUPS}/many")).json()
    assert stopped == {
        "success": True,
        "message": "Service group many stopped successfully",
        "group_id": service,
        "replicas_stopped": 2,
        "jobs_cancelled": ["7", "8"],
    }
    assert (await world.get(f"{SERVICES}/many/status")).json() == {"status": "cancelled"}
    again = (await world.delete(f"{GROUPS}/{service}")).json()
    assert (again["success"], again["jobs_cancelled"]) == (True, [])
    assert [group["status"] for group in (await world.get(GROUPS)).json()] == ["cancelled"]
    for token in jobs:
        await world.end(token)
    assert (await world.get(GROUPS)).json() == []
    assert (await world.get(f"{GROUPS}/{service}")).json()["status"] == "cancelled"


def job(service: str, number: int, job_id: str | None, node: str | None, port: int | None, status: str) -> Any:
    replica = {
        "id": f"{service}-{number}",
        "job_id": job_id,
        "node_index": number,
        "replica_index": number,
        "port": port,
        "gpu_id": 0,
        "status": status,
    }
    return {"job_id": job_id, "node_index": number, "node": node, "replicas": [replica]}


READY, ENDED = {"started_at": 1.0, "ready_at": 2.0}, {"closed_at": 2.0, "outcome": "Failed"}


@pytest.mark.parametrize(
    ("first", "second", "reason", "word"),
    [
        (READY, READY, "AsWanted", "healthy"),
        (READY, {}, "Starting", "partial"),
        ({}, {"started_at": 1.0}, "Starting", "starting"),
        (ENDED, {}, "BackOff", "starting"),
        (READY, ENDED, "Failed", "degraded"),
        (ENDED, ENDED, "Failed", "failed"),
    ],
)
async def test_how_a_group_is(world: World, first: Any, second: Any, reason: str, word: str) -> None:
    service = await world.create(name="many", config={"replicas": 2})
    await world.observe(service, reason=reason)
    for replica, values in enumerate((first, second)):
        await world.attempt(service, replica, **values)
    assert (await world.get(f"{GROUPS}/many/status")).json()["overall_status"] == word


async def test_what_is_no_group(world: World) -> None:
    await world.create(name="alone")
    for key in ("alone", "999", "%00"):
        for answer in (
            await world.get(f"{GROUPS}/{key}"),
            await world.get(f"{GROUPS}/{key}/status"),
            await world.delete(f"{GROUPS}/{key}"),
        ):
            assert (answer.status_code, answer.json()["detail"]) == (404, "Service group not found")
    assert (await world.get(f"{SERVICES}/alone/status")).json() == {"status": "pending"}


async def test_targets(anywhere: World) -> None:
    world = anywhere
    assert (await world.get(f"{SERVICES}/targets")).json() == []
    service = await world.create(name="mine")
    await world.endpoint(service, "n1", 8000, token="af-x-y-0-1")
    await world.endpoint(service, "fe80::1", 8001, token="af-x-y-1-1", replica=1)
    await world.endpoint(service, "n3", 8002, token="af-x-y-2-1", replica=2, state="unready")
    labels = {"service_id": service, "service": "mine", "recipe": "inference/engine", "model": "dummy"}
    assert (await world.get(f"{SERVICES}/targets")).json() == [
        {"targets": ["n1:8000"], "labels": {**labels, "replica": "0"}},
        {"targets": ["[fe80::1]:8001"], "labels": {**labels, "replica": "1"}},
    ]
    await world.delete(f"{SERVICES}/mine")
    assert (await world.get(f"{SERVICES}/targets")).json() == []


def figures(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("replica", sample.labels.get("status", ""))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics(world: World, engine: Callable[..., RunningEngine]) -> None:
    service = await world.create(name="mine", config={"replicas": 2})
    answer = await world.get(f"{SERVICES}/mine/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = figures(answer.text)
    assert (found["ai_factory_service_status", "pending"], found["ai_factory_service_status", "running"]) == (1, 0)
    assert (found["ai_factory_service_replicas_wanted", ""], found["ai_factory_service_replicas_ready", ""]) == (2, 0)
    running = engine()
    await world.endpoint(service, "127.0.0.1", running.port, token=running.token)
    await world.endpoint(service, "127.0.0.1", 1, token="af-x-y-1-1", replica=1)
    found = figures((await world.get(f"{SERVICES}/{service}/metrics")).text)
    assert found["ai_factory_service_engine_up", "1"] == 0
    assert ("ai_factory_service_engine_up", "0") in found
    missing = await world.get(f"{SERVICES}/999/metrics")
    assert (missing.status_code, missing.json()["detail"]) == (404, "Service not found")


async def test_metrics_of_engines_stand_beside_each_other(world: World) -> None:
    from api.http.exposition import exposition

    await world.create(name="mine")
    from api.http.services import Services
    from api.http.sight import Sight
    from api.web.belonging import Access
    from api.web.principal import OPERATOR

    row = await Services(world.database, Sight(Access.OWNER)).find("mine", OPERATOR)
    assert row is not None
    text = (
        '# HELP vllm:tokens Tokens.\n# TYPE vllm:tokens counter\nvllm:tokens_total{model="m"} %d\n'
        '# TYPE vllm:wait histogram\nvllm:wait_bucket{le="1"} 1\nvllm:wait_bucket{le="+Inf"} 2\n'
        "vllm:wait_sum 3\nvllm:wait_count 2\nai_factory_service_generation 99\n"
    )
    shown = exposition(row, {"x-0": text % 5, "x-1": text % 7, "x-2": "{ nonsense", "x-3": None}).decode()
    found = figures(shown)
    assert (found["vllm:tokens_total", "0"], found["vllm:tokens_total", "1"]) == (5, 7)
    assert found["vllm:wait_count", "1"] == 2
    assert [found["ai_factory_service_engine_up", str(n)] for n in range(4)] == [1, 1, 0, 0]
    assert found["ai_factory_service_generation", ""] == 1
    assert shown.count("# TYPE vllm:tokens_total counter") == 1

"""contract.md, "Every operation": GET / and GET /health."""

from __future__ import annotations

from pathlib import Path

from api_world import OWN_UID, World, new_app, settings_for

from api.contract.database import Database


async def test_root(world: World) -> None:
    assert (await world.get("/")).json() == {
        "service": "AI Factory Server Service",
        "version": "1.0.0",
        "status": "running",
        "node": "node7",
        "job_id": "42",
        "docs": "/docs",
    }


async def test_root_outside_of_slurm(live) -> None:  # type: ignore[no-untyped-def]
    import httpx

    about = httpx.get(f"{live.url}/", trust_env=False).json()
    assert (about["node"], about["job_id"]) == ("unknown", "unknown")


async def test_head_is_answered_where_get_is(world: World) -> None:
    """Load balancers ask so."""
    for path in ("/", "/health", "/openapi.json", "/openapi.extended.json", "/docs", "/docs/extended"):
        answer = await world.client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    world.uid = OWN_UID + 1
    assert [(await world.client.head(path)).status_code for path in ("/", "/health")] == [401, 200]


async def test_health_while_no_controller_ever_ran(world: World) -> None:
    answer = await world.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "healthy"
    assert answer.json()["database"] == "ok"
    assert answer.json()["controller"] == {"last_heartbeat": None, "leader": None, "epoch": None}
    assert answer.json()["stale"] == ["controller"]


async def test_health_tells_how_long_ago_the_controller_was_heard_of(world: World) -> None:
    await world.heartbeat(ago=100)
    health = (await world.get("/health")).json()
    assert 100 <= health["controller"]["last_heartbeat"] < 105
    assert (health["controller"]["leader"], health["stale"]) == (None, ["controller"])


async def test_health_does_not_count_back_when_clocks_differ(world: World) -> None:
    await world.heartbeat(ago=-50)
    health = (await world.get("/health")).json()
    assert health["controller"] == {"last_heartbeat": 0, "leader": "here", "epoch": 1}
    assert (health["status"], health["stale"]) == ("healthy", [])


async def test_health_reports_broken_recipes(world: World) -> None:
    problems = (await world.get("/health")).json()["recipe_problems"]
    assert list(problems) == ["simple/broken"]
    assert "broken.yaml:5: program" in problems["simple/broken"]


async def test_health_answers_strangers_without_saying_anything(world: World) -> None:
    world.uid = OWN_UID + 1
    assert (await world.get("/health")).json() == {"status": "healthy"}


async def test_health_answers_when_the_database_is_gone(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    (tmp_path / "state").mkdir()
    database = Database(settings.database_url)
    world = World(settings, database, new_app(settings, database))
    async with world.running():
        answer = await world.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
        assert answer.json()["database"] != "ok"
        assert answer.json()["stale"] == ["database", "controller"]
        listed = await world.get("/api/v1/services")
        assert listed.status_code == 503
        assert listed.headers["retry-after"] == "5"
    await database.close()

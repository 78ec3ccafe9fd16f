"""contract.md: GET /api/v1/recipes and /api/v1/recipes/{recipe_name}."""

from __future__ import annotations

import shutil

import pytest
from api_world import RECIPES, World, new_app, settings_for

ENGINE = {
    "name": "engine",
    "category": "inference",
    "description": "An engine for tests.",
    "version": "1.2.3",
    "path": "inference/engine",
}


async def test_list_is_an_array_that_a_broken_recipe_does_not_hide(world: World) -> None:
    answer = await world.get("/api/v1/recipes")
    assert answer.status_code == 200
    assert [recipe["path"] for recipe in answer.json()] == [
        "inference/engine", "simple/hello", "vector-db/closed", "vector-db/store",
    ]  # fmt: skip
    assert answer.json()[0] == ENGINE


@pytest.mark.parametrize("name", ["inference/engine", "inference%2Fengine", "inference%2fengine", "engine"])
async def test_one_by_path_in_both_spellings_and_by_name(world: World, name: str) -> None:
    answer = await world.get(f"/api/v1/recipes/{name}")
    assert (answer.status_code, answer.json()) == (200, ENGINE)


async def test_one_by_its_own_name_or_stem(world: World) -> None:
    for name in ("hello-world", "hello", "simple/hello"):
        assert (await world.get(f"/api/v1/recipes/{name}")).json()["path"] == "simple/hello"


@pytest.mark.parametrize("name", ["nope", "inference/nope", "a/b/c/d", "..%2F..%2Fetc%2Fpasswd", "%00", "%F0%9F%98%80"])
async def test_unknown(world: World, name: str) -> None:
    answer = await world.get(f"/api/v1/recipes/{name}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Recipe not found"})


async def test_a_broken_one_is_reported(world: World) -> None:
    answer = await world.get("/api/v1/recipes/simple/broken")
    assert answer.status_code == 409
    assert "broken.yaml:5: program" in answer.json()["detail"]


async def test_folders_that_can_not_be_read_now(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("api.contract.recipes.book.Library.book", stale)
    for answer in (await world.get("/api/v1/recipes"), await world.post("/api/v1/services", {"recipe_name": "engine"})):
        assert answer.status_code == 503
        assert "Stale file handle" in answer.json()["detail"]
    health = await world.get("/health")
    assert (health.status_code, list(health.json()["recipe_problems"])) == (200, ["*"])


async def test_changes_on_disk_are_seen_at_once(world: World) -> None:
    folder = world.settings.state_dir.parent / "recipes"
    shutil.copytree(RECIPES, folder)
    settings = settings_for(world.settings.state_dir.parent, recipes=str(folder))
    own = World(settings, world.database, new_app(settings, world.database))
    async with own.running():
        assert (await own.get("/api/v1/recipes/late")).status_code == 404
        text = (RECIPES / "inference/engine.yaml").read_text()
        (folder / "inference/late.yaml").write_text(text.replace("name: engine", "name: late"))
        assert (await own.get("/api/v1/recipes/late")).json()["path"] == "inference/late"
        (folder / "inference/late.yaml").unlink()
        assert (await own.get("/api/v1/recipes/late")).status_code == 404

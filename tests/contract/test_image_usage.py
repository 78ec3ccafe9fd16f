"""Who uses an image, on both databases: services that are wanted, and jobs that live, of older generations too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from backends import Backend

from api.contract.configuration import load
from api.contract.database import Database
from api.contract.job.parameters import Image
from api.contract.recipes.book import Library
from api.contract.settings import Settings, SlurmSettings
from controller.app import build
from controller.clock import TermClock
from controller.images.retention import ImageRetention
from controller.images.usage import Usage, key_of, usage
from controller.installation import installation_on
from controller.wanted import ServiceRow, Wanted
from controller.wrapper import cache
from controller.wrapper.cache import CacheRecord, Entry

RECIPE = """\
name: {stem}
category: try
description: A try
version: 1.0.0
program: [echo]
image: {image}
"""
ONE, TWO = (str(key_of(Image(source=f"docker://{name}"))) for name in ("one", "two"))


class Site:
    """A database, recipes and job folders."""

    def __init__(self, backend: Backend, database: Database, folder: Path) -> None:
        self.backend = backend
        self.database = database
        self.jobs = folder / "run" / "i"
        self.cache = folder / "run" / "images"
        self.recipes = folder / "recipes"
        (self.recipes / "try").mkdir(parents=True)
        for stem, image in (("one", "docker://one"), ("two", "docker://two"), ("own", "/images/x.sif")):
            self.recipe(stem, image)
        self.wanted = Wanted("i", Library((self.recipes,), {}), SlurmSettings())

    def recipe(self, stem: str, image: str) -> None:
        (self.recipes / "try" / f"{stem}.yaml").write_text(RECIPE.format(stem=stem, image=image))

    async def usage(self) -> Usage:
        return await usage(self.database, self.wanted, self.jobs)

    async def service(self, key: str, recipe: str) -> None:
        await self.backend.run(
            f"INSERT INTO services (id, name, recipe_name) VALUES ('{key}', 'name-{key}', 'try/{recipe}')"
        )

    async def attempt(self, key: str, digest: str = "older", gone: bool = False) -> str:
        token = f"af-i-{key}-0-{'2' if gone else '1'}"
        closed = "1.0, 'Failed', 1.0" if gone else "NULL, NULL, NULL"
        await self.backend.run(
            "INSERT INTO attempts (token, service_id, replica, incarnation, lane, generation, digest, failures,"
            " intent_at, message, closed_at, outcome, gone_at)"
            f" VALUES ('{token}', '{key}', 0, {token[-1]}, 'main', 1, '{digest}', 0, 1.0, '', {closed})"
        )
        return token

    def wrote(self, token: str, name: str, **content: Any) -> None:
        folder = self.jobs / token.split("-")[2] / token
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))

    def digest(self, key: str, recipe: str) -> str:
        return self.wanted.of(
            ServiceRow(
                id=key, name=f"name-{key}", recipe_name=f"try/{recipe}", config={}, replicas=None,
                desired_state="running", deletion_requested=False, generation=1, stored_spec=None,
            )
        ).digest  # fmt: skip


@pytest.fixture
async def site(backend: Backend, database: Database, tmp_path: Path) -> Site:
    return Site(backend, database, tmp_path)


async def test_services_use_their_image_until_they_are_deleted(site: Site) -> None:
    for key, recipe in (("a", "one"), ("b", "one"), ("c", "two"), ("d", "own"), ("e", "nonsense")):
        await site.service(key, recipe)
    await site.backend.run("UPDATE services SET desired_state = 'stopped' WHERE id = 'a'")
    await site.backend.run("DELETE FROM services WHERE id = 'c'")
    assert await site.usage() == Usage(services={ONE: ("name-a", "name-b")})


async def test_what_was_resolved_counts_not_what_the_recipe_says_now(site: Site) -> None:
    await site.service("a", "one")
    spec = '{"recipe":"try/one","kind":"service","engine":"generic","model":null,"image":{"source":"docker://two"},'
    spec += '"command":["echo"],"resources":{},"health":null}'
    await site.backend.run(
        "INSERT INTO service_status (service_id, observed_generation, wanted_replicas, ready_replicas, conditions,"
        f" spec, digest, updated_at) VALUES ('a', 1, 1, 0, '[]', '{spec}', 'd', 1.0)"
    )
    assert (await site.usage()).services == {TWO: ("name-a",)}


async def test_living_jobs_of_deleted_and_changed_services_say_what_they_use(site: Site) -> None:
    for key in "abcde":
        await site.service(key, "own")
    begun, waiting, none, silent = [await site.attempt(key) for key in "abcd"]
    site.wrote(begun, "state.json", step="serving", image=ONE)
    site.wrote(waiting, "params.json", image={"source": "docker://two", "definition": None})
    site.wrote(none, "state.json", step="serving", image="")
    site.wrote(silent, "state.json", step="claimed")
    site.wrote(await site.attempt("e", gone=True), "state.json", step="serving", image=ONE)
    await site.backend.run("DELETE FROM services WHERE id IN ('a', 'b')")
    assert await site.usage() == Usage(jobs={ONE: (begun,), TWO: (waiting,)}, unknown=(silent,))


async def test_a_job_of_what_is_wanted_now_needs_not_say_it(site: Site) -> None:
    await site.service("a", "one")
    token = await site.attempt("a", digest=site.digest("a", "one"))
    await site.backend.run("DELETE FROM services WHERE id = 'a'")
    assert await site.usage() == Usage(jobs={ONE: (token,)})


async def test_the_controller_clears_away_what_nobody_wants(site: Site) -> None:
    class Clock:
        def now(self) -> float:
            return 4e9  # far ahead of the folders' times

    await site.service("a", "one")
    for name in ("one", "two"):
        image = Image(source=f"docker://{name}")
        entry = Entry(site.cache, str(key_of(image)))
        site.cache.mkdir(parents=True, exist_ok=True)
        entry.partial.touch()
        cache.publish(entry, CacheRecord(image.source, None, cache.sha256(entry.partial), 0, 1.0, "here"))
    (site.cache / "making" / "forgotten").mkdir(parents=True)
    keep = ImageRetention(site.database, site.wanted, cache=site.cache, jobs=site.jobs, keep=1.0, clock=Clock())
    await keep.sweep()
    assert sorted(path.name for path in site.cache.glob("*.sif")) == [f"{ONE}.sif"]
    assert list((site.cache / "making").iterdir()) == []


async def test_the_settings_say_what_the_controller_does_about_images(
    backend: Backend, database: Database, tmp_path: Path
) -> None:
    def of(**images: str) -> Settings:
        flags = {"state_dir": str(tmp_path / "state"), "run_dir": str(tmp_path / "run"), "database_url": backend.url}
        return load(flags | {f"images.{k}": v for k, v in images.items()}, config="/dev/null", environ={"HOME": "/"})

    usual = build(await installation_on(database, of()))
    assert (usual._image_jobs, usual._images(TermClock(0.0))._keep) == (None, None)
    asked = build(await installation_on(database, of(build="job", keep_days="2")))
    assert asked._image_jobs is not None
    assert asked._images(TermClock(0.0))._keep == 2 * 86400

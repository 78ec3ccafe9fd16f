"""Images pulled from a registry by a real Apptainer: by tag, which may move, and by digest, which can't."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.contract.configuration import load
from api.contract.job.parameters import Image
from api.contract.settings import Settings
from controller.images.make import MakeError, make
from controller.images.stock import Stored

from .registry import Registry


@pytest.fixture
def settings(tmp_path: Path, apptainer: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("APPTAINER_NOHTTPS", "true")
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials, no cache of anybody's
    flags = {"run_dir": str(tmp_path / "run"), "apptainer.command": apptainer}
    return load(flags, config="/dev/null", environ={"HOME": str(tmp_path)})


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


async def pull(settings: Settings, reference: str, *, refresh: bool = False) -> Stored:
    image, _ = await make(settings, Image(source=reference), in_job=False, refresh=refresh, tell=lambda _: None)
    return image


def text(settings: Settings, image: Stored) -> str:
    """Read the one file that is in the image, without running anything in it."""
    listed = subprocess.run([settings.apptainer.command, "sif", "list", image.path], capture_output=True, check=True)
    (number,) = [line.split(b"|")[0].strip() for line in listed.stdout.splitlines() if b"Squashfs" in line]
    squashed = Path(image.path).with_suffix(".squashfs")
    with squashed.open("wb") as file:
        subprocess.run([settings.apptainer.command, "sif", "dump", number, image.path], stdout=file, check=True)
    return subprocess.run(["unsquashfs", "-cat", squashed, "text"], capture_output=True, text=True, check=True).stdout


async def test_a_tag_is_what_it_was_until_it_is_made_anew(settings: Settings, registry: Registry) -> None:
    digest = registry.push("1", "first")
    by_tag = await pull(settings, f"{registry.name}:1")
    by_digest = await pull(settings, f"{registry.name}@{digest}")
    assert by_tag.key != by_digest.key
    registry.push("1", "second")
    assert await pull(settings, f"{registry.name}:1") == by_tag
    anew = await pull(settings, f"{registry.name}:1", refresh=True)
    assert (anew.key, anew.sha256 == by_tag.sha256) == (by_tag.key, False)
    pinned = await pull(settings, f"{registry.name}@{digest}", refresh=True)
    assert [text(settings, image) for image in (anew, pinned)] == ["second", "first"]


async def test_a_digest_that_the_registry_does_not_have(settings: Settings, registry: Registry) -> None:
    registry.push("1", "first")
    with pytest.raises(MakeError, match="apptainer pull ended with 255"):
        await pull(settings, f"{registry.name}@sha256:{'0' * 64}")
    assert list((settings.run_dir / "images").glob("*.sif")) == []

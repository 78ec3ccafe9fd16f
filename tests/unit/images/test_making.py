"""Images made on this host, by the jobs' own script and wrapper and a real Apptainer, and verified by it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from api.contract.configuration import load
from api.contract.job.parameters import Image
from api.contract.settings import Settings
from controller.images.jobs import ResourcesError, resources
from controller.images.make import MakeError, make
from controller.images.stock import stock
from controller.images.verify import ImageHealth, verify

THIN = 'Bootstrap: scratch\n\n%setup\n    mkdir -p "$APPTAINER_ROOTFS/usr"\n'


@pytest.fixture
def settings(tmp_path: Path, apptainer: str) -> Settings:
    flags = {"run_dir": str(tmp_path / "run"), "apptainer.command": apptainer}
    return load(flags, config="/dev/null", environ={"HOME": str(tmp_path)})


def left(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.run_dir / "images").rglob("*") if path.suffix != ".lock")


async def test_it_is_made_once_and_shown(settings: Settings) -> None:
    said: list[str] = []
    image, made = await make(settings, Image(definition=THIN), in_job=False, refresh=False, tell=said.append)
    assert made
    assert "Build complete" in "".join(said)
    assert (image.definition, image.source) == (THIN, None)
    assert stock(settings.run_dir / "images") == (image,)
    assert left(settings) == [
        f"{image.key}.json",
        f"{image.key}.seen",
        f"{image.key}.sif",
        f"{image.key}.used",
        "making",
    ]

    said.clear()
    assert await make(settings, Image(definition=THIN), in_job=False, refresh=False, tell=said.append) == (image, False)
    assert said == []
    anew, made = await make(settings, Image(definition=THIN), in_job=False, refresh=True, tell=said.append)
    assert (made, anew.key) == (True, image.key)
    assert anew.made_at > image.made_at
    assert left(settings) == [
        f"{image.key}.json",
        f"{image.key}.seen",
        f"{image.key}.sif",
        f"{image.key}.used",
        "making",
    ]


async def test_a_failure_is_told_and_leaves_nothing(settings: Settings) -> None:
    said: list[str] = []
    broken = Image(definition=THIN + "    exit 7\n")
    with pytest.raises(MakeError, match=r"apptainer build ended with 255\. See its log above"):
        await make(settings, broken, in_job=False, refresh=False, tell=said.append)
    assert "exit status 7" in "".join(said)
    assert left(settings) == ["making"]


async def test_interrupted_it_ends_the_builder_and_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    slow = Image(definition=THIN + f"    echo $$ >{tmp_path}/pid; exec sleep 600\n")
    making = asyncio.create_task(make(settings, slow, in_job=False, refresh=False, tell=lambda _: None))
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline
        assert not making.done(), making.exception()
        await asyncio.sleep(0.02)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert left(settings) == ["making"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_what_is_damaged_is_found(settings: Settings, apptainer: str) -> None:
    image, _ = await make(settings, Image(definition=THIN), in_job=False, refresh=False, tell=lambda _: None)
    assert verify(image, apptainer).health is ImageHealth.OK
    absent = verify(image, "no-apptainer")
    assert (absent.health, absent.message) == (
        ImageHealth.OK,
        "not read by Apptainer (no-apptainer on this host: No such file or directory)",
    )

    path = Path(image.path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit
    flipped = verify(image, apptainer)
    assert flipped.health is ImageHealth.DAMAGED
    assert f"but {image.sha256} was written down" in flipped.message

    path.with_suffix(".json").unlink()
    path.write_bytes(whole)
    (unrecorded,) = stock(settings.run_dir / "images")
    assert verify(unrecorded, apptainer).health is ImageHealth.UNRECORDED
    path.write_bytes(whole[:1000])
    cut = verify(unrecorded, apptainer)
    assert cut.health is ImageHealth.DAMAGED
    assert "Apptainer can't read it: Error for command" in cut.message


def test_what_its_job_asks_for(tmp_path: Path) -> None:
    def of(**flags: str) -> Settings:
        given = {name.replace("__", "."): value for name, value in flags.items()}
        return load(given, config="/dev/null", environ={"HOME": str(tmp_path)})

    own = resources(of(slurm__partition="gpu", slurm__gres="gpu:1", slurm__account="a", images__partition="cpu"))
    assert (own.partition, own.account, own.gres, own.gpu) == ("cpu", "a", None, 0)
    assert (own.cpu, own.memory_mb, own.time_limit) == (4, 16384, 120)
    assert resources(of(slurm__partition="gpu")).partition == "gpu"
    for bad in ({"images__memory": "much"}, {"images__partition": "a b"}, {"images__extra_options": "--array=1"}):
        with pytest.raises(ResourcesError, match="A setting of `images` has a bad value"):
            resources(of(**bad))

"""The jobs that make images for those of services: one for each that is missing, and never a reason to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from api.contract.configuration import load
from api.contract.job.parameters import Image, Parameters
from api.contract.settings import Settings
from controller.images.jobs import ImageJobs
from controller.slurm.runner import Completed, NotStartedError
from controller.wrapper import cache, parameters
from controller.wrapper.cache import Entry

IMAGE = Image(source="docker://a/b")
KEY = cache.key(IMAGE)


class Cluster:
    """Slurm's commands, played: what is submitted is listed from then on."""

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[int, str]] = {}
        self.submitted: list[tuple[str, ...]] = []
        self.refusal = ""
        self.silent = False

    async def read(self, argv: tuple[str, ...]) -> Completed:
        await asyncio.sleep(0)
        if self.silent:
            raise NotStartedError(argv[0], FileNotFoundError(2, "No such file"))
        mark = "\x1f" + argv[-1].split("\x1f")[1] + "\x1f"
        rows = [("JOBID", "STATE", "NODELIST", "START_TIME", "END_TIME", "NAME", "REASON", "TIME_LIMIT")]
        rows += [
            (str(n), state, "n/a", "N/A", "N/A", name, "None", "1:00:00") for name, (n, state) in self.jobs.items()
        ]
        return Completed(argv=argv, exit_code=0, stderr="", stdout="".join(f"{mark.join((*r, ''))}\n" for r in rows))

    async def change(self, argv: tuple[str, ...]) -> Completed:
        await asyncio.sleep(0)
        self.submitted.append(argv)
        if self.refusal:
            return Completed(argv=argv, exit_code=1, stdout="", stderr=self.refusal)
        name = next(word.partition("=")[2] for word in argv if word.startswith("--job-name="))
        self.jobs[name] = (100 + len(self.jobs), "PENDING")
        return Completed(argv=argv, exit_code=0, stdout=f"{self.jobs[name][0]}\n", stderr="")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    flags = {"run_dir": str(tmp_path / "run"), "slurm.gres": "gpu:1", "images.partition": "cpu", "images.cpu": "3"}
    return load(flags, config="/dev/null", environ={"HOME": str(tmp_path)})


@pytest.fixture
def jobs(settings: Settings, cluster: Cluster) -> ImageJobs:
    return ImageJobs(settings, cluster)


async def test_a_missing_image_gets_a_job_without_gpus(jobs: ImageJobs, cluster: Cluster, settings: Settings) -> None:
    assert await jobs.awaited(IMAGE) == 100
    (sent,) = cluster.submitted
    assert {"--partition=cpu", "--cpus-per-task=3", "--mem=16384M", "--dependency=singleton"} <= set(sent)
    assert not any("gres" in word for word in sent)
    (folder,) = (settings.run_dir / "images" / "making").iterdir()
    assert folder.name.startswith(f"af-image-{KEY}-")
    told = Parameters(
        token=folder.name, image=IMAGE, image_cache=str(settings.run_dir / "images"), apptainer="apptainer"
    )
    assert parameters.read(folder / "params.json") == told


async def test_many_that_need_it_wait_for_one_job(jobs: ImageJobs, cluster: Cluster) -> None:
    other = Image(definition="Bootstrap: scratch")
    assert await asyncio.gather(*(jobs.awaited(i) for i in (IMAGE, other, IMAGE, other))) == [100, 101, 100, 101]
    assert len(cluster.submitted) == 2


async def test_one_that_has_ended_is_not_waited_for(jobs: ImageJobs, cluster: Cluster) -> None:
    cluster.jobs[f"af-image-{KEY}-old"] = (7, "FAILED")
    assert await jobs.awaited(IMAGE) == 101
    cluster.jobs[f"af-image-{KEY}-older"] = (5, "RUNNING")
    assert await jobs.awaited(IMAGE) == 5


@pytest.mark.parametrize("image", [None, Image(source="/images/x.sif"), IMAGE])
async def test_there_is_nothing_to_wait_for(
    jobs: ImageJobs, cluster: Cluster, settings: Settings, image: Image | None
) -> None:
    entry = Entry(settings.run_dir / "images", KEY)
    entry.cache.mkdir(parents=True)
    entry.image.touch()
    assert await jobs.awaited(image) is None
    assert cluster.submitted == []


def _silent(cluster: Cluster, _: Settings) -> None:
    cluster.silent = True


def _refused(cluster: Cluster, _: Settings) -> None:
    cluster.refusal = "sbatch: error: Batch job submission failed: Invalid partition name specified"


def _full(_: Cluster, settings: Settings) -> None:
    settings.run_dir.write_text("not a folder")


@pytest.mark.parametrize("trouble", [_silent, _refused, _full])
async def test_what_can_not_be_made_beforehand_stops_nobody(
    jobs: ImageJobs, cluster: Cluster, settings: Settings, trouble: Callable[[Cluster, Settings], None],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    trouble(cluster, settings)
    assert await jobs.awaited(IMAGE) is None
    assert [record.message for record in caplog.records] == ["no job can make the image beforehand"]
    assert list(settings.run_dir.glob("images/making/*")) == []

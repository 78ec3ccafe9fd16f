"""Images, with a program in Apptainer's place that writes down how it was called."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .jobs import Job, alive, until

APPTAINER = """\
#!/bin/sh
# build FILE DEFINITION | pull --disable-cache FILE URI | -q exec … IMAGE COMMAND…
echo "$@" >> "{calls}"
case "$1" in
  build) file=$2 ;;
  pull) file=$3 ;;
  *) exit 0 ;;
esac
printf half > "$file"
{body}
printf whole > "$file"
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def make(body: str = "") -> dict[str, Any]:
        program = tmp_path / "apptainer"
        program.write_text(APPTAINER.format(calls=tmp_path / "calls", body=body))
        program.chmod(0o755)
        return {"command": ["serve"], "apptainer": str(program), "image_cache": str(tmp_path / "run/images")}

    return make


def calls(tmp_path: Path, word: str) -> list[str]:
    return [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith(word)]


def images(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "run/images").glob("*.sif"))


def source(value: str) -> dict[str, Any]:
    return {"image": {"source": value, "definition": None}}


def test_a_definition_is_built_and_run(job: Job, fake: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    definition = {"image": {"source": None, "definition": "Bootstrap: scratch\n"}}
    job.write(**fake(), **definition)
    assert job.run() == 0, job.stderr
    [image] = images(tmp_path)
    assert image.read_text() == "whole"
    assert len(image.stem) == 16
    [build] = calls(tmp_path, "build")
    assert [build.split()[1], build.split()[2].rpartition("/")[2]] == [
        f"{image.parent}/.{image.stem}.partial",
        "image.def",
    ]
    assert f"{image} serve" in calls(tmp_path, "-q exec")[0]


def test_an_image_from_a_registry_is_pulled_once(
    make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    for job in (make_job(), make_job()):
        job.write(**fake(), **source("docker://vllm/vllm-openai:latest"))
        assert job.run() == 0, job.stderr
    [pull] = calls(tmp_path, "pull")
    assert pull.endswith(" docker://vllm/vllm-openai:latest")
    assert len(calls(tmp_path, "-q exec")) == 2


def test_of_many_jobs_one_builds_and_nobody_sees_half_an_image(
    make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    parameters = fake(f'while [ ! -e "{tmp_path}/go" ]; do sleep 0.02; done')
    jobs = [make_job() for _ in range(4)]
    for job in jobs:
        job.write(**parameters, **source("oras://site/image:1"))
        job.start()
    for job in jobs:
        job.until_step("image")
    until(lambda: list((tmp_path / "run/images").glob(".*.partial")))
    assert images(tmp_path) == []
    (tmp_path / "go").touch()
    assert [job.wait() for job in jobs] == [0, 0, 0, 0]
    assert len(calls(tmp_path, "pull")) == 1
    assert [image.read_text() for image in images(tmp_path)] == ["whole"]
    assert list((tmp_path / "run/images").glob(".*")) == []


def test_what_a_killed_builder_left_is_removed_by_the_next(
    make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    killed, following = make_job(), make_job()
    killed.write(**fake("echo $$; exec sleep 60"), **source("docker://x"))
    killed.start()
    builder = int(until(lambda: killed.stdout))
    killed.send(signal.SIGKILL)
    killed.wait()
    until(lambda: not alive(builder))
    assert [path.read_text() for path in (tmp_path / "run/images").glob(".*.partial")] == ["half"]
    following.write(**fake(), **source("docker://x"))
    assert following.run() == 0, following.stderr
    assert [image.read_text() for image in images(tmp_path)] == ["whole"]
    assert list((tmp_path / "run/images").glob(".*")) == []


def test_a_failed_build_says_why_and_leaves_nothing(
    job: Job, fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    job.write(
        **fake("echo 'FATAL:   While making image: no space left on device' >&2; exit 255"), **source("docker://x")
    )
    assert job.run() == 1
    assert job.exit["reason"] == "ImageFailed"
    assert "no space left on device" in job.exit["message"]
    assert images(tmp_path) == []
    assert list((tmp_path / "run/images").glob(".*")) == []


def test_a_missing_image_is_named(job: Job, fake: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    job.write(**fake(), **source(f"{tmp_path}/absent.sif"))
    assert job.run() == 1
    assert job.exit["reason"] == "ImageFailed"
    assert f"{tmp_path}/absent.sif" in job.exit["message"]
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("image", [None, {"source": "docker://x", "definition": None}])
def test_no_apptainer_is_a_failure_of_the_image(job: Job, tmp_path: Path, image: dict[str, Any] | None) -> None:
    existing = tmp_path / "x.sif"
    existing.touch()
    job.write(
        command=["x"],
        apptainer="no-apptainer",
        image=image or {"source": str(existing), "definition": None},
        image_cache=str(tmp_path),
    )
    assert job.run() == 1
    assert job.exit["reason"] == "ImageFailed"
    assert "no-apptainer not found" in job.exit["message"]


def test_a_cache_that_cannot_be_made(job: Job, fake: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    job.write(**fake(), **source("docker://x"))
    assert job.run() == 1
    assert job.exit["reason"] == "ImageFailed"


def test_nothing_secret_and_no_value_stands_in_the_command_line(
    job: Job, fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    image = tmp_path / "x.sif"
    image.touch()
    job.write(
        **{**fake(), **source(str(image))},
        environment={"VALUE": "v4lue"},
        secret="5ecret",
        secret_variable="VLLM_API_KEY",
        binds=["/data:/data:ro"],
        files={"a": "b"},
        nv=True,
    )
    assert job.run() == 0, job.stderr
    [line] = calls(tmp_path, "-q exec")
    assert "v4lue" not in line
    assert "5ecret" not in line
    for part in ("--containall", "--no-eval", "--nv", "--pwd /tmp", "--bind /data:/data:ro", "--workdir "):
        assert part in line
    assert f"--mount type=bind,source={job.folder}/files,destination=/recipe,ro" in line
    assert line.count(str(job.folder)) == 1, "the job folder itself is not bound"

"""Images, with a program in Apptainer's place that writes down how it was called."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.wrapper import cache
from tests.another_user import give_away

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
    assert sorted(job.stderr.count("waiting\n") for job in jobs) == [0, 1, 1, 1]


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


def record(image: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(image.with_suffix(".json").read_text())
    return content


def test_what_was_made_is_written_down_beside_it(job: Job, fake: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    job.write(**fake(), **source("docker://x"))
    assert job.run() == 0, job.stderr
    [image] = images(tmp_path)
    told = record(image)
    assert (told["source"], told["definition"], told["size"]) == ("docker://x", None, len("whole"))
    assert told["sha256"] == hashlib.sha256(b"whole").hexdigest()
    assert image.with_suffix(".used").exists()
    assert job.state["image"] == image.stem


def test_a_job_without_a_command_only_makes_the_image(
    job: Job, fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    job.write(**{**fake(), **source("docker://x"), "command": []})
    assert job.run() == 0, job.stderr
    [image] = images(tmp_path)
    assert (job.exit["reason"], job.exit["message"]) == ("ImageReady", str(image))
    assert calls(tmp_path, "-q exec") == []


def test_made_anew_it_takes_the_place_of_the_old_one_at_once(
    make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    first, again = make_job(), make_job()
    first.write(**fake(), **source("docker://x"))
    assert first.run() == 0, first.stderr
    [image] = images(tmp_path)
    before = image.stat().st_ino
    again.write(**{**fake("sleep 0"), **source("docker://x"), "refresh": True, "command": []})
    assert again.run() == 0, again.stderr
    assert images(tmp_path) == [image]
    assert image.stat().st_ino != before
    assert len(calls(tmp_path, "pull")) == 2
    assert list(image.parent.glob(".*")) == [], "nobody used the old one"
    failing = make_job()
    failing.write(**{**fake("exit 7"), **source("docker://x"), "refresh": True, "command": []})
    assert failing.run() == 1
    assert (image.read_text(), record(image)["size"]) == ("whole", 5), "what could not be made anew stays as it was"


@pytest.fixture
def made(make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], tmp_path: Path) -> cache.Entry:
    """An image that a job has made, in the cache."""
    job = make_job()
    job.write(**{**fake(), **source("docker://x"), "command": []})
    assert job.run() == 0, job.stderr
    [image] = images(tmp_path)
    return cache.Entry(image.parent, image.stem)


def run_in(job: Job, fake: Callable[..., dict[str, Any]]) -> str:
    """Run a job in the image; return why it could not, nothing if it could."""
    job.write(**fake(), **source("docker://x"))
    if job.run() == 0:
        return ""
    assert job.exit["reason"] == "ImageFailed"
    return str(job.exit["message"])


def test_the_cache_is_for_nobody_else(made: cache.Entry) -> None:
    assert {path.name: path.stat().st_mode & 0o777 for path in (made.cache, *made.cache.iterdir())} == {
        "images": 0o700,
        **{f"{made.key}.{suffix}": 0o600 for suffix in ("sif", "json", "seen", "used", "lock")},
    }


def change_content(entry: cache.Entry) -> None:
    """Write something of the same length, and hide it."""
    before = entry.image.stat()
    entry.image.write_text("other")
    os.utime(entry.image, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap_with_another(entry: cache.Entry) -> None:
    """Put another image of ours in its place, with its record."""
    told = json.loads(entry.record.read_text())
    entry.record.write_text(json.dumps({**told, "source": "docker://y"}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (change_content, "its SHA-256 is "),
        (lambda entry: entry.image.write_text("longer than before"), "its SHA-256 is "),
        (swap_with_another, ".json is the record of another image"),
        (lambda entry: entry.image.chmod(0o660), ".sif: others may write to it. Run: ai-factory secure"),
        (lambda entry: entry.record.chmod(0o660), ".json: others may write to it"),
        (lambda entry: entry.cache.chmod(0o770), "images: others may write to it"),
        (lambda entry: give_away(entry.image), ".sif: it belongs to user 54321"),
        (lambda entry: give_away(entry.record), ".json: it belongs to user 54321"),
    ],
)
def test_an_image_that_was_changed_is_not_run(
    job: Job,
    fake: Callable[..., dict[str, Any]],
    tmp_path: Path,
    made: cache.Entry,
    change: Callable[[cache.Entry], Any],
    why: str,
) -> None:
    change(made)
    assert why in run_in(job, fake)
    assert calls(tmp_path, "-q exec") == []


def test_an_image_is_read_in_full_once_and_when_anything_changed(
    make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], made: cache.Entry
) -> None:
    seen = made.seen.read_text()
    told = json.loads(made.record.read_text())
    assert run_in(make_job(), fake) == ""
    made.image.chmod(0o400)
    assert run_in(make_job(), fake) == ""
    assert made.seen.read_text() != seen, "it was read again, and that is noted"
    made.record.write_text(json.dumps({**told, "sha256": "0" * 64}))
    assert "was written down when it was made" in run_in(make_job(), fake)
    made.seen.write_text(made.seen.read_text().replace(told["sha256"], "0" * 64))
    assert run_in(make_job(), fake) == "", "what was read in full is not read again"
    made.seen.chmod(0o666)
    assert "was written down when it was made" in run_in(make_job(), fake), "others may have written that"


def test_an_image_of_an_older_release_is_run_and_then_known(
    make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], made: cache.Entry
) -> None:
    made.seen.unlink()
    assert run_in(make_job(), fake) == ""
    assert made.seen.exists()
    made.seen.unlink()
    made.record.unlink()
    assert run_in(make_job(), fake) == "", "nothing speaks against it"


def engine(fake: Callable[..., dict[str, Any]], tmp_path: Path) -> dict[str, Any]:
    """A program in Apptainer's place that runs until it is told to end."""
    parameters = fake()
    program = Path(parameters["apptainer"])
    text = program.read_text()
    program.write_text(
        text.replace("*) exit 0 ;;", f'*) echo up; until [ -e "{tmp_path}/end" ]; do sleep 0.02; done; exit 0 ;;')
    )
    return parameters


def test_what_a_job_uses_is_not_removed_and_outlives_its_successor(
    make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    parameters = engine(fake, tmp_path)
    running, anew = make_job(), make_job()
    running.write(**parameters, **source("docker://x"))
    running.start()
    until(lambda: "up" in running.stdout)
    [image] = images(tmp_path)
    entry = cache.Entry(image.parent, image.stem)
    assert cache.discard(entry) is False
    assert images(tmp_path) == [image]

    anew.write(**{**parameters, **source("docker://x"), "refresh": True, "command": []})
    assert anew.run() == 0, anew.stderr
    [old] = image.parent.glob(".*.old")
    cache.clear_aside(entry)
    assert old.exists(), "the job that runs still uses it"
    (tmp_path / "end").touch()
    assert running.wait() == 0
    cache.clear_aside(entry)
    assert not old.exists()
    assert cache.discard(entry) is True
    assert [path.name for path in image.parent.iterdir()] == [f"{image.stem}.lock"]


def test_a_job_that_meets_a_removal_makes_the_image_anew(
    make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    first, late = make_job(), make_job()
    for job in (first, late):
        job.write(**fake(), **source("docker://x"))
    assert first.run() == 0, first.stderr
    [image] = images(tmp_path)
    with image.open("r+b") as file:  # as a remover does, which is slow
        fcntl.lockf(file, fcntl.LOCK_EX)
        waiting = Path("/proc", str(late.start().pid), "fd")
        until(lambda: str(image) in [os.path.realpath(opened) for opened in waiting.iterdir()])
        image.unlink()
    assert late.wait() == 0, late.stderr
    assert len(calls(tmp_path, "pull")) == 2
    assert [path.read_text() for path in images(tmp_path)] == ["whole"]


def test_a_job_that_meets_a_replacement_holds_the_new_image(
    make_job: Callable[[], Job], fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    first, late = make_job(), make_job()
    first.write(**{**fake(), **source("docker://x"), "command": []})
    assert first.run() == 0, first.stderr
    [image] = images(tmp_path)
    late.write(**engine(fake, tmp_path), **source("docker://x"))
    with image.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        waiting = Path("/proc", str(late.start().pid), "fd")
        until(lambda: str(image) in [os.path.realpath(opened) for opened in waiting.iterdir()])
        entry = cache.Entry(image.parent, image.stem)
        told = cache.read_record(entry)
        assert told is not None
        entry.partial.write_text("new")
        entry.partial.chmod(0o600)
        cache.publish(entry, replace(told, sha256=hashlib.sha256(b"new").hexdigest(), size=3))
    until(lambda: "up" in late.stdout)
    assert cache.discard(cache.Entry(image.parent, image.stem)) is False
    (tmp_path / "end").touch()
    assert late.wait() == 0, late.stderr


def test_a_removal_that_died_half_way_is_finished(
    job: Job, fake: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    job.write(**fake(), **source("docker://x"))
    assert job.run() == 0, job.stderr
    [image] = images(tmp_path)
    entry = cache.Entry(image.parent, image.stem)
    image.rename(entry.aside())
    job_again = Job(tmp_path / "again", job.wrapper, tmp_path / "again-tmp")
    job_again.write(**fake(), **source("docker://x"))
    assert job_again.run() == 0, job_again.stderr
    assert [path.read_text() for path in images(tmp_path)] == ["whole"]
    cache.clear_aside(entry)
    assert list(image.parent.glob(".*")) == []


def test_where_there_are_no_locks_jobs_run_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    entry = cache.Entry(tmp_path, "0" * 16)
    entry.image.write_text("whole")
    monkeypatch.setattr(fcntl, "lockf", none)
    assert cache.hold(entry.image, lambda: None) is not None
    with pytest.raises(OSError, match="No locks"):
        cache.discard(entry)
    assert entry.image.exists()

"""contract.md: GET /api/v1/services/{id}/logs."""

from __future__ import annotations

import os
from pathlib import Path

from api_world import World

from api.http.logs.ends import MOST_OF_A_FILE, read_logs


async def logs_of(world: World, service: str) -> str:
    answer = await world.get(f"/api/v1/services/{service}/logs")
    assert answer.status_code == 200
    assert set(answer.json()) == {"logs"}
    return str(answer.json()["logs"])


async def test_both_files(world: World) -> None:
    service = await world.create()
    folder = world.job_folder(await world.attempt(service))
    (folder / "stdout.log").write_text("out 1\nout 2")
    (folder / "stderr.log").write_text("err é\n")
    assert await logs_of(world, service) == (
        f"=== SLURM STDOUT ({folder}/stdout.log) ===\nout 1\nout 2\n\n"
        f"=== SLURM STDERR ({folder}/stderr.log) ===\nerr é\n"
    )


async def test_a_file_that_was_rotated(world: World) -> None:
    folder = world.job_folder(await world.attempt(await world.create(name="mine")))
    (folder / "stdout.log").write_text("c\nd")
    (folder / "stdout.log.1").write_text("a\nb\n")
    for tail, shown in (("", "a\nb\nc\nd"), ("?tail=3", "b\nc\nd"), ("?tail=2", "c\nd"), ("?tail=0", "")):
        text = (await world.get(f"/api/v1/services/mine/logs{tail}")).json()["logs"]
        assert text.startswith(f"=== SLURM STDOUT ({folder}/stdout.log) ===\n{shown}\n\n==="), tail
    (folder / "stdout.log.1").write_text("x" * MOST_OF_A_FILE)
    text = await logs_of(world, "mine")
    assert "[3 earlier bytes are left out]\nxxx" in text
    assert "xc\nd\n" in text


async def test_files_that_are_not_there_yet(world: World) -> None:
    service = await world.create()
    folder = world.job_folder(await world.attempt(service))
    (folder / "stdout.log").write_text("out")
    assert await logs_of(world, service) == (
        f"=== SLURM STDOUT ({folder}/stdout.log) ===\nout\n\n"
        f"=== SLURM STDERR ({folder}/stderr.log) ===\nFile not found: {folder}/stderr.log"
    )


async def test_unknown_service(world: World) -> None:
    assert "999 not found" in await logs_of(world, "999")


async def test_no_job_yet_says_why(world: World) -> None:
    service = await world.create()
    await world.observe(service, reason="BackOff", message="Slurm takes no jobs now.")
    assert await logs_of(world, service) == "No logs yet: no job was submitted. Slurm takes no jobs now."


async def test_the_newest_attempt_of_each_replica_in_their_order(world: World) -> None:
    service = await world.create(config={"replicas": 2})
    for replica, incarnation in ((1, 1), (0, 1), (0, 2), (1, 2)):
        closed = {"closed_at": 1.0, "outcome": "Failed"} if incarnation == 1 else {}
        folder = world.job_folder(await world.attempt(service, replica, incarnation, **closed))
        (folder / "stdout.log").write_text(f"replica {replica} try {incarnation}")
    text = await logs_of(world, service)
    assert text.count("=== SLURM STDOUT") == text.count("=== SLURM STDERR") == 2
    assert text.index("replica 0 try 2") < text.index("replica 1 try 2")
    assert "try 1" not in text


async def test_of_a_deleted_service_they_stay(world: World) -> None:
    service = await world.create()
    folder = world.job_folder(await world.attempt(service, closed_at=1.0, outcome="Stopped"))
    (folder / "stdout.log").write_text("last words")
    await world.delete(f"/api/v1/services/{service}")
    assert "last words" in await logs_of(world, service)


async def test_only_the_end_of_a_long_file(world: World) -> None:
    service = await world.create()
    folder = world.job_folder(await world.attempt(service))
    with (folder / "stdout.log").open("wb") as file:
        file.write(b"first line\n")
        file.seek(5 * 1024**3)
        file.write(b"x" * MOST_OF_A_FILE + b"\nlast line")
    text = await logs_of(world, service)
    assert "first line" not in text
    assert "last line\n\n=== SLURM STDERR" in text
    assert "earlier bytes are left out]" in text
    assert len(text) < MOST_OF_A_FILE + 1000


async def test_bytes_that_are_not_utf8(world: World) -> None:
    service = await world.create()
    folder = world.job_folder(await world.attempt(service))
    (folder / "stdout.log").write_bytes(b"ok \xff\xfe\x00 ok")
    assert "ok \ufffd\ufffd\x00 ok" in await logs_of(world, service)


async def test_links_out_of_run_dir_are_not_followed(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("very secret")
    service = await world.create()
    folder = world.job_folder(await world.attempt(service))
    (folder / "stdout.log").symlink_to(tmp_path / "secret")
    (folder / "stderr.log").symlink_to("stderr.log")
    text = await logs_of(world, service)
    assert "very secret" not in text
    assert "leads out of" in text


async def test_a_linked_folder_is_not_followed_either(world: World, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "stdout.log").write_text("very secret")
    service = await world.create()
    folder = world.job_folder(await world.attempt(service))
    folder.rmdir()
    folder.symlink_to(elsewhere)
    assert "very secret" not in await logs_of(world, service)


async def test_a_run_dir_behind_a_link_works(world: World, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(world.settings.run_dir)
    token = "af-inst22-abc-0-1"
    (world.job_folder(token) / "stdout.log").write_text("hello")
    assert "hello" in read_logs(link, [token])


async def test_what_is_no_regular_file_is_not_read(world: World) -> None:
    service = await world.create()
    folder = world.job_folder(await world.attempt(service))
    os.mkfifo(folder / "stdout.log")
    (folder / "stderr.log").mkdir()
    assert (await logs_of(world, service)).count("is not a regular file") == 2


def test_a_token_that_is_none_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_text("very secret")
    for token in ("..", "", "af-../../x-0-1", "af-a-../..-0-1"):
        assert "very secret" not in read_logs(tmp_path / "run", [token])


def test_many_replicas_share_what_is_shown(tmp_path: Path) -> None:
    tokens = [f"af-inst22-abc-{number}-1" for number in range(100)]
    for token in tokens:
        folder = tmp_path / "inst22" / "abc" / token
        folder.mkdir(parents=True)
        (folder / "stdout.log").write_bytes(b"x" * 200_000)
    assert len(read_logs(tmp_path, tokens)) < 5 * 1024 * 1024

"""Followed logs: every line, once, in its order; over ended attempts, rotated files and broken connections."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from api_world import Listener, World, new_app
from sqlalchemy import update

import api.http.logs.log_file
from api.contract.tables import AttemptRow
from api.http.logs.tail import Tail
from tests.descriptors import none_left, opened_by

SERVICES = "/api/v1/services"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.logs.tails.TICK_SECONDS", 0.02)
    monkeypatch.setattr("api.http.logs.following.LOOK_SECONDS", 0.05)


async def started(world: World, **rest: Any) -> tuple[str, Path]:
    service = await world.create(name="mine")
    return service, world.job_folder(await world.attempt(service, **rest))


async def ended(world: World, service: str, attempt: int = 1) -> None:
    async with world.database.write() as connection:
        await connection.execute(
            update(AttemptRow)
            .where(AttemptRow.service_id == service, AttemptRow.incarnation == attempt)
            .values(closed_at=time.time(), gone_at=time.time(), outcome="Failed")
        )


def append(file: Path, text: str) -> None:
    with file.open("a") as stream:
        stream.write(text)


async def collect(listener: Listener, length: int, stream: str = "stdout") -> str:
    """Gather what is told of a stream until it is so long."""
    text = ""
    while len(text.encode()) < length:
        event = await listener.next()
        assert event.name == "log", event
        if event.data["stream"] == stream:
            text += event.data["text"]
    return text


async def test_lines_come_as_they_are_written(world: World) -> None:
    _, folder = await started(world)
    append(folder / "stdout.log", "one\ntwo\nthr")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        assert listener.headers["content-type"].startswith("text/event-stream")
        event = await listener.next()
        assert event.data == {"replica": 0, "attempt": 1, "stream": "stdout", "text": "one\ntwo\n"}
        append(folder / "stderr.log", "é\r\n")
        assert (await listener.next()).data == {"replica": 0, "attempt": 1, "stream": "stderr", "text": "é\r\n"}
        append(folder / "stdout.log", "ee\n")
        assert (await listener.next()).data["text"] == "three\n"
        assert listener.waiting == 0


async def test_the_end_of_a_job_and_of_its_service(world: World) -> None:
    service, folder = await started(world)
    append(folder / "stdout.log", "first\nunfinished")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        assert (await listener.next()).data["text"] == "first\n"
        await ended(world, service)
        assert (await listener.next()).data["stream"] == "stderr"
        assert (await listener.next()).data["text"] == "unfinished"
        last = await listener.next()
        assert (last.name, last.data["outcome"]) == ("ended", "Failed")
        await world.observe(service, reason="Failed")
        assert (await listener.next()).name == "over"
        async with asyncio.timeout(60):
            await listener.ended.wait()


async def test_the_next_attempt_is_followed_from_its_beginning(world: World) -> None:
    service, folder = await started(world)
    append(folder / "stdout.log", "old\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.next()
        await ended(world, service)
        second = world.job_folder(await world.attempt(service, 0, 2))
        append(second / "stdout.log", "new\n")
        event = await listener.next()
        while event.name != "log":
            event = await listener.next()
        assert (event.data["attempt"], event.data["text"]) == (2, "new\n")
        last = listener.last_id
    third = world.job_folder(await world.attempt(service, 0, 3, lane="b"))
    append(third / "stdout.log", "newest\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
        while (event := await listener.next()).name != "log":
            pass
        assert (event.data["attempt"], event.data["text"]) == (3, "newest\n")


async def test_an_ended_attempt(world: World) -> None:
    service, folder = await started(world)
    append(folder / "stdout.log", "why it failed\n")
    await ended(world, service)
    await world.attempt(service, 0, 2)
    async with world.listen(f"{SERVICES}/mine/logs?follow=true&attempt=1") as listener:
        assert (await listener.next()).data["text"] == "why it failed\n"
        assert [(await listener.next()).name for _ in range(3)] == ["ended", "ended", "over"]
    text = (await world.get(f"{SERVICES}/mine/logs?attempt=1")).json()["logs"]
    assert "why it failed" in text
    assert "why it failed" not in (await world.get(f"{SERVICES}/mine/logs")).json()["logs"]
    assert "no such attempt" in (await world.get(f"{SERVICES}/mine/logs?attempt=7")).json()["logs"]
    assert "no such attempt" in (await world.get(f"{SERVICES}/mine/logs?replica=3")).json()["logs"]


@pytest.mark.parametrize(("tail", "shown"), [("0", ""), ("1", "c\n"), ("2", "b\nc\n"), ("9", "a\nb\nc\n")])
async def test_the_last_lines(world: World, tail: str, shown: str) -> None:
    _, folder = await started(world)
    (folder / "stdout.log").write_text("a\nb\nc\n")
    text = (await world.get(f"{SERVICES}/mine/logs?tail={tail}")).json()["logs"]
    assert text.startswith(f"=== SLURM STDOUT ({folder}/stdout.log) ===\n{shown}\n\n===")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true&tail={tail}") as listener:
        await listener.until(lambda: ": following" in listener.text)
        if shown:
            assert (await listener.next()).data["text"] == shown
        append(folder / "stdout.log", "d\n")
        assert (await listener.next()).data["text"] == "d\n"


@pytest.mark.parametrize(("tail", "shown"), [("1", "d\n"), ("2", "c\nd\n"), ("3", "b\nc\nd\n"), ("9", "a\nb\nc\nd\n")])
async def test_the_last_lines_of_a_file_that_was_rotated(world: World, tail: str, shown: str) -> None:
    _, folder = await started(world)
    (folder / "stdout.log.1").write_text("a\nb\n")
    (folder / "stdout.log").write_text("c\nd\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true&tail={tail}") as listener:
        assert (await listener.next()).data["text"] == shown
        append(folder / "stdout.log", "e\n")
        assert (await listener.next()).data["text"] == "e\n"


async def test_of_one_replica(world: World) -> None:
    service, _ = await started(world)
    append(world.job_folder(await world.attempt(service, 1)) / "stdout.log", "second\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true&replica=1") as listener:
        assert (await listener.next()).data["replica"] == 1


async def test_no_line_is_lost_or_doubled_over_broken_connections(world: World) -> None:
    _, folder = await started(world)
    file = folder / "stdout.log"
    written = [f"{number}: {'x' * (number * 37 % 3000)}\n" for number in range(600)]

    async def write() -> None:
        for number, line in enumerate(written):
            append(file, line[: len(line) // 2])
            append(file, line[len(line) // 2 :])
            if number % 20 == 0:
                await asyncio.sleep(0.005)

    text, last, writing = "", None, None
    total = len("".join(written))
    while len(text) < total:
        async with world.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
            if writing is None:
                await listener.until(lambda listener=listener: ": following" in listener.text)
                writing = asyncio.create_task(write())
            for _ in range(3):
                event = await listener.next()
                text += event.data["text"]
                last = event.id
                if len(text) >= total:
                    break
    assert writing is not None
    await writing
    assert text == "".join(written)


async def test_who_is_slow_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.logs.places.BUFFER", 4096)
    monkeypatch.setattr("api.http.logs.log_file.CHUNK", 8192)
    monkeypatch.setattr("api.http.logs.tail.CHUNK", 8192)
    _, folder = await started(world)
    written = "".join(f"{number}: é\n" for number in range(20_000))
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.until(lambda: ": following" in listener.text)
        listener.reading.clear()
        for begin in range(0, len(written), 50_000):
            append(folder / "stdout.log", written[begin : begin + 50_000])
            await asyncio.sleep(0.05)
        listener.reading.set()
        assert await collect(listener, len(written.encode())) == written


async def test_a_line_that_is_very_long(world: World) -> None:
    _, folder = await started(world)
    written = "é" * 200_000 + "\nshort\n"
    append(folder / "stdout.log", "begin\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.next()
        append(folder / "stdout.log", written)
        assert await collect(listener, len(written.encode())) == written


@pytest.mark.parametrize("how", ["renamed", "truncated", "truncated and grown"])
async def test_a_rotated_file(world: World, how: str) -> None:
    _, folder = await started(world)
    file = folder / "stdout.log"
    append(file, "before " * 20 + "\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.next()
        if how == "renamed":
            append(file, "last words\n")
            file.rename(folder / "stdout.log.1")
            append(file, "after\n")
            assert await collect(listener, 17) == "last words\nafter\n"
        else:
            after = "after\n" if how == "truncated" else "after " * 200 + "\n"
            file.write_text(after)
            assert await collect(listener, len(after)) == after
        append(file, "and on\n")
        assert (await listener.next()).data["text"] == "and on\n"
        last = listener.last_id
    append(file, "resumed\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
        assert (await listener.next()).data["text"] == "resumed\n"
    file.write_text("another file altogether, and a longer one than was there before: it is read as a whole\n" * 20)
    async with world.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
        assert (await listener.next()).data["text"].startswith("another file")


def turn_over(file: Path, how: str) -> None:
    """Rotate a file as logrotate does, or as who can't have its writer open another: by a copy."""
    before = file.with_name(f"{file.name}.1")
    if how == "renamed":
        file.rename(before)
    else:
        before.write_bytes(file.read_bytes())
        os.truncate(file, 0)


@pytest.mark.parametrize("how", ["renamed", "copied"])
@pytest.mark.parametrize("is_away", [True, False])
async def test_what_was_not_read_before_a_rotation(world: World, how: str, is_away: bool) -> None:
    _, folder = await started(world)
    file = folder / "stdout.log"
    append(file, "one\n" * 40)
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await collect(listener, 160)
        if not is_away:
            append(file, "two\nthr")
            turn_over(file, how)
            append(file, "ee\nfour\n")
            assert await collect(listener, 15) == "two\nthree\nfour\n"
            return
        last = listener.last_id
    append(file, "two\n" * 30_000 + "thr")
    turn_over(file, how)
    append(file, "ee\nfour\n")
    again = World(world.settings, world.database, new_app(world.settings, world.database))
    async with again.running():
        async with again.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
            assert await collect(listener, 120_011) == "two\n" * 30_000 + "three\nfour\n"
            last = listener.last_id
            append(file, "five\n")
            assert (await listener.next()).data["text"] == "five\n"
            assert listener.waiting == 0
        async with again.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
            assert (await listener.next()).data["text"] == "five\n"


@pytest.mark.parametrize("how", ["renamed", "copied"])
async def test_who_breaks_off_within_a_file_that_was_rotated(world: World, how: str) -> None:
    _, folder = await started(world)
    file = folder / "stdout.log"
    append(file, "begin\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.next()
        listener.reading.clear()
        written = "".join(f"{number}\n" for number in range(100_000))
        append(file, written[:400_000])
        turn_over(file, how)
        append(file, written[400_000:])
        listener.reading.set()
        text = (await listener.next()).data["text"]
        assert len(text) < 100_000
        last = listener.last_id
    async with world.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
        assert text + await collect(listener, len(written) - len(text)) == written


async def test_lines_that_repeat_do_not_hide_a_rotation(world: World) -> None:
    _, folder = await started(world)
    file = folder / "stdout.log"
    usual = f"{'the same as ever ' * 8}\n"
    append(file, "first\n" + usual)
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.next()
        append(file, usual)
        await listener.next()
        last = listener.last_id
    turn_over(file, "renamed")
    append(file, "other\n" + usual * 3)
    async with world.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
        assert (await listener.next()).data["text"] == "other\n" + usual * 3


async def test_what_is_gone_is_told(world: World) -> None:
    _, folder = await started(world)
    file = folder / "stdout.log"
    append(file, "begin\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.next()
        listener.reading.clear()
        for number in range(3):
            append(file, f"{number}\n" * 200_000)
            await asyncio.sleep(0.1)
            turn_over(file, "renamed")
            append(file, "")
            await asyncio.sleep(0.1)
        listener.reading.set()
        text, lost = "", 0
        while not text.endswith("2\n" * 200_000):
            event = await listener.next()
            lost += event.data.get("bytes", 0)
            text += event.data.get("text", "")
        assert lost + len(text) == 1_200_000
        assert lost > 0


async def test_who_was_told_nothing_yet_comes_back(world: World) -> None:
    _, folder = await started(world)
    append(folder / "stdout.log", "old\nmore\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true&tail=0") as listener:
        await listener.until(lambda: listener.last_id != "")
        last = listener.last_id
    append(folder / "stdout.log", "missed\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true&tail=0", last) as listener:
        assert (await listener.next()).data["text"] == "missed\n"


@pytest.mark.parametrize("how", ["renamed", "copied"])
async def test_who_was_told_nothing_comes_back_after_a_rotation(world: World, how: str) -> None:
    _, folder = await started(world)
    file = folder / "stdout.log"
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.until(lambda: listener.last_id != "")
        last = listener.last_id
    append(file, "one\n")
    turn_over(file, how)
    append(file, "")
    await asyncio.sleep(0.1)
    async with world.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
        assert (await listener.next()).data["text"] == "one\n"
        last = listener.last_id
    for _ in range(2):
        async with world.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
            await listener.until(lambda listener=listener: ": following" in listener.text)
            last = listener.last_id
    append(file, "two\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true", last) as listener:
        assert (await listener.next()).data["text"] == "two\n"


async def test_many_followers_cost_one_reader(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = await started(world)
    append(folder / "stdout.log", "begin\n")
    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(world.listen(f"{SERVICES}/mine/logs?follow=1")) for _ in range(50)]
        for listener in listeners:
            await listener.next()
        opened: list[Path] = []
        real = api.http.logs.log_file.open_log
        wrapped = lambda run, file: (opened.append(file), real(run, file))[1]  # noqa: E731
        monkeypatch.setattr(api.http.logs.log_file, "open_log", wrapped)
        ticks = asyncio.get_running_loop().time()
        append(folder / "stdout.log", "end\n")
        for listener in listeners:
            assert (await listener.next()).data["text"] == "end\n"
        ticks = (asyncio.get_running_loop().time() - ticks) / 0.02
        assert len(opened) <= 2 * (ticks + 2)


async def test_files_are_let_go_of(world: World) -> None:
    _, folder = await started(world)
    append(folder / "stdout.log", "begin\n")

    def held() -> int:
        return sum(str(folder) in name for name in opened_by())

    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.next()
        assert held() == 1
    async with asyncio.timeout(60):
        while held():
            await asyncio.sleep(0.01)


async def test_links_out_of_run_dir_are_not_followed(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("very secret\n")
    _, folder = await started(world)
    (folder / "stdout.log").symlink_to(tmp_path / "secret")
    append(folder / "stderr.log", "public\n")
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        assert (await listener.next()).data["text"] == "public\n"
        assert "very secret" not in listener.text


async def test_it_ends_when_the_api_stops(world: World) -> None:
    await started(world)
    async with world.listen(f"{SERVICES}/mine/logs?follow=true") as listener:
        await listener.until(lambda: ": following" in listener.text)
        await world.app.state.end_streams()
        async with asyncio.timeout(60):
            await listener.ended.wait()


async def test_what_can_not_be_followed(world: World) -> None:
    service, _ = await started(world)
    assert (await world.get(f"{SERVICES}/999/logs?follow=true")).status_code == 404
    for last in ("x", "0-1.o.5", "0-1.x.1.1.0", "," * 5, "9" * 5000):
        answer = await world.get(f"{SERVICES}/mine/logs?follow=true", headers={"Last-Event-ID": last})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "Last-Event-ID"])
    for replica in range(1, 40):
        await world.attempt(service, replica)
    await asyncio.sleep(0.06)
    answer = await world.get(f"{SERVICES}/mine/logs?follow=true")
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "replica"])
    for query in ("tail=-1", "replica=x", "attempt=0", "follow=maybe", "timeout=-1"):
        assert (await world.get(f"{SERVICES}/mine/logs?{query}")).status_code == 422


# What this host lacks


def test_a_file_that_can_not_be_opened_now_is_not_finished(tmp_path: Path) -> None:
    """A file counts as finished once it was read so often after the end of its job."""
    file = tmp_path / "stdout.log"
    file.write_text("one\n")
    tail = Tail(tmp_path, file)
    with none_left():
        for _ in range(5):
            assert not tail.read()
    assert tail.passes == 0
    assert tail.read()
    assert tail.passes == 1


def test_what_was_rotated_is_not_lost_for_want_of_a_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, open_log = tmp_path / "stdout.log", api.http.logs.log_file.open_log
    file.write_text("one\n")
    tail = Tail(tmp_path, file)
    tail.read()
    place, _ = tail.begin(None, None, whole=True)
    append(file, "two\n")
    shutil.copy(file, tmp_path / "stdout.log.1")
    file.write_text("three\n")

    def refuse(run_dir: Path, wanted: Path) -> int:
        if wanted.name.endswith(".1"):
            raise OSError(errno.EMFILE, "Too many open files")
        return open_log(run_dir, wanted)

    with monkeypatch.context() as patched:
        patched.setattr(api.http.logs.log_file, "open_log", refuse)
        assert not tail.read()
        assert tail.passes == 1
    tail.read()
    read = b""
    while (piece := tail.take(place, is_final=True)) is not None:
        assert piece.lost == 0
        place, read = piece.end, read + piece.content
    assert read == b"one\ntwo\nthree\n"

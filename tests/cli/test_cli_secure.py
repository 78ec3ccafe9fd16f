"""Programs that look at their folders when they start, and `ai-factory secure`, which closes them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import Run

import api.http.serve
import controller.__main__
from api.contract.configuration import load
from api.contract.job.folder import name_of
from api.contract.job.parameters import Image
from controller.wrapper import cache
from tests.another_user import UID, give_away

IMAGE = Image(source="docker://x")


@pytest.fixture
def state(home: Path) -> Path:
    folder = home / ".local/state/ai-factory"
    folder.mkdir(parents=True, mode=0o700)
    return folder


@pytest.fixture
def shared(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RUN_DIR."""
    folder = home / ".local/share/ai-factory"
    folder.mkdir(parents=True, mode=0o700)
    apptainer = home / "apptainer"
    apptainer.write_text("#!/bin/sh\n")
    apptainer.chmod(0o755)
    monkeypatch.setenv("AI_FACTORY_APPTAINER_COMMAND", str(apptainer))
    return folder


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """The programs set up the logging of their process, which is this one."""
    root, ours = logging.getLogger(), logging.getLogger("controller")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


@pytest.fixture
def careless_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def an_image(shared: Path, content: bytes = b"whole", *, recorded: bool = True) -> cache.Entry:
    """Put an image into the cache, as its maker does."""
    entry = cache.Entry(shared / "images", cache.key(IMAGE))
    entry.cache.mkdir(mode=0o700, exist_ok=True)
    entry.partial.write_bytes(content)
    entry.partial.chmod(0o600)
    digest = hashlib.sha256(content).hexdigest()
    made = cache.CacheRecord(
        source=IMAGE.source, definition=None, sha256=digest, size=len(content), made_at=1.0, host="h"
    )
    cache.publish(entry, made)
    if not recorded:
        entry.record.unlink()
    return entry


def modes(*paths: Path) -> list[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in paths]


PROGRAMS: dict[str, Callable[[Run], int]] = {
    "API": lambda run: api.http.serve.run(load()),
    "controller": lambda run: controller.__main__.main(["run"]),
    **{
        " ".join(words): lambda run, words=words: run(*words).code
        for words in (
            ("migrate",), ("restore", "none.tar"), ("adopt",), ("images", "prune"),
            ("images", "pull", "docker://x", "--host"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_looks_when_it_starts(run: Run, state: Path, shared: Path, program: str) -> None:
    (shared / "lib").mkdir(mode=0o700)
    (shared / "lib").chmod(0o777)
    assert PROGRAMS[program](run) == 3
    assert list(state.iterdir()) == []
    (shared / "lib").chmod(0o755)
    PROGRAMS[program](run)
    assert modes(shared / "lib") == [0o700]


def test_up_looks_before_it_starts_anything(run: Run, state: Path) -> None:
    state.chmod(0o770)
    assert run("up", "--port", "0").code == 3
    assert list(state.iterdir()) == []


def test_why_a_program_does_not_start(run: Run, shared: Path) -> None:
    give_away(shared)
    ran = run("migrate")
    assert (ran.code, f"{shared} belongs to user {UID}" in ran.err) == (3, True)
    assert "Set run_dir to a new folder" in ran.err


def test_what_was_closed_is_said(run: Run, state: Path) -> None:
    state.chmod(0o755)
    assert f"{state} could be read by others: mode 0755 → 0700" in run("migrate").err


def test_a_new_database_is_for_nobody_else(run: Run, home: Path, careless_umask: None) -> None:
    assert run("migrate").code == 0
    state = home / ".local/state/ai-factory"
    assert modes(state, state.parent, state.parent.parent) == [0o700] * 3
    assert {path.name for path in state.iterdir()} >= {"ai-factory.db"}
    assert set(modes(*state.iterdir())) == {0o600}


def secured(run: Run) -> tuple[int, dict[str, dict[str, Any]]]:
    ran = run("secure", "-o", "json")
    return ran.code, {each["path"]: each for each in json.loads(ran.out)}


def test_secure_closes_and_proves(run: Run, state: Path, shared: Path) -> None:
    assert run("migrate").code == 0
    wrapper = shared / "lib" / name_of(b"x", "wrapper", ".pyz")
    wrapper.parent.mkdir(mode=0o700)
    wrapper.write_bytes(b"x")
    wrapper.chmod(0o600)
    entry = an_image(shared)
    database = state / "ai-factory.db"
    for path in (shared, wrapper.parent, wrapper, entry.cache, entry.image, database):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o022)
    code, found = secured(run)
    assert code == 0
    assert modes(wrapper.parent, wrapper, entry.cache, entry.image, database) == [0o700, 0o600, 0o700, 0o600, 0o600]
    assert modes(shared) == [0o700]
    assert found[str(wrapper)]["done"] == "mode 0622 → 0600"
    assert found[str(database)]["done"] == "mode 0622 → 0600; nothing tells whether it was changed"
    assert found[str(entry.image)]["done"].startswith("its SHA-256 is the recorded one")
    assert secured(run) == (0, {})
    assert run("secure").out == "All is this user's alone; nothing to do.\n"
    assert run("migrate").code == 0


def change(entry: cache.Entry) -> None:
    entry.image.write_bytes(b"other")


def forget(entry: cache.Entry) -> None:
    entry.record.unlink()


def open_record(entry: cache.Entry) -> None:
    told = json.loads(entry.record.read_text())
    entry.image.write_bytes(b"other")
    entry.record.write_text(json.dumps({**told, "sha256": hashlib.sha256(b"other").hexdigest()}))
    entry.record.chmod(0o622)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (change, "was written down when it was made"),
        (forget, "no digest was written down"),
        (open_record, "A record that others could write proves nothing"),
    ],
)
def test_an_image_that_is_not_proven_stays_refused(
    run: Run, shared: Path, spoil: Callable[[cache.Entry], None], why: str
) -> None:
    entry = an_image(shared)
    entry.image.chmod(0o660)
    spoil(entry)
    for _ in range(2):
        code, found = secured(run)
        assert code == 1
        assert any(why in each["done"] and "--refresh" in each["done"] for each in found.values())
        descriptor = cache.hold(entry.image, lambda: None)
        assert descriptor is not None
        assert cache.disproof(entry, descriptor, lambda: None) is not None
        os.close(descriptor)
    assert run("migrate").code == 3


def test_marks_that_others_could_write_are_not_believed(run: Run, shared: Path) -> None:
    entry = an_image(shared)
    entry.image.write_bytes(b"other")
    status = entry.image.stat()
    told = cache.read_record(entry)
    assert told is not None
    entry.seen.write_text(cache._mark(told, status))
    entry.seen.chmod(0o666)
    assert secured(run)[0] == 0
    descriptor = os.open(entry.image, os.O_RDONLY)
    assert "was written down" in str(cache.disproof(entry, descriptor, lambda: None))
    os.close(descriptor)


def test_what_was_planted_is_left_and_named(run: Run, shared: Path) -> None:
    planted = shared / "lib" / name_of(b"x", "wrapper", ".pyz")
    planted.parent.mkdir(mode=0o700)
    planted.write_bytes(b"evil")
    foreign = planted.with_name("launch-x.sh")
    foreign.write_bytes(b"")
    give_away(foreign)
    code, found = secured(run)
    assert code == 1
    assert found[str(planted)]["done"].startswith("Set run_dir to a new folder")
    assert found[str(foreign)]["is_well"] is False
    assert foreign.stat().st_uid == UID
    table = run("secure")
    assert (table.code, "✗" in table.out, "left that this can't mend" in table.err) == (1, True, True)


def test_a_file_system_that_keeps_no_modes_is_told(run: Run, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.chmod(0o777)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    code, found = secured(run)
    assert (code, "this file system keeps none" in found[str(shared)]["done"]) == (1, True)

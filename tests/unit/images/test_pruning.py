"""Which images may go, and that they go whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.images.prune import decide, sweep
from controller.images.stock import Stored, stock
from controller.images.usage import Usage
from controller.wrapper import cache
from controller.wrapper.cache import CacheRecord, Entry

DAY = 86400.0
NOW = 1_000 * DAY
A, B, C = ("a" * 16, "b" * 16, "c" * 16)
Put = Callable[..., Entry]


def stored(key: str = A, used_at: float = 0.0) -> Stored:
    return Stored(key=key, path=f"/run/images/{key}.sif", size=1, made_at=0.0, used_at=used_at)


def judged(image: Stored, *, unused_for: float = 0.0, **usage: Any) -> tuple[bool, str]:
    (verdict,) = decide([image], Usage(**usage), now=NOW, unused_for=unused_for)
    return verdict.removed, verdict.why


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        ({"services": {A: ("chat", "other")}}, "used by chat, other"),
        ({"jobs": {A: ("af-i-s-0-1",)}}, "used by the job af-i-s-0-1"),
        ({"unknown": ("af-i-s-0-2",)}, "nothing says yet which image af-i-s-0-2 uses"),
    ],
)
def test_what_is_used_stays_however_old_it_is(usage: dict[str, Any], why: str) -> None:
    assert judged(stored(), **usage) == (False, why)


def test_what_others_use_is_no_reason_to_stay() -> None:
    assert judged(stored(), services={B: ("chat",)}, jobs={C: ("af-i-s-0-1",)}) == (True, "unused")


@pytest.mark.parametrize(("unused", "removed"), [(0, True), (6.9, False), (7, True)])
def test_it_goes_once_it_has_been_unused_for_long_enough(unused: float, removed: bool) -> None:
    expected = (True, "unused") if removed else (False, "unused for less than 7 days")
    days = 7 if unused else 0
    assert judged(stored(used_at=NOW - unused * DAY), unused_for=days * DAY) == expected


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Put an image into the cache as a maker does."""

    def put(key: str, *, used_at: float | None = None) -> Entry:
        entry = Entry(tmp_path, key)
        entry.partial.write_bytes(b"whole")
        cache.publish(entry, CacheRecord("docker://x", None, cache.sha256(entry.partial), 5, 1.0, "here"))
        if used_at is not None:
            cache.touch(entry)
            os.utime(entry.used, (used_at, used_at))
        return entry

    return put


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have another process share a file's lock, since locks are a process's own."""
    code = "import fcntl, sys; f = open(sys.argv[1], 'a+b'); fcntl.lockf(f, fcntl.LOCK_SH); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield
        holder.communicate(b"\n")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_the_stock_is_what_is_whole(put: Put, tmp_path: Path) -> None:
    put(A, used_at=70.0)
    put(B)
    Entry(tmp_path, C).partial.touch()
    (tmp_path / "notes.sif").touch()
    (tmp_path / f"{'d' * 16}.sif").touch()
    first, second, old = stock(tmp_path)
    assert (first.key, first.source, first.size, first.made_at, first.used_at) == (A, "docker://x", 5, 1.0, 70.0)
    assert (second.key, second.used_at) == (B, 1.0)
    assert (old.source, old.definition, old.sha256) == (None, None, None), "an older version made it"
    assert old.used_at == old.made_at > 1.0
    assert stock(tmp_path / "absent") == ()


def test_a_garbled_record_is_none(put: Put, tmp_path: Path) -> None:
    for garbage in ("", "[]", "{", '{"source": 1}', '{"source": null, "definition": "x", "sha256": 1, "size": "x"}'):
        put(A).record.write_text(garbage)
        assert stock(tmp_path)[0].sha256 is None


def test_an_unused_image_goes_with_all_that_is_its_own(put: Put, tmp_path: Path) -> None:
    put(A, used_at=NOW - 8 * DAY)
    put(B, used_at=NOW - 8 * DAY)
    put(C, used_at=NOW - 6 * DAY)
    used = Usage(services={B: ("chat",)})
    dry = sweep(tmp_path, used, now=NOW, unused_for=7 * DAY, dry=True)
    assert [each.removed for each in dry] == [True, False, False]
    assert len(stock(tmp_path)) == 3
    assert sweep(tmp_path, used, now=NOW, unused_for=7 * DAY) == dry
    assert names(tmp_path) == {f"{key}.{what}" for key in (B, C) for what in ("sif", "json", "seen", "used")}


def test_being_wanted_counts_as_use(put: Put, tmp_path: Path) -> None:
    entry = put(A, used_at=5.0)
    sweep(tmp_path, Usage(services={A: ("chat",), B: ("not made yet",)}), now=NOW, unused_for=DAY)
    assert entry.used.stat().st_mtime > 5.0
    assert names(tmp_path) == {f"{A}.sif", f"{A}.json", f"{A}.seen", f"{A}.used"}, (
        "nothing is made up for what is not there"
    )


def test_what_somebody_is_making_anew_stays(put: Put, tmp_path: Path) -> None:
    entry = put(A)
    entry.partial.write_text("half")
    with held(entry.lock):
        (verdict,) = sweep(tmp_path, Usage(), now=NOW, unused_for=0)
        assert (verdict.removed, verdict.why) == (False, "it is being made anew")
        assert entry.partial.exists()
    (verdict,) = sweep(tmp_path, Usage(), now=NOW, unused_for=0)
    assert verdict.removed
    assert names(tmp_path) == set()


def test_what_a_job_holds_stays_though_no_database_knows_of_it(put: Put, tmp_path: Path) -> None:
    entry = put(A)
    with held(entry.image):
        (verdict,) = sweep(tmp_path, Usage(), now=NOW, unused_for=0)
    assert (verdict.removed, verdict.why) == (False, "a running job uses it")
    assert len(names(tmp_path)) == 3


def test_leftovers_of_the_dead_are_cleared(put: Put, tmp_path: Path) -> None:
    put(A, used_at=NOW)
    for entry in (Entry(tmp_path, A), Entry(tmp_path, B)):
        entry.partial.touch()
        entry.aside().touch()
    (tmp_path / ".keep").touch()
    sweep(tmp_path, Usage(), now=NOW, unused_for=DAY)
    assert names(tmp_path) == {f"{A}.sif", f"{A}.json", f"{A}.seen", f"{A}.used", ".keep"}


def test_the_key_is_of_what_is_written() -> None:
    def key(source: str | None = None, definition: str | None = None) -> str:
        return cache.key(CacheRecord(source, definition, "", 0, 0.0, ""))

    assert key("docker://a") == "dd9a2f07ee787ee2", "what caches hold keeps its name"
    assert len({key("docker://a"), key("docker://a:latest"), key(None, "docker://a"), key(None, "From: a")}) == 4

"""Folders that are nobody else's, and files that somebody has named."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.contract.job.private import make_folder, open_regular, require_private
from tests.another_user import UID, give_away


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077])
def any_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_all_that_was_missing_is_for_nobody_else(tmp_path: Path, any_umask: None) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a/b/c")
        made = [tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    make_folder(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755


@pytest.mark.parametrize("where", ["file", "file/below", "dangling", "/proc/nowhere", "/proc/nowhere/below"])
def test_what_can_not_be_made_is_an_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("absent")
    with pytest.raises(OSError, match=r"file|dangling|nowhere"):
        make_folder(tmp_path / where)


def test_what_is_private(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch(mode=0o644)
    (tmp_path / "link").symlink_to("x")
    require_private(path)
    require_private(tmp_path / "link")
    path.chmod(0o664)
    for each in (path, tmp_path / "link"):
        with pytest.raises(PermissionError, match="others may write to it"):
            require_private(each)
    path.chmod(0o600)
    give_away(tmp_path / "link", follow_symlinks=False)
    with pytest.raises(PermissionError, match=f"it belongs to user {UID}"):
        require_private(tmp_path / "link")
    give_away(path)
    with pytest.raises(PermissionError, match=f"it belongs to user {UID}"):
        require_private(path)


def test_a_file_is_opened_and_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"x"
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match="no regular file"):
            open_regular(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before

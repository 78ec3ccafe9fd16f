from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from controller.wrapper.sandbox import scratch as module
from controller.wrapper.sandbox.scratch import scratch


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "YOUNG", 0.0)


def test_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    with scratch(7) as folder:
        (folder / "a/b").mkdir(parents=True)
        (folder / "a/b/c").write_text("x")
        (folder / "a").chmod(0o500)
        (folder / "link").symlink_to("/")
    assert list(tmp_path.iterdir()) == []


def test_only_folders_that_nobody_holds_are_orphans(tmp_path: Path) -> None:
    orphan = tmp_path / f"ai-factory-{os.getuid()}-5-left"
    orphan.mkdir()
    (orphan / "file").write_text("x")
    foreign = tmp_path / f"ai-factory-{os.getuid()}9-5-left"
    foreign.mkdir()
    with scratch(6) as held:
        assert not orphan.exists()
        with scratch(7) as other:
            assert held.exists()
            assert other != held
    assert list(tmp_path.iterdir()) == [foreign]

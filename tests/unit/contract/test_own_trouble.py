"""What this host lacks says nothing of an engine, of Slurm or of a file."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import httpx
import pytest

from api.contract.configuration import load
from api.contract.job.folder import read_object
from api.contract.job.own_trouble import is_own_trouble
from api.contract.recipes import book
from api.contract.recipes.book import Library
from api.contract.traces import find_traces
from tests.descriptors import none_left


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN,
                                  errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENETUNREACH])  # fmt: skip
def test_what_this_host_lacks(code: int) -> None:
    assert is_own_trouble(OSError(code, os.strerror(code)))


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EHOSTUNREACH,
                                  errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT])  # fmt: skip
def test_what_others_are_like(code: int) -> None:
    assert not is_own_trouble(OSError(code, os.strerror(code)))


@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY, socket.EAI_NONAME])
def test_a_name_that_is_not_resolved_was_never_asked(code: int) -> None:
    assert is_own_trouble(socket.gaierror(code, "no answer"))


def test_no_other_error_is_ours() -> None:
    assert not is_own_trouble(TimeoutError())
    assert not is_own_trouble(ValueError("bad"))


def test_causes_are_followed() -> None:
    error = httpx.ConnectError("All connection attempts failed")
    assert not is_own_trouble(error)
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    assert is_own_trouble(error)
    error.__cause__, error.__context__ = None, OSError(errno.EMFILE, "Too many open files")
    assert is_own_trouble(error)


def test_of_a_group_all_must_be() -> None:
    ours, theirs = OSError(errno.EMFILE, "Too many open files"), ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert is_own_trouble(ExceptionGroup("several addresses", [ours, ours]))
    assert not is_own_trouble(ExceptionGroup("several addresses", [ours, theirs]))


def test_a_file_that_can_not_be_opened_for_want_of_descriptors_is_not_absent(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"a": 1}')
    with none_left(), pytest.raises(OSError, match="Too many open files"):
        read_object(tmp_path / "x")
    assert read_object(tmp_path / "x") == {"a": 1}


def test_a_recipe_is_not_broken_by_it(tmp_path: Path) -> None:
    (tmp_path / "simple").mkdir()
    library = Library([tmp_path], {})
    (tmp_path / "simple/hello.yaml").write_text("name: hello\ncategory: simple\ncommand: [x]\n")
    with none_left(), pytest.raises(OSError, match="Too many open files"):
        library.book()
    assert "simple/hello" in {**library.book().recipes, **library.book().problems}


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("name", ["hello.yaml", "beside.txt"])
def test_a_recipe_that_can_not_be_opened_now_is_not_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "simple").mkdir()
    recipe = "name: h\ncategory: simple\ndescription: x\nversion: 1.0.0\nkind: job\nprogram: [x]\nfiles: [beside.txt]\n"
    (tmp_path / "simple/hello.yaml").write_text(recipe)
    (tmp_path / "simple/beside.txt").write_text("text")
    assert "simple/hello" in Library([tmp_path], {}).book().recipes
    with monkeypatch.context() as patched, pytest.raises(OSError, match="Too many open files"):
        opened = book.open_regular
        patched.setattr(book, "open_regular", lambda path: refuse() if path.name == name else opened(path))
        Library([tmp_path], {}).book()


@pytest.mark.parametrize(("of", "function"), [(os, "open"), (os, "scandir")])
def test_a_lost_database_is_not_overlooked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: object, function: str
) -> None:
    (tmp_path / "run").mkdir()
    settings = load({"state_dir": str(tmp_path), "run_dir": str(tmp_path / "run")}, environ={"HOME": str(tmp_path)})
    (tmp_path / "plans.jsonl").write_text("")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="Too many open files"):
        patched.setattr(of, function, refuse)
        find_traces(settings)
    assert find_traces(settings).planned is None

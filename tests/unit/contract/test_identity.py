"""Ids, the file of the keys, and the secrets made with them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from api.contract.doorless import secret
from api.contract.identity import (
    ALPHABET,
    KEY_BYTES,
    SERVICE_NAME,
    KeyFileError,
    change_keys,
    load_keys,
    new_id,
    new_key,
    read_keys,
)


def test_ids_are_short_easy_and_differ() -> None:
    made = {new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(one) == 8 and set(one) <= set(ALPHABET) for one in made)
    assert not set("0o1liu") & set(ALPHABET)
    assert all(SERVICE_NAME.fullmatch(one) for one in made)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("chat", True),
        ("a", True),
        ("a-1", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("-a", False),
        ("a-", False),
        ("A", False),
        ("a_b", False),
        ("a.b", False),
        ("", False),
        ("a\n", False),
        ("é", False),
    ],
)
def test_names_of_services(name: str, fits: bool) -> None:
    assert (SERVICE_NAME.fullmatch(name) is not None) is fits


def test_a_secret_belongs_to_one_token_under_one_key() -> None:
    key, other = b"k" * KEY_BYTES, b"o" * KEY_BYTES
    secrets = {secret(key, "af-i-s-0-1"), secret(key, "af-i-s-0-2"), secret(other, "af-i-s-0-1")}
    assert len(secrets) == 3
    assert secret(key, "af-i-s-0-1") == secret(key, "af-i-s-0-1")
    assert all(len(one) == 64 for one in secrets)


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "installation.key"
    (key,) = load_keys(path)
    assert len(key) == KEY_BYTES
    assert load_keys(path) == (key,)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["installation.key"]


def test_programs_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "installation.key"
    barrier = threading.Barrier(8)
    keys: list[bytes] = []

    def start() -> None:
        barrier.wait()
        keys.extend(load_keys(path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert set(keys) == {path.read_bytes()}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "installation.key"
    load_keys(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        load_keys(path)


def test_a_short_key_is_refused_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "installation.key"
    path.touch(mode=0o600)
    path.write_bytes(b"short")
    with pytest.raises(KeyFileError, match="holds 5 bytes, which are no keys of 32 bytes; restore it"):
        load_keys(path)
    assert path.read_bytes() == b"short"


def test_a_pipe_in_its_place_holds_no_program_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "installation.key", 0o600)
    with pytest.raises(KeyFileError, match="can't be read: it is no regular file"):
        load_keys(tmp_path / "installation.key")


@pytest.mark.parametrize("where", ["", "file/installation.key"])
def test_a_place_that_can_hold_no_key_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(KeyFileError, match=f"The key file {tmp_path}"):
        load_keys(tmp_path / where)


def test_several_keys_stand_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "installation.key"
    path.touch(mode=0o600)
    path.write_bytes(b"n" * KEY_BYTES + b"o" * KEY_BYTES + b"n" * KEY_BYTES)
    assert load_keys(path) == (b"n" * KEY_BYTES, b"o" * KEY_BYTES)


@pytest.mark.parametrize("size", [KEY_BYTES + 1, 2 * KEY_BYTES - 1])
def test_what_are_no_whole_keys_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "installation.key"
    path.touch(mode=0o600)
    path.write_bytes(b"k" * size)
    with pytest.raises(KeyFileError, match=f"holds {size} bytes, which are no keys of 32 bytes; restore it"):
        load_keys(path)


def test_keys_are_changed_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / "installation.key"
    (old,) = load_keys(path)
    linked = tmp_path / "link"
    linked.symlink_to(path)
    made = change_keys(linked, lambda keys: (new_key(), *keys))
    assert made == read_keys(path) == read_keys(linked)
    assert (len(made), made[1], path.stat().st_mode & 0o777) == (2, old, 0o600)
    assert change_keys(path, lambda keys: keys[:1]) == made[:1] == read_keys(path)
    assert [file.name for file in path.parent.iterdir()] == ["installation.key"]


def test_what_can_not_be_changed_stays(tmp_path: Path) -> None:
    path = tmp_path / "installation.key"
    with pytest.raises(KeyFileError, match="There is no key file"):
        change_keys(path, lambda keys: keys)
    before = load_keys(path)

    def meddle(keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
        raise KeyFileError("no")

    with pytest.raises(KeyFileError, match="no"):
        change_keys(path, meddle)
    assert read_keys(path) == before
    assert len(list(tmp_path.iterdir())) == 1


def test_two_that_rotate_at_once_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "installation.key"
    load_keys(path)
    barrier = threading.Barrier(8)
    made: list[bytes] = []

    def rotate() -> None:
        key = new_key()
        barrier.wait()
        try:
            change_keys(path, lambda keys: (key, *keys))
        except KeyFileError:
            return
        made.append(key)

    threads = [threading.Thread(target=rotate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made
    assert set(made) < set(read_keys(path))
    assert len(read_keys(path)) == len(made) + 1

"""Ids, the key and the secrets made with it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from api.contract.identity import ALPHABET, KEY_BYTES, SERVICE_NAME, KeyFileError, load_key, new_id, secret


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
    key = load_key(path)
    assert len(key) == KEY_BYTES
    assert load_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["installation.key"]


def test_programs_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "installation.key"
    barrier = threading.Barrier(8)
    keys: list[bytes] = []

    def start() -> None:
        barrier.wait()
        keys.append(load_key(path))

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
    load_key(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        load_key(path)


def test_a_short_key_is_refused_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "installation.key"
    path.touch(mode=0o600)
    path.write_bytes(b"short")
    with pytest.raises(KeyFileError, match="5 of 32 bytes; restore it"):
        load_key(path)
    assert path.read_bytes() == b"short"


@pytest.mark.parametrize("where", ["", "file/installation.key"])
def test_a_place_that_can_hold_no_key_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(KeyFileError, match=f"The key file {tmp_path}"):
        load_key(tmp_path / where)

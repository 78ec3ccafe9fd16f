"""The installation's keys in a running program."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.contract.doorless import secret
from api.contract.doors import Doors, UnknownKeyError
from api.contract.identity import KeyFileError
from api.contract.job.tls import server_name
from api.contract.keyring import Keyring
from tests.doors import KEY, NEWER_KEY, STRANGE_KEY, key_id, keyring_of, write_keys

TOKEN = "af-i-s-0-1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "installation.key"


def test_the_newest_key_is_the_first(path: Path) -> None:
    keyring = keyring_of(path, NEWER_KEY, KEY)
    assert keyring.newest() == key_id(NEWER_KEY)
    assert [one.id for one in keyring.authorities()] == [key_id(NEWER_KEY), key_id(KEY)]


def test_the_first_key_is_made(path: Path) -> None:
    keyring = Keyring(path)
    assert (keyring.newest(), keyring.secret(TOKEN), path.exists()) == (None, None, False)
    keyring.load()
    assert keyring.newest() == key_id(path.read_bytes())


def test_a_changed_file_is_heeded_at_once(path: Path) -> None:
    keyring = keyring_of(path, KEY)
    old = keyring.authority(key_id(KEY))
    write_keys(path, NEWER_KEY, KEY)
    assert keyring.newest() == key_id(NEWER_KEY)
    assert keyring.authority(key_id(KEY)) is old
    write_keys(path, NEWER_KEY)
    assert keyring.authority(key_id(KEY)) is None


@pytest.mark.parametrize("trouble", ["gone", "short", "open"])
def test_what_comes_to_be_unreadable_changes_nothing(
    path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = keyring_of(path, KEY)
    if trouble == "gone":
        path.unlink()
    elif trouble == "short":
        path.write_bytes(b"short")
    else:
        path.write_bytes(NEWER_KEY)
        path.chmod(0o644)
    for _ in range(3):
        assert keyring.newest() == key_id(KEY)
    assert caplog.text.count("can't be read again") == 1
    path.unlink(missing_ok=True)
    write_keys(path, NEWER_KEY)
    assert keyring.newest() == key_id(NEWER_KEY)


def test_only_a_program_that_starts_is_stopped_by_it(path: Path) -> None:
    path.touch(mode=0o600)
    with pytest.raises(KeyFileError):
        Keyring(path).load()
    assert Keyring(path).newest() is None


def test_what_a_job_opens_its_door_with(path: Path) -> None:
    keyring = keyring_of(path, NEWER_KEY, KEY)
    door, again = keyring.door(TOKEN, key_id(KEY)), keyring.door(TOKEN, key_id(KEY))
    assert door is not None
    assert again is not None
    assert (door.id, door.key) == (key_id(KEY), again.key)
    assert keyring.door(TOKEN, key_id(STRANGE_KEY)) is None


def test_without_a_door_the_oldest_key_counts(path: Path) -> None:
    """It was the only one when they were launched."""
    assert keyring_of(path, NEWER_KEY, KEY).secret(TOKEN) == secret(KEY, TOKEN)


def test_ways(path: Path) -> None:
    doors = Doors(keyring_of(path, NEWER_KEY, KEY), "api")
    plain, behind = doors.way("fd00::1", 80, TOKEN, None), doors.way("n1", 80, TOKEN, key_id(KEY))
    assert (plain.base_url, plain.has_door, plain.http, plain.secret) == (
        "http://[fd00::1]:80", False, None, secret(KEY, TOKEN),
    )  # fmt: skip
    assert (behind.base_url, behind.has_door, behind.secret) == ("https://n1:80", True, None)
    assert behind.name == server_name(TOKEN)
    assert doors.way("n1", 80, TOKEN, key_id(KEY)) == behind, "its contexts are made once"
    assert doors.way("n1", 80, TOKEN, key_id(NEWER_KEY)).http is not behind.http
    with pytest.raises(UnknownKeyError, match=key_id(STRANGE_KEY)):
        doors.way("n1", 80, TOKEN, key_id(STRANGE_KEY))

"""An empty database begins a new installation only where no other one has lost it."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from backends import Backend
from cli_tools import Run

from api.contract.job.private import make_folder
from api.contract.traces import PLANS

OLD = "k3x9pq"


class Place:
    """STATE_DIR and RUN_DIR of a user."""

    def __init__(self, home: Path) -> None:
        self.state = home / ".local/state/ai-factory"
        self.run = home / ".local/share/ai-factory"
        self.database = self.state / "ai-factory.db"
        self.key = self.state / "installation.key"

    def installation(self) -> str:
        with closing(sqlite3.connect(self.database)) as connection:
            return str(connection.execute("SELECT id FROM installation").fetchone()[0])

    def leave_plans(self, installation: str = OLD) -> None:
        make_folder(self.state)
        (self.state / PLANS).write_text(f'{{"desired": {{"installation": "{installation}"}}}}\n')
        (self.state / PLANS).chmod(0o600)

    def leave_key(self) -> None:
        make_folder(self.state)
        self.key.write_bytes(b"k" * 32)
        self.key.chmod(0o600)

    def leave_job(self, installation: str = OLD) -> None:
        make_folder(self.run / installation / "chat1" / f"af-{installation}-chat1-0-1")

    def lose_database(self) -> None:
        for path in self.state.glob("ai-factory.db*"):
            path.unlink()


@pytest.fixture
def place(home: Path) -> Place:
    return Place(home)


def test_a_newcomer_is_told_nothing(run: Run, place: Place) -> None:
    ran = run("migrate")
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("command", ["migrate", "up"])
def test_a_lost_database_is_not_replaced_without_a_word(
    run: Run, place: Place, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_FACTORY_API_PORT", "0")
    assert run("migrate").code == 0
    lost = place.installation()
    place.leave_plans(lost)
    place.leave_key()
    place.leave_job(lost)
    assert run("migrate").code == 0  # with its database all is well
    place.lose_database()
    refused = run(command)
    assert (refused.code, refused.err.count("\n"), refused.out) == (3, 1, "")
    for part in (
        str(place.database), lost, str(place.state / PLANS), str(place.run / lost), "database_url",
        "ai-factory restore", f"ai-factory migrate --installation {lost}", "ai-factory migrate --installation new",
    ):  # fmt: skip
        assert part in refused.err
    assert not place.database.exists() or place.database.stat().st_size == 0


@pytest.mark.parametrize("emptied", ["truncated", "downgraded"])
def test_an_emptied_database_is_a_lost_one(run: Run, place: Place, emptied: str) -> None:
    assert run("migrate").code == 0
    place.leave_plans()
    if emptied == "truncated":
        place.lose_database()
        place.database.touch()
    else:
        assert run("migrate", "--revision", "base").code == 0
    assert run("migrate").code == 3


def test_a_lost_installation_is_taken_up_under_its_id(run: Run, place: Place) -> None:
    place.leave_plans()
    place.leave_key()
    ran = run("migrate", "--installation", OLD)
    assert (ran.code, place.installation()) == (0, OLD)
    assert "ai-factory adopt --take" in ran.err
    assert "key file is missing" not in ran.err
    assert run("migrate", "--installation", OLD).code == 0  # repeatable
    assert run("migrate").code == 0
    other = run("migrate", "--installation", "abc")
    assert (other.code, f"is that of installation {OLD}" in other.err) == (3, True)
    assert place.installation() == OLD


def test_an_installation_taken_up_without_its_key_is_told_so(run: Run, place: Place) -> None:
    assert "key file is missing" in run("migrate", "--installation", OLD).err


def test_a_lost_installation_is_left_behind_on_purpose(run: Run, place: Place) -> None:
    place.leave_plans()
    place.leave_key()
    place.leave_job()
    ran = run("migrate", "--installation", "new")
    assert (ran.code, ran.err) == (0, "")
    assert place.installation() != OLD
    assert run("migrate").code == 0
    refused = run("migrate", "--installation", "new")
    assert (refused.code, "is not empty" in refused.err) == (3, True)


@pytest.mark.parametrize("wrong", ["", "image", "NEW", "a-b", "k" * 17])
def test_what_is_no_installation(run: Run, place: Place, wrong: str) -> None:
    ran = run("migrate", "--installation", wrong)
    assert (ran.code, place.database.exists()) == (2, False)


def test_a_key_and_job_folders_are_enough_to_ask(run: Run, place: Place) -> None:
    """The log of plans can be switched off."""
    place.leave_key()
    place.leave_job()
    place.leave_job("other2")
    refused = run("migrate")
    assert (refused.code, re.search(rf"{OLD} and other2 was run from here", refused.err) is not None) == (3, True)
    assert "--installation ID; or" in refused.err


def test_a_second_installation_beside_another_is_told_and_begins(run: Run, place: Place) -> None:
    place.leave_job()
    ran = run("migrate")
    assert ran.code == 0
    assert OLD in ran.err
    assert "ai-factory doctor" in ran.err


def test_a_key_that_was_copied_beforehand_is_told_and_used(run: Run, place: Place) -> None:
    """As on the hosts of one PostgreSQL, which share it."""
    place.leave_key()
    ran = run("migrate")
    assert (ran.code, str(place.key) in ran.err) == (0, True)


def test_another_host_of_one_database_is_never_asked(
    run: Run, place: Place, empty_backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts with one key, copied beforehand. The second has even led; then its database_url is mistyped."""
    monkeypatch.setenv("AI_FACTORY_DATABASE_URL", empty_backend.url)
    place.leave_key()
    assert run("migrate").code == 0
    place.leave_job()
    place.leave_plans()
    monkeypatch.setenv("AI_FACTORY_KEY_FILE", str(place.key))
    for state in (place.state, tmp_path / "host2"):
        monkeypatch.setenv("AI_FACTORY_STATE_DIR", str(state))
        ran = run("migrate")
        assert (ran.code, ran.err) == (0, "")
    monkeypatch.setenv("AI_FACTORY_DATABASE_URL", f"sqlite:///{tmp_path}/mistyped.db")
    assert run("migrate").code == 3


def test_a_backup_is_restored_where_the_database_was_lost(run: Run, place: Place, tmp_path: Path) -> None:
    assert run("migrate").code == 0
    place.leave_plans(place.installation())
    place.leave_key()
    lost = place.installation()
    assert run("backup", str(tmp_path / "b.tar")).code == 0
    place.lose_database()
    assert run("migrate").code == 3
    assert run("restore", str(tmp_path / "b.tar")).code == 0
    assert (run("migrate").code, place.installation()) == (0, lost)
    shutil.rmtree(place.state)  # the whole folder
    assert run("restore", str(tmp_path / "b.tar")).code == 0
    assert (run("migrate").code, place.installation()) == (0, lost)


def test_an_older_release_is_upgraded_without_being_asked(run: Run, place: Place) -> None:
    assert run("migrate", "--revision", "0002").code == 0
    place.leave_plans(place.installation())
    place.leave_key()
    place.leave_job(place.installation())
    ran = run("migrate")
    assert (ran.code, ran.err) == (0, "")

"""What others can write is neither run nor believed, and what they could only read is closed."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from api.contract.configuration import load
from api.contract.job.folder import name_of
from api.contract.settings import Settings
from api.contract.trust import Fault, TrustError, inspect, require_trust
from tests.another_user import UID, give_away

TOKEN = "af-k3x9pq-one-0-1"


class Place:
    """Both folders of an installation, as its programs make them."""

    def __init__(self, top: Path) -> None:
        self.state, self.run = top / "state", top / "run"
        self.settings: Settings = load(
            {"state_dir": str(self.state), "run_dir": str(self.run)}, environ={"HOME": str(top)}, config="/dev/null"
        )
        for folder in (self.state, self.run, self.run / "lib", self.run / "images", self.run / "volumes"):
            folder.mkdir(mode=0o700)
        self.jobs = self.run / "k3x9pq"
        (self.jobs / "one" / TOKEN).mkdir(parents=True)
        self.jobs.chmod(0o700)
        self.database = self.file("state/ai-factory.db")
        self.plans = self.file("state/plans.jsonl")
        self.wrapper = self.file(f"run/lib/{name_of(b'x', 'wrapper', '.pyz')}", b"x")
        self.image = self.file("run/images/0123456789abcdef.sif")

    def file(self, name: str, content: bytes = b"") -> Path:
        path = self.state.parent / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def faults(self) -> list[tuple[Fault, Path]]:
        return [(finding.fault, finding.path) for finding in inspect(self.settings)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_by_the_programs_is_well(place: Place) -> None:
    place.run.chmod(0o755)
    assert place.faults() == []
    assert require_trust(place.settings) == ()


def test_what_is_not_there_is_no_fault(tmp_path: Path) -> None:
    settings = load({"state_dir": str(tmp_path / "a/b"), "run_dir": str(tmp_path / "c")}, environ={"HOME": "/nowhere"})
    assert require_trust(settings) == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("find", "before", "after"),
    [
        (lambda place: place.state, 0o755, 0o700),
        (lambda place: place.database, 0o644, 0o600),
        (lambda place: place.plans, 0o640, 0o600),
        (lambda place: place.run, 0o755, 0o755),
        (lambda place: place.run / "lib", 0o755, 0o700),
        (lambda place: place.wrapper, 0o644, 0o600),
        (lambda place: place.run / "images", 0o751, 0o700),
        (lambda place: place.image, 0o755, 0o600),
        (lambda place: place.jobs, 0o755, 0o700),
        (lambda place: place.run / "volumes", 0o755, 0o755),
    ],
)
def test_what_others_could_read_is_closed(place: Place, find: Callable[[Place], Path], before: int, after: int) -> None:
    path = find(place)
    path.chmod(before)
    notes = require_trust(place.settings)
    assert mode(path) == after
    assert notes == (() if before == after else (f"{path} could be read by others: mode {before:04o} → {after:04o}",))
    assert require_trust(place.settings) == ()


def test_folders_that_are_none_of_ours_keep_their_modes(place: Place) -> None:
    """RUN_DIR may lie in a folder that its user has for other things too."""
    results = place.run / "results"
    results.mkdir(mode=0o755)
    assert require_trust(place.settings) == ()
    assert mode(results) == 0o755


@pytest.mark.parametrize("open_to", [0o020, 0o002, 0o1002])
@pytest.mark.parametrize("name", ["state", "run", "database", "plans", "lib", "images", "jobs", "wrapper", "image"])
def test_what_others_may_write_is_refused(place: Place, name: str, open_to: int) -> None:
    path = {"lib": place.run / "lib", "images": place.run / "images"}.get(name) or getattr(place, name)
    path.chmod(mode(path) | open_to)
    with pytest.raises(TrustError) as refused:
        require_trust(place.settings)
    assert str(refused.value) == f"{path} may be written by others (mode {mode(path):04o}). Run: ai-factory secure"


@pytest.mark.parametrize("name", ["state", "run", "database", "lib", "images", "wrapper", "image"])
def test_what_another_owns_is_refused(place: Place, name: str) -> None:
    path = {"lib": place.run / "lib", "images": place.run / "images"}.get(name) or getattr(place, name)
    give_away(path)
    with pytest.raises(TrustError, match=f"{path} belongs to user {UID}.*to a new folder") as refused:
        require_trust(place.settings)
    assert "chown" not in str(refused.value)


def test_a_link_that_another_laid_is_anothers(place: Place) -> None:
    place.run.rename(place.run.with_name("elsewhere"))
    place.run.symlink_to("elsewhere")
    assert place.faults() == []
    give_away(place.run, follow_symlinks=False)
    assert (Fault.FOREIGN, place.run) in place.faults()


def test_a_supervisor_that_was_changed_is_refused(place: Place) -> None:
    place.wrapper.write_bytes(b"y")
    with pytest.raises(TrustError, match=f"{place.wrapper} does not hold what its name says. Set run_dir to a new"):
        require_trust(place.settings)


def test_a_supervisor_of_an_older_release_is_known_by_its_shorter_name(place: Place) -> None:
    place.file("run/lib/launch-2d711642b726.sh", b"x")
    place.file("run/lib/.launch-x.sh.draft", b"half")
    place.file("run/lib/notes.txt", b"of somebody's own")
    assert place.faults() == []
    changed = place.file("run/lib/launch-2d711642b727.sh", b"x")
    assert place.faults() == [(Fault.CHANGED, changed)]


@pytest.mark.parametrize("which", ["state", "run"])
def test_a_folder_that_anybody_can_replace_is_refused(tmp_path: Path, which: str) -> None:
    above = tmp_path / "above"
    above.mkdir()
    settings = load({f"{which}_dir": str(above / "mine")}, environ={"HOME": str(tmp_path / "home")}, config="/dev/null")
    above.chmod(0o1777)
    assert require_trust(settings) == ()
    above.chmod(0o777)
    with pytest.raises(TrustError, match=rf"Anybody could put another folder in the place of {above}/mine"):
        require_trust(settings)


def test_a_way_by_anothers_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    settings = load({"run_dir": str(link / "mine")}, environ={"HOME": str(tmp_path / "home")}, config="/dev/null")
    assert require_trust(settings) == ()
    give_away(link, follow_symlinks=False)
    with pytest.raises(TrustError, match=f"User {UID}, who laid that link, could put another folder"):
        require_trust(settings)


def test_a_groups_folder_above_is_only_told(tmp_path: Path) -> None:
    above = tmp_path / "project"
    above.mkdir()
    settings = load({"run_dir": str(above / "mine")}, environ={"HOME": str(tmp_path / "home")}, config="/dev/null")
    above.chmod(0o2770)
    (note,) = require_trust(settings)
    assert note.startswith(f"Above {above}/mine (run_dir) lies {above}, where its group ")
    above.chmod(0o700)
    give_away(above)
    (note,) = require_trust(settings)
    assert f"where user {UID}, who owns it, could put another folder" in note

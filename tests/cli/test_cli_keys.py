"""The installation's keys: rotated without a restart, dropped when nobody needs them, and never handed out."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
from cli_tools import LiveApi, Run

from api.contract.certificates import Authority
from api.contract.identity import new_id, read_keys
from api.contract.job.tls import Credentials, client_context, server_name
from api.contract.launch import LaunchSpec, Resources
from api.contract.recipes.spec import encode_spec
from tests.doors import KEY, NEWER_KEY, door_context, key_id, shake_hands, write_keys

OLD, NEWER = key_id(KEY), key_id(NEWER_KEY)
DIRECT = LaunchSpec(
    recipe="storage/db", kind="service", engine="generic", model=None, image=None, command=("x",),
    resources=Resources(), health=None,
)  # fmt: skip


@pytest.fixture
def key_file(live: LiveApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key file of this test's own, beside the API's database and a Slurm without jobs."""
    path, commands = tmp_path / "keys" / "installation.key", tmp_path / "bin"
    write_keys(path, KEY)
    commands.mkdir()
    (commands / "squeue").write_text(
        '#!/bin/sh\nfor word; do case $word in --format=*) echo "${word#*=}" ;; esac; done\n'
    )
    (commands / "squeue").chmod(0o755)
    given = {
        "STATE_DIR": live.folder / "state", "RUN_DIR": live.folder / "run", "KEY_FILE": path,
        "API_PORT": live.port, "SLURM_BIN_DIR": commands,
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"AI_FACTORY_{name}", str(value))
    return path


def service(live: LiveApi, name: str, door: str | None, spec: LaunchSpec | None = None, **columns: object) -> str:
    """Declare a service with one attempt."""
    key = new_id()
    live.sql("INSERT INTO services (id, name, recipe_name) VALUES (?, ?, 'inference/vllm_dummy')", key, name)
    live.attempt(key, door=door, digest="d", **columns)
    if spec is not None:
        live.observe(key, "AsWanted", ready=1)
        live.sql(
            "UPDATE service_status SET spec = ?, digest = 'd' WHERE service_id = ?", encode_spec(spec).decode(), key
        )
    return key


def listed(run: Run) -> dict[str, list[str]]:
    return {one["id"]: one["services"] for one in json.loads(run("key", "list", "-o", "json").out)}


def test_a_new_key_stands_first_and_the_old_ones_stay(run: Run, key_file: Path) -> None:
    for number in (2, 3):
        before = read_keys(key_file)
        ran = run("key", "rotate")
        assert (ran.code, ran.err) == (0, "")
        after = read_keys(key_file)
        assert (len(after), after[1:]) == (number, before)
        assert f"{Authority(after[0]).id} is the first key of {key_file}" in ran.out
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert run("key", "list", "-o", "name").out.split() == [Authority(key).id for key in read_keys(key_file)]
    assert "newest" in run("key", "list").out


def test_who_needs_a_key_is_told_and_what_nobody_needs_is_dropped(run: Run, live: LiveApi, key_file: Path) -> None:
    write_keys(key_file, NEWER_KEY, KEY)
    service(live, "one", OLD)
    service(live, "two", NEWER)
    ended = {"closed_at": 1.0, "outcome": "Stopped"}
    service(live, "ending", OLD, **ended)
    service(live, "gone", OLD, **ended, gone_at=2.0)
    assert listed(run) == {NEWER: ["two"], OLD: ["ending", "one"]}
    ran = run("key", "prune")
    assert (ran.code, "No key is dropped" in ran.out) == (0, True)
    live.sql("UPDATE attempts SET closed_at = 1.0, outcome = 'Stopped', gone_at = 2.0 WHERE door = ?", OLD)
    assert f"{OLD} is dropped" in run("key", "prune").out
    assert read_keys(key_file) == (NEWER_KEY,)


@pytest.mark.parametrize(("spec", "needed"), [(None, True), (DIRECT, False)], ids=["unknown", "asks for none"])
def test_engines_without_a_door_need_the_oldest_if_they_may_know_a_secret(
    run: Run, live: LiveApi, key_file: Path, spec: LaunchSpec | None, needed: bool
) -> None:
    write_keys(key_file, NEWER_KEY, KEY)
    service(live, "old", None, spec)
    assert listed(run) == {NEWER: [], OLD: ["old"] if needed else []}
    run("key", "prune")
    assert len(read_keys(key_file)) == (2 if needed else 1)


def test_the_newest_is_never_dropped(run: Run, key_file: Path) -> None:
    run("key", "prune")
    assert read_keys(key_file) == (KEY,)


def test_a_job_that_the_database_does_not_know_needs_its_key(
    run: Run, live: LiveApi, key_file: Path, tmp_path: Path
) -> None:
    """Dropped, it would be lost, and the job could not be asked any more once it is adopted."""
    write_keys(key_file, NEWER_KEY, KEY)
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    ran = run("key", "prune")
    assert (ran.code, read_keys(key_file)) == (1, (NEWER_KEY, KEY))
    assert "squeue" in ran.err


def test_with_now_what_needs_an_old_key_is_launched_anew(run: Run, live: LiveApi, key_file: Path) -> None:
    service(live, "one", OLD)
    service(live, "stopped", OLD)
    live.sql("UPDATE services SET desired_state = 'stopped' WHERE name = 'stopped'")
    service(live, "new", None, DIRECT)
    ran = run("key", "rotate", "--now")
    assert ran.code == 0, ran.err
    assert "one is launched anew" in ran.out
    marked = live.sql("SELECT name FROM services WHERE config LIKE '%restarted_at%'")
    assert marked == [("one",)]


def test_a_gateway_gets_no_key_of_the_installation(run: Run, key_file: Path, tmp_path: Path) -> None:
    write_keys(key_file, NEWER_KEY, KEY)
    folder = tmp_path / "gateway"
    for _ in range(2):
        ran = run("gateway", "credentials", str(folder))
        assert ran.code == 0, ran.err
    files = sorted(folder.iterdir())
    assert ran.out.split() and set(ran.out.split()) == {str(file) for file in files}
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        for key in (KEY, NEWER_KEY):
            assert key not in file.read_bytes()
            assert key.hex() not in file.read_text()
    for one in (OLD, NEWER):
        parts = {kind: (folder / f"{one}.{kind}").read_text() for kind in ("authority.pem", "client.pem", "client.key")}
        own = Credentials(certificate=parts["client.pem"], key=parts["client.key"])
        assert isinstance(client_context(own, parts["authority.pem"]), ssl.SSLContext)


def test_what_a_gateway_was_given_opens_nothing_that_is_launched_after_a_rotation(
    run: Run, key_file: Path, tmp_path: Path
) -> None:
    """So it is revoked: with `--now` nothing else is left; the others fetch theirs anew."""

    def given() -> tuple[str, Credentials]:
        assert run("gateway", "credentials", str(tmp_path / "gateway")).code == 0
        own = tmp_path / "gateway" / Authority(read_keys(key_file)[0]).id
        parts = [Path(f"{own}.{kind}").read_text() for kind in ("authority.pem", "client.pem", "client.key")]
        return parts[0], Credentials(certificate=parts[1], key=parts[2])

    def opens(own: Credentials, authority: str) -> bool:
        newest = read_keys(key_file)[0]
        try:
            shake_hands(door_context("t", newest), client_context(own, authority), server_name("t"))
        except ssl.SSLCertVerificationError:
            return False
        return True

    authority, stolen = given()
    assert opens(stolen, authority)
    assert run("key", "rotate", "--now").code == 0
    newer, own = given()
    assert opens(own, newer)
    assert not opens(stolen, newer)


def test_a_folder_that_others_may_write_to_is_refused(run: Run, key_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    ran = run("gateway", "credentials", str(folder))
    assert (ran.code, "Others may write to" in ran.err, list(folder.iterdir())) == (1, True, [])


def test_without_a_key_file_nothing_is_made(run: Run, key_file: Path, tmp_path: Path) -> None:
    key_file.unlink()
    for argv in (("key", "rotate"), ("key", "list"), ("key", "prune"), ("gateway", "credentials", str(tmp_path / "g"))):
        ran = run(*argv)
        assert (ran.code, "There is no key file" in ran.err) == (3, True)
    assert not key_file.exists()
    assert not (tmp_path / "g").exists()


def test_the_doctor_names_what_was_launched_without_a_door_though_it_would_get_one(
    run: Run, live: LiveApi, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LaunchSpec, "has_door", property(lambda spec: spec.recipe == "inference/vllm_dummy"))
    service(live, "new", OLD)
    service(live, "old", None)
    service(live, "ended", None, closed_at=1.0, outcome="Stopped")
    service(live, "stopped", None)
    live.sql("UPDATE services SET desired_state = 'stopped' WHERE name = 'stopped'")
    service(live, "direct", None)
    live.sql("UPDATE services SET recipe_name = 'vector-db/chroma' WHERE name = 'direct'")
    (found,) = [
        one for one in json.loads(run("doctor", "--no-job", "-o", "json").out) if one["name"] == "engines behind doors"
    ]
    assert found["state"] == "failed"
    assert found["message"].startswith("engines of old listen on ports of their nodes")
    assert found["remedy"] == "ai-factory services restart old"
    live.sql("UPDATE attempts SET closed_at = 1.0, outcome = 'Stopped'")
    found = next(
        one for one in json.loads(run("doctor", "--no-job", "-o", "json").out) if one["name"] == "engines behind doors"
    )
    assert found["state"] == "ok"

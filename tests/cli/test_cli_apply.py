"""Many services as files: apply, diff and export, against the API itself."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_tools import LiveApi, Run
from hypothesis import given
from hypothesis import strategies as st

from api.cli.errors import CliError
from api.cli.services.declarations import ServiceDeclaration, of_api, patch, read, same, write, write_all
from api.contract.exits import Exit
from api.http.patches import merge

RECIPE = "inference/vllm_dummy"
TWO = f"""\
# what the team wants
name: chat
recipe_name: {RECIPE}
replicas: 2
config:
  startup_delay: 1
  environment: {{A: "1", B: "2"}}
---
name: search
recipe_name: {RECIPE}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "services.yaml"
    file.write_text(TWO)
    return file


def exported(ask: Run, *names: str) -> list[dict[str, Any]]:
    return list(json.loads(ask("export", *names, "-o", "json").out))


def test_what_files_say_becomes_so(ask: Run, live: LiveApi, file: Path) -> None:
    ran = ask("apply", "-f", str(file), "--yes")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-2:] == ["chat created", "search created"]
    again = ask("apply", "-f", str(file))
    assert (again.code, again.out, again.err) == (0, "", "2 unchanged.\n")
    file.write_text(TWO.replace("replicas: 2", "replicas: 1").replace('A: "1", ', ""))
    ran = ask("apply", "-f", str(file), "--yes")
    lines = ran.out.splitlines()
    assert lines[:2] == ["--- chat (now)", "+++ chat (wanted)"]
    assert {"-replicas: 2", "+replicas: 1", "-    A: '1'"} <= set(lines)
    assert lines[-1] == "chat changed"
    assert exported(ask, "chat") == [
        {"name": "chat", "recipe_name": RECIPE, "replicas": 1,
         "config": {"startup_delay": 1, "environment": {"B": "2"}}},
    ]  # fmt: skip
    assert live.sql("SELECT name, generation FROM services ORDER BY name") == [("chat", 2), ("search", 1)]


def test_who_sees_a_service_is_declared_too(ask: Run, live: LiveApi, tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(f"name: ours\nrecipe_name: {RECIPE}\naccess: owner\n---\nname: all\nrecipe_name: {RECIPE}\n")

    def access() -> list[Any]:
        return [one.get("access") for one in exported(ask, "ours", "all")]

    assert ask("apply", "-f", str(file), "--yes").code == 0
    assert access() == ["owner", None]
    assert ask("apply", "-f", str(file), "--access", "everyone", "--yes").code == 0
    assert access() == ["owner", "everyone"]
    assert ask("apply", "-f", str(file)).err == "2 unchanged.\n", "what no file says stays as it is"
    file.write_text(file.read_text().replace("access: owner", "access: everyone"))
    assert "+access: everyone" in ask("diff", "-f", str(file)).out.splitlines()
    assert ask("apply", "-f", str(file), "--yes").code == 0
    assert access() == ["everyone", "everyone"]


def test_nothing_is_done_unasked(ask: Run, live: LiveApi, file: Path) -> None:
    ran = ask("apply", "-f", str(file))
    assert (ran.code, "--yes" in ran.err) == (Exit.USAGE, True)
    ran = ask("apply", "-f", str(file), "--dry-run")
    assert (ran.code, ran.err) == (0, "2 would be created, 0 unchanged.\n")
    assert "+name: chat" in ran.out
    assert live.sql("SELECT * FROM services") == []


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_on_a_terminal_people_are_asked(live: LiveApi, file: Path, answer: str, code: int) -> None:
    master, slave = pty.openpty()
    os.write(master, f"{answer}\n".encode())
    words = ["apply", "-f", str(file), "--server", live.url]
    ended = subprocess.run(
        [sys.executable, "-m", "api.cli", *words], stdin=slave, capture_output=True, text=True, check=False
    )
    os.close(slave)
    os.close(master)
    assert ended.returncode == code
    assert "2 to be created, 0 unchanged. Shall it be? [y/N]" in ended.stderr
    assert len(live.sql("SELECT * FROM services")) == (0 if code else 2)


def test_a_diff_says_by_its_exit_code_whether_there_is_one(ask: Run, file: Path) -> None:
    assert ask("diff", "-f", str(file)).code == 1
    ask("apply", "-f", str(file), "--yes")
    same_now = ask("diff", "-f", str(file))
    assert (same_now.code, same_now.out) == (0, "")
    ask("services", "scale", "chat", "5")
    ran = ask("diff", "-f", str(file), "-o", "json")
    (one,) = json.loads(ran.out)
    assert (ran.code, one["before"]["replicas"], one["after"]["replicas"]) == (1, 5, 2)


def test_a_diff_that_can_not_be_told_is_no_difference(run: Run, file: Path) -> None:
    assert run("diff", "-f", str(file), "--server", "http://127.0.0.1:9").code == Exit.UNREACHABLE


def test_what_is_exported_is_applied_unchanged(ask: Run, live: LiveApi, tmp_path: Path) -> None:
    ask("services", "create", RECIPE, "--name", "a", "--replicas", "3", "--set", "note=2026-01-02", "--set", "x=null")
    ask("services", "create", RECIPE, "--set", 'environment={"T": "yes"}')
    ask("services", "create", RECIPE, "--name", "b")
    ask("services", "stop", "b")
    ask("services", "create", RECIPE, "--name", "gone")
    ask("services", "delete", "gone")
    live.sql("UPDATE services SET replicas = 7 WHERE name = 'b'")
    file = tmp_path / "all.yaml"
    file.write_text(ask("export").out)
    assert file.read_text().count("---\n") == 2
    ran = ask("apply", "-f", str(file))
    assert (ran.code, ran.err) == (0, "3 unchanged.\n")
    live.sql("UPDATE services SET purge = 1")
    live.sql("DELETE FROM services")
    file.write_text(file.read_text().replace("vllm_dummy-", "vllm-dummy-"))  # what the API makes up, it does not take
    assert ask("apply", "-f", str(file), "--yes").code == 0
    assert ask("apply", "-f", str(file)).err == "3 unchanged.\n"
    assert live.sql("SELECT desired_state, replicas FROM services WHERE name = 'b'") == [("stopped", 7)]
    assert ask("export", "gone").code == Exit.NOT_FOUND


def test_prune_deletes_what_this_set_had_and_nothing_else(ask: Run, live: LiveApi, file: Path) -> None:
    ask("services", "create", RECIPE, "--name", "by-hand")
    assert ask("apply", "-f", str(file), "--as", "team-a", "--yes").code == 0
    other = file.parent / "other.yaml"
    other.write_text(f"name: theirs\nrecipe_name: {RECIPE}\n")
    assert ask("apply", "-f", str(other), "--as", "team-b", "--prune", "--yes").code == 0
    file.write_text(TWO.partition("---")[0])
    assert ask("diff", "-f", str(file), "--as", "team-a").code == 0
    shown = ask("apply", "-f", str(file), "--as", "team-a", "--prune", "--dry-run")
    assert "-name: search" in shown.out
    assert shown.err == "1 would be deleted, 1 unchanged.\n"
    ran = ask("apply", "-f", str(file), "--as", "team-a", "--prune", "--yes")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "search deleted")
    assert [one["name"] for one in exported(ask)] == ["by-hand", "chat", "theirs"]
    assert ask("apply", "-f", str(file)).err == "1 unchanged.\n"  # without --as it stays in its set
    file.write_text("# nobody\n")
    assert ask("apply", "-f", str(file), "--as", "team-a", "--prune", "--yes").out.endswith("chat deleted\n")
    refused = ask("apply", "-f", str(file), "--prune", "--yes")
    assert (refused.code, "--as SET" in refused.err) == (Exit.USAGE, True)


def test_one_refusal_does_not_hold_up_the_others(ask: Run, live: LiveApi, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(f"name: a\nrecipe_name: nonsense\n---\nname: b\nrecipe_name: {RECIPE}\n")
    ran = ask("apply", "-f", str(file), "--yes")
    assert (ran.code, ran.err.count("\n"), "1 of 2 changes were refused. a: Recipe" in ran.err) == (1, 1, True)
    assert live.sql("SELECT name FROM services") == [("b",)]


def test_what_can_not_become_of_a_service_stops_all(ask: Run, live: LiveApi, tmp_path: Path) -> None:
    ask("services", "create", RECIPE, "--name", "b")
    file = tmp_path / "f.yaml"
    file.write_text(f"name: a\nrecipe_name: {RECIPE}\n---\nname: b\nrecipe_name: simple/hello\n")
    ran = ask("apply", "-f", str(file), "--yes")
    assert (ran.code, "is made of inference/vllm_dummy" in ran.err) == (Exit.FAILED, True)
    assert live.sql("SELECT name FROM services") == [("b",)]


def test_a_service_that_others_changed_since_is_left_alone(ask: Run, live: LiveApi, file: Path) -> None:
    ask("apply", "-f", str(file), "--yes")
    file.write_text(TWO.replace("replicas: 2", "replicas: 1"))
    script = f"""
import sys, api.cli.services.apply as applying
from api.cli.main import main
ask = applying._ask
def meddle(*given):
    ask(*given)
    main(["services", "scale", "chat", "9", "--server", "{live.url}", "-o", "name"])
applying._ask = meddle
applying.sys.stdin.isatty = lambda: True
sys.exit(main(["apply", "-f", "{file}", "--server", "{live.url}"]))
"""
    master, slave = pty.openpty()
    os.write(master, b"y\n")
    ended = subprocess.run([sys.executable, "-c", script], stdin=slave, capture_output=True, text=True, check=False)
    os.close(slave)
    os.close(master)
    assert (ended.returncode, "has changed since" in ended.stderr) == (1, True), ended.stderr
    assert exported(ask, "chat")[0]["replicas"] == 9


def test_standard_input(ask: Run, live: LiveApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(TWO))
    assert ask("apply", "-f", "-", "--yes").code == 0
    assert len(live.sql("SELECT * FROM services")) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- a\n", "a service is a mapping"),
        ("name: a\n", "recipe_name: must be there"),
        ("name: 1\nrecipe_name: x\n", "name: must be there, and be text"),
        ("name: a\nrecipe_name: x\nreplica: 1\n", "replica: there is no such key"),
        ("name: a\nrecipe_name: x\nreplicas: 1.5\n", "replicas: must be a whole number"),
        ("name: a\nrecipe_name: x\nreplicas: true\n", "replicas: must be a whole number"),
        ("name: a\nrecipe_name: x\nreplicas: 2\nconfig: {replicas: 3}\n", "the config says 3"),
        ("name: a\nrecipe_name: x\nconfig: []\n", "config: must be a mapping"),
        ("name: a\nrecipe_name: x\ndesired_state: paused\n", "desired_state: must be running or stopped"),
        ("name: a\nrecipe_name: x\naccess: all\n", "access: must be one of owner, project, everyone"),
        ("name: a\nrecipe_name: x\nconfig: {at: 2026-01-02}\n", "A date must stand in quotes"),
        ("name: a\nname: b\n", 'neither YAML nor JSON: line 2: found duplicate key "name" with value "b" (original'),
        ("name: [\n", "neither YAML nor JSON"),
        (f"{TWO}---\n{TWO}", "declared twice"),
        (f"{TWO}---\nname: x\n", "document 3: recipe_name"),
        ("", "There is no service in"),
    ],
)
def test_files_that_are_none(run: Run, tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    ran = run("apply", "-f", str(file), "--yes")
    assert (ran.code, ran.err.count("\n"), why in ran.err) == (Exit.USAGE, 1, True), ran.err
    assert str(file) in ran.err


def test_a_file_that_is_not_there(run: Run) -> None:
    assert run("diff", "-f", "/nonsense").code == Exit.USAGE


# Declarations as text, and the patches between them

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(texts.filter(lambda key: key != "replicas"), values, max_size=4)
declarations = st.builds(
    ServiceDeclaration,
    name=st.just("a"),
    recipe_name=st.just("b/c"),
    replicas=st.none() | st.integers(0, 1000),
    desired_state=st.sampled_from(["running", "stopped"]),
    access=st.sampled_from([None, "owner", "project", "everyone"]),
    config=configs,
)


@given(st.lists(declarations, min_size=1, max_size=3))
def test_what_is_written_is_read_back(found: list[ServiceDeclaration]) -> None:
    back = read(write_all(found), "f")
    assert len(back) == len(found)
    assert all(same(one, other) for one, other in zip(back, found, strict=True))


@given(declarations, declarations)
def test_a_patch_makes_the_one_of_the_other(before: ServiceDeclaration, after: ServiceDeclaration) -> None:
    asked = patch(before, after)
    config = merge(dict(before.config), asked.get("config", {}))
    now = ServiceDeclaration(
        name="a",
        recipe_name="b/c",
        replicas=asked.get("replicas", before.replicas),
        desired_state=asked.get("desired_state", before.desired_state),
        access=asked.get("access", before.access),
        config=config,
    )
    assert same(now, after)
    assert patch(now, after) == {}


def test_replicas_beside_and_inside_the_config_are_one_number() -> None:
    given = {"name": "a", "recipe_name": "b", "config": {"replicas": "2"}, "replicas": 2, "desired_state": "running"}
    assert same(of_api(given), read("name: a\nrecipe_name: b\nreplicas: 2\n", "f")[0])
    assert same(of_api(given | {"replicas": None}), read("name: a\nrecipe_name: x/b\nconfig: {replicas: 2}\n", "f")[0])
    assert write(of_api(given)) == "name: a\nrecipe_name: b\nreplicas: 2\n"


def test_null_is_kept_where_it_is_and_can_not_be_patched_in() -> None:
    (one,) = read("name: a\nrecipe_name: b\nconfig: {e: {x: null}, y: 1}\n", "f")
    (two,) = read("name: a\nrecipe_name: b\nconfig: {e: {x: null}, y: 2}\n", "f")
    assert patch(one, two) == {"config": {"y": 2}}
    with pytest.raises(CliError, match=r"config\.e\.x: .*null"):
        patch(read("name: a\nrecipe_name: b\nconfig: {e: {}}\n", "f")[0], two)

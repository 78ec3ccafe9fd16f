"""`ai-factory images`: what it shows of the commands' answers, and all of it for real on one host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_tools import Run

from api.cli.images.words import origin, size
from api.contract.settings import Settings

IMAGE: dict[str, Any] = {
    "key": "a" * 16,
    "path": "/run/images/a.sif",
    "source": "docker://a/b",
    "definition": None,
    "sha256": "f" * 64,
    "size": 8_512_345_678,
    "made_at": "2026-01-02T03:04:05+00:00",
    "used_at": "2026-01-02T03:04:05+00:00",
}
USED = {**IMAGE, "services": ["chat", "other"], "jobs": ["af-i-s-0-1"]}
MADE = {**IMAGE, "made": True}
DAY = 86400.0
GOOD = {**IMAGE, "state": "ok", "message": "", "removed": False}
HEEDING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background was told to ignore it
from api.cli.main import main
sys.exit(main())
"""
THIN = 'Bootstrap: scratch\n%setup\n    mkdir -p "$APPTAINER_ROOTFS/usr"\n'


class Commands:
    """A stand-in for the controller's commands: what they answer, and what they were asked."""

    def __init__(self) -> None:
        self.answer: Any = []
        self.asked: list[tuple[Any, ...]] = []

    def sync(self, settings: Settings, *given: Any, **chosen: Any) -> Any:
        self.asked.append((*given, {name: value for name, value in chosen.items() if name != "tell"}))
        return self.answer

    async def listing(self, settings: Settings, tell: Any) -> Any:
        return self.answer

    async def later(self, settings: Settings, *given: Any, **chosen: Any) -> Any:
        return self.sync(settings, *given, **chosen)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    monkeypatch.setattr("api.cli.images.list.list_images", commands.listing)
    monkeypatch.setattr("api.cli.images.make.make_image", commands.later)
    monkeypatch.setattr("api.cli.images.verify.verify_images", commands.sync)
    monkeypatch.setattr("api.cli.images.prune.prune_images", commands.later)
    return commands


def test_the_list(run: Run, commands: Commands) -> None:
    commands.answer = [USED, {**IMAGE, "services": None, "jobs": None}]
    told = run("images", "list")
    lines = [line.split() for line in told.out.splitlines()]
    assert lines[0] == ["KEY", "IMAGE", "SIZE", "MADE", "USED", "SERVICES"]
    assert lines[1][:4] == ["a" * 16, "docker://a/b", "8.51", "GB"]
    assert lines[1][-2:] == ["chat,", "other"]
    assert lines[2][-1] == "?"
    assert "af-i-s-0-1" in run("images", "list", "-o", "wide").out
    assert run("images", "list", "-o", "name").out == f"{'a' * 16}\n" * 2
    assert json.loads(run("images", "list", "-o", "json").out)[0] == USED


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (["pull", "docker://a"], ("docker://a", {"where": None, "refresh": False})),
        (["pull", "inference/vllm", "--job", "--refresh"], ("inference/vllm", {"where": "job", "refresh": True})),
        (["build", "x.def", "--host"], ("x.def", {"where": "host", "refresh": False})),
        (["verify"], ([], {"remove": False})),
        (["verify", "ab", "cd", "--remove"], (["ab", "cd"], {"remove": True})),
        (["prune"], ({"unused_for": 30 * DAY, "dry": False},)),
        (["prune", "--unused-for", "0", "--dry-run"], ({"unused_for": 0.0, "dry": True},)),
    ],
)
def test_what_the_commands_are_asked(run: Run, commands: Commands, argv: list[str], asked: tuple[Any, ...]) -> None:
    commands.answer = MADE if argv[0] in ("pull", "build") else []
    assert run("images", *argv).code == 0
    assert commands.asked == [asked]


def test_prune_takes_the_settings_days(run: Run, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FACTORY_IMAGES_KEEP_DAYS", "7")
    assert run("images", "prune").err == "None removed, 0 B.\n"
    assert commands.asked == [({"unused_for": 7 * DAY, "dry": False},)]
    for days in ("-1", "nan", "inf"):
        assert run("images", "prune", f"--unused-for={days}").code == 2


def test_prune_tells_of_each(run: Run, commands: Commands) -> None:
    commands.answer = [{**IMAGE, "removed": True, "why": "unused"}, {**IMAGE, "removed": False, "why": "used by chat"}]
    told = run("images", "prune")
    assert told.out.splitlines() == [
        f"removed: {'a' * 16} (docker://a/b, 8.51 GB): unused",
        f"kept: {'a' * 16} (docker://a/b, 8.51 GB): used by chat",
    ]
    assert told.err == "1 removed, 8.51 GB.\n"
    assert run("images", "prune", "--dry-run").err == "1 to be removed, 8.51 GB.\n"
    assert run("images", "prune", "-o", "name").out == f"{'a' * 16}\n"


def test_verify_names_what_is_damaged_and_what_to_type(run: Run, commands: Commands) -> None:
    damaged = {**GOOD, "state": "damaged", "message": "its SHA-256 is another"}
    built = {**damaged, "source": None, "definition": "Bootstrap: scratch"}
    commands.answer = [GOOD, damaged, built, {**built, "removed": True}]
    told = run("images", "verify")
    assert told.code == 1
    assert [line.split()[2] for line in told.out.splitlines()[1:]] == ["ok", *["damaged"] * 3]
    assert told.err.splitlines() == [
        f"{'a' * 16}: damaged. Make it anew, while jobs go on: ai-factory images pull --refresh docker://a/b",
        f"{'a' * 16}: damaged. Remove it: ai-factory images verify {'a' * 16} --remove. The next job makes it anew.",
        f"{'a' * 16}: damaged and removed; the next job makes it anew.",
        "4 verified, 3 damaged.",
    ]


def test_words_for_sizes_and_origins() -> None:
    assert [size(n) for n in (0, 999, 65536, 8.5e9, 3e12)] == ["0 B", "999 B", "65.5 KB", "8.5 GB", "3 TB"]
    built = {"source": None, "definition": "bootstrap: docker\n  FROM : debian:12 # base\n"}
    assert origin(built) == "definition from debian:12"
    assert origin({"source": None, "definition": "x"}) == "definition"
    assert origin({"source": None, "definition": None}) == "unknown"


@pytest.fixture
def site(tmp_path: Path, apptainer: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AI_FACTORY_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("AI_FACTORY_APPTAINER_COMMAND", apptainer)
    (tmp_path / "thin.def").write_text(THIN)
    return tmp_path / "run" / "images"


def test_the_whole_of_it_for_real(run: Run, site: Path, tmp_path: Path) -> None:
    made = run("images", "build", str(tmp_path / "thin.def"))
    (image,) = site.glob("*.sif")
    assert (made.code, made.out.startswith(f"{image.stem} (definition, "), "is made" in made.out) == (0, True, True)
    assert run("images", "build", "nonsense").code == 5

    (listed,) = json.loads(run("images", "list", "-o", "json").out)
    assert (listed["key"], listed["services"]) == (image.stem, None), "there is no database yet"
    assert run("images", "prune").code == 3
    assert run("migrate").code == 0
    (listed,) = json.loads(run("images", "list", "-o", "json").out)
    assert (listed["services"], listed["jobs"], listed["definition"]) == ([], [], THIN)
    assert run("images", "prune").out.startswith(f"kept: {image.stem}")

    assert run("images", "verify", image.stem[:4]).code == 0
    assert run("images", "verify", "0000").code == 5
    image.write_bytes(b"not an image")
    assert run("images", "verify", "--remove").code == 1
    assert [path.name for path in site.iterdir() if path.is_file()] == [f"{image.stem}.lock"]


def test_ctrl_c_ends_the_build_and_leaves_nothing(site: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.def").write_text(THIN + f"    echo $$ >{tmp_path}/pid; exec sleep 600\n")
    command = [sys.executable, "-c", HEEDING, "images", "build", str(tmp_path / "slow.def")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as building:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            assert time.monotonic() < deadline
            assert building.poll() is None
            time.sleep(0.02)
        building.send_signal(signal.SIGINT)
        said = building.communicate(timeout=60)[1]
    assert building.returncode == 130
    assert said.splitlines()[-1] == "ai-factory: interrupted; nothing was made."
    assert [path.name for path in site.iterdir() if path.suffix != ".lock"] == ["making"]
    assert list((site / "making").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)

"""`make venv` makes an environment beside the one that is there: what runs goes on, and a failure changes nothing."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PYTHON = """#!/bin/bash
# A python3 of no environment, whose environments' own one says how an installation ends.
case "$*" in
  "-m venv "*)
    mkdir -p "$3/bin"
    own='case "$*" in *prefix*) exit 1;; *"pip install"*) echo "$*" >>{ends}.installed; exit $(cat {ends});; esac'
    printf '#!/bin/bash\\n%s\\n' "$own" >"$3/bin/python3"
    chmod +x "$3/bin/python3"; cp "$3/bin/python3" "$3/bin/python";;
esac
"""


class Checkout:
    """A copy of what `make venv` runs, and a PATH with a python3 that is quick."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.venv = self.folder / ".venv"
        self.ends = folder / "ends"
        self.ends.write_text("0")
        (self.folder / "deploy" / "local").mkdir(parents=True)
        script = self.folder / "deploy" / "local" / "make-venv"
        script.write_bytes((ROOT / "deploy" / "local" / "make-venv").read_bytes())
        script.chmod(0o755)
        (self.folder / "requirements.lock").touch()
        self._bin = folder / "bin"
        self._bin.mkdir()
        (self._bin / "python3").write_text(PYTHON.format(ends=self.ends))
        (self._bin / "python3").chmod(0o755)

    def make(self, *first: Path, dev: bool = False) -> subprocess.CompletedProcess[str]:
        path = ":".join(map(str, [*first, self._bin, "/usr/bin", "/bin"]))
        command = [str(self.folder / "deploy" / "local" / "make-venv"), ".venv", *(["dev"] if dev else [])]
        environment = os.environ | {"PATH": path}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    def installed(self) -> str:
        return self.ends.with_suffix(".installed").read_text()

    def environments(self) -> int:
        return len(list((self.folder / ".venvs").iterdir()))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_new_one_takes_the_place_of_the_old_which_stays_for_what_runs(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    first = checkout.venv.resolve()
    assert (checkout.venv / "bin" / "python").exists()
    assert checkout.make().returncode == 0
    second = checkout.venv.resolve()
    assert second != first
    assert first.exists(), "its programs may still run"
    assert checkout.make().returncode == 0
    assert not first.exists()
    assert second.exists()
    assert checkout.environments() == 2


def test_linters_and_tests_come_only_where_they_are_asked_for(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    assert "requirements.lock" in checkout.installed()
    assert "requirements-dev.lock" not in checkout.installed()
    assert checkout.make(dev=True).returncode == 0
    assert "requirements.lock" in checkout.installed().splitlines()[-2]
    assert "requirements-dev.lock" in checkout.installed().splitlines()[-2]


def test_no_program_needs_what_is_only_locked_for_tests() -> None:
    """What `make install` leaves out is what the project asks for in `dev` alone, and what that needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    left_out = {
        line.partition("==")[0] for line in (ROOT / "requirements-dev.lock").read_text().splitlines() if "==" in line
    }
    kept = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    wanted = {re.split(r"[\[<>=]", one)[0].replace(".", "-") for one in project["dependencies"]} | {
        "hatchling",
        "editables",
    }
    assert wanted <= kept
    assert not left_out & kept
    tools = {re.split(r"[\[<>=]", one)[0] for one in project["optional-dependencies"]["dev"]}
    assert tools - kept <= left_out
    assert {"pytest", "mypy", "ruff", "schemathesis"} <= left_out


def test_the_python_of_the_old_one_is_not_used_though_it_is_first_on_path(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    done = checkout.make(checkout.venv / "bin")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_fails_changes_nothing(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    before = checkout.venv.resolve()
    checkout.ends.write_text("1")
    failed = checkout.make()
    assert failed.returncode == 1
    assert "failed: " in failed.stderr
    assert checkout.venv.resolve() == before
    assert checkout.environments() == 1


def test_one_that_earlier_versions_made_is_replaced_and_kept(checkout: Checkout) -> None:
    (checkout.venv / "bin").mkdir(parents=True)
    assert checkout.make().returncode == 0
    assert checkout.venv.is_symlink()
    assert (checkout.folder / ".venvs" / "before" / "bin").exists()


def test_without_a_python_of_its_own_it_says_what_to_install(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "bin" / "python3").write_text("#!/bin/bash\nexit 1\n")
    script = checkout.folder / "deploy" / "local" / "make-venv"
    path = f"{tmp_path / 'bin'}:{tmp_path / 'tools'}"
    (tmp_path / "tools").mkdir()
    for tool in ("bash", "dirname", "mkdir", "env"):
        (tmp_path / "tools" / tool).symlink_to(f"/usr/bin/{tool}")
    done = subprocess.run(
        ["/bin/bash", script, ".venv"], cwd=checkout.folder, env={"PATH": path}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "apt install python3 python3-venv" in done.stderr

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import FakeApi, LiveApi, Ran, Run

from api.cli.main import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, so that no settings of whoever runs the tests count."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "NO_COLOR", "SLURM_CONF", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command line in this process."""

    def run(*argv: str) -> Ran:
        capsys.readouterr()
        try:
            code = main(argv)
        except SystemExit as ended:  # --help, --version
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as fake:
        yield fake


@pytest.fixture(scope="session")
def one_live_api(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[LiveApi]:
    api = LiveApi(tmp_path_factory.mktemp("live") / "site", sqlite_template)
    api.start()
    yield api
    api.stop()


@pytest.fixture
def live(one_live_api: LiveApi) -> LiveApi:
    """The API itself, shared by the tests; each finds it without a service."""
    one_live_api.sql("UPDATE services SET purge = 1")
    one_live_api.sql("DELETE FROM attempts")
    one_live_api.sql("DELETE FROM services")
    return one_live_api


@pytest.fixture
def ask(run: Run, live: LiveApi) -> Run:
    """Run one command line against it."""
    return lambda *argv: run(*argv, "--server", live.url)

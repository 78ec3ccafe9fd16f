"""What doctor says of nodes that jobs are kept off: the events of the last hour tell."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from backends import Backend

from api.cli.doctor.check import WarnedError
from api.cli.doctor.local import Local
from api.contract.settings import Settings


@pytest.fixture
def left_out(backend: Backend, tmp_path: Path) -> Local:
    asyncio.run(backend.run("INSERT INTO services (id, recipe_name) VALUES ('one', 'simple/tool')"))
    settings = Settings(
        state_dir=tmp_path, run_dir=tmp_path, recipes=(), database_url=backend.url, key_file=tmp_path / "key"
    )
    return Local(settings, None)


def ask(local: Local) -> str:
    (check,) = [check for check in local.program_checks() if check.name == "nodes that jobs are kept off"]
    return check.ask()


def tell(backend: Backend, reason: str, message: str, ago: float) -> None:
    at = time.time() - ago
    asyncio.run(
        backend.run(
            "INSERT INTO events (service_id, type, reason, message, count, first_at, last_at)"
            f" VALUES ('one', 'Warning', '{reason}', '{message}', 1, {at}, {at})"
        )
    )


def test_what_was_told_within_the_hour_is_warned_of(left_out: Local, backend: Backend) -> None:
    tell(backend, "NodesExcluded", "Its next jobs are kept off n1.", ago=30)
    tell(backend, "NodesExcluded", "Its next jobs are kept off n2.", ago=60)
    with pytest.raises(WarnedError, match="n1") as raised:
        ask(left_out)
    assert raised.value.remedy


def test_what_is_older_or_something_else_is_not(left_out: Local, backend: Backend) -> None:
    tell(backend, "NodesExcluded", "Its next jobs are kept off n1.", ago=3700)
    tell(backend, "Submitting", "Replica 0.", ago=1)
    assert ask(left_out) == "none in the last hour"

"""A job that the database does not know, taken over as its files say that it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from backends import Backend

from api.contract.database import Database
from api.contract.job.folder import PARAMETERS, STATE
from api.contract.job.parameters import Door, Parameters
from controller.commands.adopt import _stray, take
from controller.core.desired import Desired
from controller.core.jobs import Job, JobPhase

TOKEN = "af-i9-one-0-3"
JOB = Job(job_id=7, token=TOKEN, phase=JobPhase.RUNNING, state="RUNNING")
DESIRED = Desired(
    installation="i9", service_id="one", name="n", generation=1, running=True, replicas=1, spec=None, digest="d"
)
QUEUED = Parameters(command=("x",), door=Door(certificate="c", key="k", authority="a", id="k1")).to_json()


@pytest.mark.parametrize(
    ("name", "content", "door"),
    [
        (STATE, json.dumps({"step": "serving", "lane": "main", "door": "k1"}), "k1"),
        (STATE, json.dumps({"step": "serving"}), None),
        (PARAMETERS, QUEUED, "k1"),
        (PARAMETERS, json.dumps({"door": None}), None),
        (PARAMETERS, json.dumps({"door": {"id": 7}}), None),
    ],
    ids=["runs", "runs without", "is queued", "is queued without", "garbled"],
)
async def test_its_door_is_read_back(
    backend: Backend, database: Database, tmp_path: Path, name: str, content: str, door: str | None
) -> None:
    await backend.run("INSERT INTO services (id, recipe_name) VALUES ('one', 'r')")
    (tmp_path / name).write_text(content)
    await take(database, (_stray(JOB, tmp_path, DESIRED),), 5.0)
    assert await backend.run("SELECT token, job_id, door FROM attempts") == [(TOKEN, 7, door)]

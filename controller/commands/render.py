"""Show exactly what a service would submit, without submitting it."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from api.contract.job.folder import PARAMETERS, PROLOGUE
from api.contract.job.parameters import Door
from api.contract.job.token import Token
from api.contract.recipes.book import Library
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.keys import check_spelling
from api.contract.recipes.resolve import resolve
from api.contract.recipes.spec import digest
from api.contract.settings import Settings
from controller.bundle import launch_script
from controller.core.attempt import Attempt
from controller.core.script import parameters
from controller.images.jobs import has_to_be_made
from controller.rundir import SharedRunDirs
from controller.site import site
from controller.slurm.argv import submit_command

TOKEN = str(Token("INSTALLATION", "SERVICE", 0, 1))
ATTEMPT = Attempt(token=TOKEN, service_id="SERVICE", replica=0, incarnation=1, generation=1, digest="", intent_at=0.0)
OWN = "<the attempt's own>"
DOOR = Door(certificate=OWN, key=OWN, authority="<the installation's>", id="KEY")
IMAGE_JOB = "IMAGE-JOB"
"""The id of the job that makes the image, where there is none yet."""


def render(settings: Settings, name: str, config: dict[str, Any]) -> str:
    """Return the sbatch command, the batch script and the parameter file, as text; raises `ConfigError`."""
    book = Library(settings.recipes, settings.recipe).book()
    recipe = book.find(name)
    if recipe is None:
        raise ConfigError("", book.problem(name) or f"There is no recipe {name!r}.{book.similar(name)}")
    check_spelling(recipe, book, config)
    spec = resolve(recipe, config, replicas=None, site=settings.slurm)
    prologue = settings.slurm.prologue
    folder = SharedRunDirs(settings.run_dir, "INSTALLATION", prologue).job_folder("SERVICE", TOKEN)
    awaits_image = settings.images.build == "job" and spec.image is not None and has_to_be_made(settings, spec.image)
    submission = folder.submission(
        TOKEN,
        spec.resources,
        python=settings.slurm.python,
        comment="NAME",
        warning=settings.slurm.time_warning,
        after=IMAGE_JOB if awaits_image else None,
    )
    attempt = replace(ATTEMPT, digest=digest(spec))
    door = DOOR if spec.has_door else None
    told = parameters(spec, attempt, "<the attempt's own secret>", site(settings), door)
    parts = (
        ("sbatch", " \\\n    ".join(shlex.quote(word) for word in submit_command(submission))),
        (f"{Path(folder.launch_script).name} (the same for every job)", launch_script().rstrip()),
        (f"{PROLOGUE} (the site's)", prologue.rstrip() or "# none"),
        (f"{PARAMETERS} (mode 0600)", json.dumps(asdict(told), indent=2, ensure_ascii=False)),
    )
    return "\n\n".join(f"# --- {title}\n{text}" for title, text in parts)

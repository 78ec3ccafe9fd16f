"""Show exactly what a service would submit, without submitting it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from api.contract.recipes.book import Library
from api.contract.recipes.resolve import ConfigError, digest, resolve
from api.contract.settings import Settings
from controller.core.script import parameters
from controller.site import site
from controller.slurm.argv import submit_command, submit_options
from controller.wrapper.bundle import bundle, file_name, launch_script

TOKEN = "af-INSTALLATION-SERVICE-0-1"  # noqa: S105


def render(settings: Settings, name: str, config: dict[str, Any]) -> str:
    """Return the sbatch command, the batch script and the parameter file, as text; raises `ConfigError`."""
    book = Library(settings.recipes, settings.recipe).book()
    recipe = book.find(name)
    if recipe is None:
        raise ConfigError("", book.problem(name) or f"There is no recipe {name!r}. There are: {_names(book.recipes)}.")
    spec = resolve(recipe, config, replicas=None, site=settings.slurm)
    folder = str(settings.run_dir / "INSTALLATION" / "SERVICE" / TOKEN)
    options = submit_options(
        TOKEN,
        spec.resources,
        output=f"{folder}/stdout.log",
        error=f"{folder}/stderr.log",
        chdir=folder,
        warning_seconds=settings.slurm.time_warning,
        comment="NAME",
    )
    wrapper = file_name(bundle())
    library = settings.run_dir / "lib"
    arguments = (folder, str(library / wrapper), settings.slurm.python)
    command = submit_command(str(library / "launch.sh"), arguments, options)
    values = parameters(spec, TOKEN, digest(spec), "<the attempt's own secret>", site(settings))
    parts = (
        ("sbatch", " \\\n    ".join(shlex.quote(word) for word in command)),
        ("launch.sh (the same for every job)", launch_script().rstrip()),
        ("prologue.sh (the site's)", settings.slurm.prologue.rstrip() or "# none"),
        ("params.json (mode 0600)", json.dumps(values, indent=2, ensure_ascii=False)),
    )
    return "\n\n".join(f"# --- {title}\n{text}" for title, text in parts)


def _names(recipes: Any) -> str:
    return ", ".join(sorted(recipes))

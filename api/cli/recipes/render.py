"""`ai-factory recipes render`: the job that a recipe would become."""

from __future__ import annotations

import json

from api.cli.children import ask_controller
from api.cli.context import Context
from api.cli.set_flags import config_from
from api.contract.exits import Exit


def render(context: Context) -> Exit:
    """Print the batch script, the sbatch options and the parameters that a service would be started with."""
    arguments = context.arguments
    config = json.dumps(config_from(arguments.config_file, arguments.assignments))
    return ask_controller(context, "render", arguments.recipe, "--config-json", config)

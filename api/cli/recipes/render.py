"""`ai-factory recipes render`: the job that a recipe would become."""

from __future__ import annotations

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.set_flags import config_from
from api.contract.exits import Exit
from api.contract.recipes.errors import ConfigError
from controller.commands.render import render as rendered


def render(context: Context) -> Exit:
    """Print the batch script, the sbatch options and the parameters that a service would be started with."""
    arguments = context.arguments
    config = config_from(arguments.config_file, arguments.assignments)
    try:
        context.console.text(rendered(context.settings, arguments.recipe, config))
    except (ConfigError, ValueError) as error:
        raise CliError(str(error)) from error
    return Exit.OK

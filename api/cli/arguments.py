"""The whole command line's grammar. A command's function is imported when it is used."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter

from api.cli.api_keys import grammar as api_keys
from api.cli.errors import EXIT_CODES
from api.cli.images import grammar as images
from api.cli.keys import grammar as keys
from api.cli.parser import PROGRAM, Parser, epilog, global_flags
from api.cli.programs import grammar as programs
from api.cli.recipes import grammar as recipes
from api.cli.services import grammar as services
from api.cli.site import grammar as site
from api.cli.version import program_version

_EXAMPLES = (
    "up  # runs API and controller",
    "services create inference/vllm_dummy --name chat --wait",
    'prompt chat "Hello"',
    "logs chat -f",
)


def build() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog=PROGRAM,
        description="Keeps AI models alive as services on a Slurm cluster.",
        epilog=f"{epilog(_EXAMPLES)}\n\n{EXIT_CODES}",
        formatter_class=RawDescriptionHelpFormatter,
        parents=[global_flags()],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {program_version()}")
    parser.set_defaults(is_local=False)
    parser.set_defaults(config=None, server=None, output="table", color=True, formats=("table",), run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    programs.add(commands)
    services.add_services(commands)
    services.add_declared(commands)
    services.add_models(commands)
    recipes.add(commands)
    images.add(commands)
    api_keys.add(commands)
    keys.add(commands)
    site.add(commands)
    return parser

"""What the groups of commands are built with: parsers whose help teaches by example."""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Sequence
from textwrap import fill
from typing import Any, NoReturn, TypeAlias

from api.cli.errors import CliError
from api.contract.exits import Exit
from api.contract.spelling import did_you_mean

FORMATS = ("table", "wide", "json", "yaml", "name")
PROGRAM = "ai-factory"
WIDTH = 78
"""Columns of a help text."""


class Parser(ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise a `CliError` of usage."""
        raise CliError(f"{message}. See: {self.prog} --help", Exit.USAGE)

    def _check_value(self, action: Action, value: Any) -> None:
        """Refuse a command that there is not, and name those that it is like instead of all."""
        if isinstance(action, _SubParsersAction) and value not in action.choices:
            meant = did_you_mean(str(value), action.choices)
            raise CliError(f"There is no command {value}.{meant} See: {self.prog} --help", Exit.USAGE)
        super()._check_value(action, value)


Commands: TypeAlias = "_SubParsersAction[Parser]"


def global_flags() -> Parser:
    """Return flags that stand before or after the command."""
    common = Parser(add_help=False, allow_abbrev=False)
    group = common.add_argument_group("global flags")
    group.add_argument("--config", metavar="FILE", default=SUPPRESS, help="the TOML file with the settings")
    group.add_argument("-o", "--output", choices=FORMATS, default=SUPPRESS, help="how results are written")
    group.add_argument(
        "--server",
        metavar="URL",
        default=SUPPRESS,
        help="the API's address; else AI_FACTORY_SERVER",
    )
    group.add_argument("--no-color", dest="color", action="store_false", default=SUPPRESS, help="as NO_COLOR does")
    return common


def command(
    commands: Commands,
    name: str,
    run: str,
    about: str,
    *examples: str,
    formats: Sequence[str] = ("table",),
    more: str = "",
    is_local: bool = True,
) -> Parser:
    """Add a command that `run`, `module:function`, carries out.

    One that is local works with this host's settings, Slurm and database, and asks no API.

    `examples` are command lines without the program's name, each with what it is for after a `#`; `more` is a
    paragraph for the help.
    """
    parser = commands.add_parser(
        name,
        help=about,
        description=fill(f"{about[0].upper()}{about[1:]}. {more}", WIDTH),
        epilog=epilog(examples),
        formatter_class=RawDescriptionHelpFormatter,
        parents=[global_flags()],
        allow_abbrev=False,
    )
    parser.set_defaults(run=f"api.cli.{run}", formats=formats, is_local=is_local, parser=parser)
    return parser


def group(commands: Commands, name: str, about: str, *examples: str) -> Commands:
    """Add a group of commands."""
    parser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=epilog(examples),
        formatter_class=RawDescriptionHelpFormatter,
        parents=[global_flags()],
        allow_abbrev=False,
    )
    parser.set_defaults(group=parser)
    return parser.add_subparsers(title="commands", metavar="COMMAND")


def epilog(examples: Sequence[str]) -> str:
    """Lay examples out, their comments below each other."""
    parts = [example.partition("  # ") for example in examples]
    width = max((len(line) for line, _, about in parts if about), default=0)
    lines = [f"  $ {PROGRAM} {line:<{width}}{f'  # {about}' if about else ''}".rstrip() for line, _, about in parts]
    return "\n".join(["examples:" if len(lines) > 1 else "example:", *lines])


def service_argument(parser: Parser, **options: str) -> None:
    """Add the argument that names a service; `nargs` where it names several."""
    several = "nargs" in options
    parser.add_argument("services" if several else "service", metavar="ID", help="id or name", **options)  # type: ignore[arg-type]


def wait_flags(parser: Parser, what: str, seconds: float) -> None:
    """Add --wait and its --timeout."""
    parser.add_argument("--wait", action="store_true", help=f"wait {what}")
    timeout_flag(parser, seconds)


def timeout_flag(parser: Parser, seconds: float) -> None:
    """Add --timeout."""
    parser.add_argument("--timeout", type=float, default=seconds, metavar="S", help="seconds to wait (%(default)g)")


def config_flags(parser: Parser) -> None:
    """Add --set and --config-file."""
    parser.add_argument(
        "--set",
        dest="assignments",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a value of the config, JSON or text; dots lead into inner keys: resources.gpu=1",
    )
    parser.add_argument("--config-file", metavar="FILE", help="the config, YAML or JSON; --set is stronger")

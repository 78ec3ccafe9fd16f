"""The entry of `ai-factory`: read the command line, load the settings, run the command, say what went wrong."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from api.cli.arguments import build
from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.terminal.console import Console
from api.contract.configuration import load, process_environment
from api.contract.exits import Exit, ExitError

FLAG = "flag_"
Command = Callable[[Context], Exit]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see `api.contract.exits`)."""
    console = _console(colour=True)
    try:
        arguments = _parse(argv)
        console = _console(colour=arguments.color, is_yaml=arguments.output == "yaml")
        return int(command_of(arguments.run)(_context(arguments, console)))
    except ExitError as error:
        console.error(str(error))
        return int(error.code)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would interrupt the interpreter's own end
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        return int(Exit.BROKEN_PIPE)


def command_of(run: str) -> Command:
    """Import the function that carries out a command, from `module:function`."""
    module, _, function = run.partition(":")
    command: Command = getattr(importlib.import_module(module), function)
    return command


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = build()
    arguments = parser.parse_args(argv)
    if arguments.run is None:
        getattr(arguments, "group", parser).print_help(sys.stderr)
        raise CliError("Which command?", Exit.USAGE)
    if arguments.server is not None and arguments.is_local:
        raise CliError(
            f"{arguments.parser.prog} works on the controller's host, with its settings: it asks no server. "
            "Leave out --server, or type it there.",
            Exit.USAGE,
        )
    if arguments.output not in arguments.formats:
        formats = ", ".join(arguments.formats)
        raise CliError(f"This command can't write -o {arguments.output}. It knows: {formats}.", Exit.USAGE)
    return arguments


def _context(arguments: Namespace, console: Console) -> Context:
    given = {key.removeprefix(FLAG): value for key, value in vars(arguments).items() if key.startswith(FLAG)}
    flags = {path: str(value) for path, value in given.items() if value is not None}
    settings = load(flags, config=arguments.config)
    arguments.server = arguments.server or settings.server or None
    output = "json" if arguments.output == "yaml" else arguments.output
    return Context(arguments=arguments, settings=settings, flags=flags, console=console, output=output)


def _console(*, colour: bool, is_yaml: bool = False) -> Console:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    environment = process_environment()
    color = colour and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    return Console(color=color, is_yaml=is_yaml)

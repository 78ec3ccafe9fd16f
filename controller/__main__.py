"""`python -m controller run`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from api.contract.configuration import load
from api.contract.descriptors import raise_limit
from api.contract.exits import Exit, ExitError
from api.contract.log import log_to_stderr
from api.contract.settings import Settings
from api.contract.trust import require_trust
from controller.app import build
from controller.installation import Installation, open_installation

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until TERM or INT; return its exit code (see `api.contract.exits`)."""
    options = _parser().parse_args(arguments)
    try:
        settings = load(config=options.config)
        log_to_stderr(settings)
        for note in require_trust(settings):
            log.warning("a folder is not closed to others", extra={"found": note})
        raise_limit()
        asyncio.run(_run(settings))
    except ExitError as error:
        return _say(error, error.code)
    except ValueError as error:
        return _say(error, Exit.FAILED)
    return Exit.OK


async def _run(settings: Settings) -> None:
    async with open_installation(settings) as installation:
        await _until_told(installation)


async def _until_told(installation: Installation) -> None:
    controller = build(installation)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    await controller.run(ending)


def _say(error: Exception, code: Exit) -> int:
    print(f"ai-factory controller: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controller", description="Run the controller.")
    parser.add_argument("--config", metavar="FILE", help="the TOML file with the settings")
    parser.add_argument("command", choices=["run"], help="the only one; all others are those of ai-factory")
    return parser


if __name__ == "__main__":
    sys.exit(main())

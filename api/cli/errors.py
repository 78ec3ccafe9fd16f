"""The error of a command, and what its exit code says to people."""

from __future__ import annotations

from api.contract.exits import Exit, ExitError

EXIT_CODES = """\
exit codes:
  0    done
  1    the thing itself failed: refused, failed, or a check that is not well
  2    the command line is wrong; nothing was done
  3    settings, key file or database schema are not as they should be; or a service can never start as it is
  4    the API can't be reached, or its port can't be had
  5    there is no such service, recipe or generation
  6    not within the time given; it may still come about
  130  interrupted (Ctrl-C)"""


class CliError(ExitError):
    """Ends the command."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code

"""The exit codes of `ai-factory` and of the programs that it starts, and the error that carries one."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a script may rely on."""

    OK = 0
    """Done."""
    FAILED = 1
    """The thing itself failed: refused by the API, a service that failed, a check or a recipe that is not well."""
    USAGE = 2
    """The command line is wrong; nothing was done."""
    SETUP = 3
    """Settings, key file or database schema are not as they should be."""
    UNREACHABLE = 4
    """The API can't be reached; or, for the API itself, its port can't be had."""
    NOT_FOUND = 5
    """There is no such service or recipe."""
    TIMED_OUT = 6
    """What was waited for did not come about in time; it may still do so."""
    INTERRUPTED = 130
    """Ctrl-C."""
    BROKEN_PIPE = 141
    """Whoever read the output closed it, as `head` does."""


EXIT_CODES = """\
exit codes:
  0    done
  1    the thing itself failed: refused, failed, or a check that is not well
  2    the command line is wrong; nothing was done
  3    settings, key file or database schema are not as they should be
  4    the API can't be reached, or its port can't be had
  5    there is no such service or recipe
  6    not within the time given; it may still come about
  130  interrupted (Ctrl-C)"""


class CliError(Exception):
    """Ends the command. The message says on one line what is the matter, and then what to do about it."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code

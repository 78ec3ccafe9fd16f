"""How programs end: the exit codes that a script may rely on, and errors that carry one."""

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
    """Settings, key file or database schema are not as they should be; or a job can never start on this cluster."""
    UNREACHABLE = 4
    """The API can't be reached; or, for the API itself, its port can't be had."""
    NOT_FOUND = 5
    """There is no such service, recipe or generation."""
    TIMED_OUT = 6
    """What was waited for did not come about in time; it may still do so."""
    INTERRUPTED = 130
    """Ctrl-C."""
    BROKEN_PIPE = 141
    """Whoever read the output closed it, as `head` does."""


class ExitError(Exception):
    """Ends a program. The message says on one line what is the matter, and then what to do about it."""

    code = Exit.FAILED

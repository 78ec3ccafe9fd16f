"""Why an engine gave no proof of being well: it answered wrongly, or there is no way to it from this host."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from api.contract.asking import NotConnectedError

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_NOBODY_THERE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTrouble:
    """What is wrong with an engine."""

    message: str
    reached: bool = True
    """Whether there was a connection."""
    counts: bool = True
    """Whether it speaks against the engine or its node; what may be this host's own network does not."""


def without_a_way(error: BaseException, url: str) -> ProbeTrouble | None:
    """Judge an error by which nobody was asked; `None`: it tells nothing of the way to that engine in particular.

    That there is no such name is the answer of a name service, and not its silence (EAI_AGAIN).
    """
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_NAME:
            return ProbeTrouble(message=f"{url}: this host knows no address of that name", reached=False)
        if isinstance(cause, OSError) and cause.errno == errno.ENETUNREACH:
            return ProbeTrouble(message=f"{url}: this host has no route to that network", reached=False, counts=False)
    return None


def is_reached(error: BaseException) -> bool:
    """Whether somebody took the connection, as far as the error of who asked tells."""
    causes = [*_causes(error)]
    if any(isinstance(cause, ssl.SSLError | ConnectionResetError) for cause in causes):
        return True
    refused = any(isinstance(cause, OSError) and cause.errno in _NOBODY_THERE for cause in causes)
    return not (refused or isinstance(error, NotConnectedError))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__

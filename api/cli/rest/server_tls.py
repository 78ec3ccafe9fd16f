"""Which certificate of a server is good."""

from __future__ import annotations

import ssl
from pathlib import Path

from api.cli.errors import CliError
from api.contract.exits import Exit
from api.contract.settings import Settings


def tls_of(settings: Settings, named: str | None = None) -> ssl.SSLContext | None:
    """Return what knows the server that is named, else the API of the settings; `None`: it is asked without TLS.

    Raises `CliError` (set-up).
    """
    if named is None:
        return None if settings.api.tls_certificate is None else _own(settings.api.tls_certificate)
    if not named.startswith("https:"):
        return None
    authority = settings.server_authority
    return ssl.create_default_context() if authority is None else _trusting(authority, "server_authority")


def _own(certificate: Path) -> ssl.SSLContext:
    """Take that very certificate, under any address."""
    context = _trusting(certificate, "api.tls_certificate")
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be its own authority
    return context


def _trusting(certificates: Path, setting: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(certificates)
    except OSError as error:
        reason = error.strerror or "it holds no certificates"
        raise CliError(f"{setting} ({certificates}) can't be used: {reason}.", Exit.SETUP) from error
    return context

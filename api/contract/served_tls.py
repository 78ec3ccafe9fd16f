"""The certificate that the API and the gateway show to their clients, read again when its files change."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

from api.contract.exits import Exit, ExitError
from api.contract.job.private import open_regular
from api.contract.settings import ApiSettings

_Version = tuple[tuple[int, int, int], ...]

log = logging.getLogger(__name__)


class ServedTlsError(ExitError):
    """The certificate can't be used, or there is none where one is needed; the message says what to do."""

    code = Exit.SETUP


class ServedTls:
    """The context for new connections. Files that come to be unusable change nothing: what was read before stands."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files, PEM; the certificate's has the chain too. Raises `ServedTlsError`."""
        self._files = certificate, key
        self._version = self._seen()
        self._context = self._read()

    def context(self) -> ssl.SSLContext:
        """Return the context as the files have it now. Connections that are open keep theirs."""
        version = self._seen()
        if version != self._version:
            self._version = version
            try:
                self._context = self._read()
            except ServedTlsError as error:
                log.warning("the former certificate is shown: %s", error)
        return self._context

    def _seen(self) -> _Version | None:
        """Return what tells the files from what they were before; `None`: they can't be looked at."""
        try:
            found = [path.stat() for path in self._files]
        except OSError:
            return None
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def _read(self) -> ssl.SSLContext:
        certificate, key = self._files
        try:
            with open_regular(key) as file:
                is_open = os.fstat(file.fileno()).st_mode & 0o007
            if is_open:
                raise ValueError(f"others may read the key. Run: chmod o= {key}")
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
            reason = getattr(error, "strerror", None) or error
            raise ServedTlsError(
                f"The certificate {certificate} (api.tls_certificate) with the key {key} (api.tls_key) can't be used: "
                f"{reason}. Both must be PEM, belong together, and be this user's to read."
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        return context


def served_tls(settings: ApiSettings) -> ServedTls | None:
    """Return what is to be shown; `None`: HTTP is served. Raises `ServedTlsError`."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return ServedTls(settings.tls_certificate, settings.tls_key)


def require_tls(host: str, setting: str, settings: ApiSettings) -> None:
    """Raise `ServedTlsError` for an address that other hosts reach, where keys and prompts would pass in clear."""
    if settings.tls_certificate is None and not settings.plain_http:
        raise ServedTlsError(
            f"{setting} is {host}, which other hosts can reach, and keys and prompts would pass the network in clear. "
            "Name a certificate (api.tls_certificate, api.tls_key); or set api.plain_http = true, if a proxy in front "
            f"speaks TLS and only it can reach this address; or set {setting} to 127.0.0.1."
        )


def _no_password() -> str:
    raise ValueError("the key is encrypted")

"""Mutual TLS between a job's door and those who come to it: names, protocols, and the contexts of both sides.

Each side shows a certificate of the installation's authority and asks for the other's. OpenSSL checks the purpose of
each (RFC 5280, extended key usage): what proves an attempt opens no door, and what opens doors poses as no attempt.
"""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

HTTP = "http/1.1"
WATCH = "ai-factory-watch"
"""Protocol (ALPN, RFC 7301) of a connection that the door itself keeps open until the engine ends."""

CONTROLLER = "controller"
"""The kind of client that asks engines how they are: doors that drain let it in."""

TLS_1_2 = "ECDHE+AESGCM"
"""All that is spoken of it; what there is of TLS 1.3 is good."""


@dataclass(frozen=True)
class Credentials:
    """A certificate and its private key, both PEM."""

    certificate: str
    key: str = field(repr=False)


@lru_cache(maxsize=1024)
def server_name(token: str) -> str:
    """Return the name in the certificate of an attempt's door. Names compare without case and have 63 characters."""
    return base64.b32encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=").lower()


def server_context(own: Credentials, authority: str) -> ssl.SSLContext:
    """Return the context of a door, which opens to clients of this authority (PEM) alone."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, own, authority)
    context.set_alpn_protocols([HTTP, WATCH])
    context.num_tickets = 0  # nobody resumes a session
    context.options = context.options | ssl.OP_NO_RENEGOTIATION
    return context


def client_context(own: Credentials, authority: str, protocol: str = HTTP) -> ssl.SSLContext:
    """Return the context of a client; the `server_name` of the attempt that it wants to talk to goes with each use."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, own, authority)
    context.set_alpn_protocols([protocol])
    return context


def _context(protocol: int, own: Credentials, authority: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS_1_2)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags = context.verify_flags | ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=authority)
    with _file(own.key + own.certificate) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _file(text: str) -> Iterator[str]:
    """Give a name to what must lie on no disk: `ssl` loads keys from files only."""
    try:
        descriptor = os.memfd_create("credentials")
    except (AttributeError, OSError):  # a C library older than 2.27
        with tempfile.NamedTemporaryFile("w") as file:  # of mode 0600
            file.write(text)
            file.flush()
            yield file.name
        return
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)

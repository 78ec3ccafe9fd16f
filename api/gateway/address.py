"""Where clients reach the gateway."""

from __future__ import annotations

import socket

from api.contract.doors import base_url
from api.contract.listeners import EVERYWHERE
from api.contract.settings import Settings


def gateway_url(settings: Settings) -> str:
    """Return the site's word for it, else where the API listens."""
    if settings.gateway.url:
        return settings.gateway.url.rstrip("/")
    host = socket.gethostname() if settings.api.host in EVERYWHERE else settings.api.host
    return base_url(host, settings.api.port, has_door=settings.api.tls_certificate is not None)

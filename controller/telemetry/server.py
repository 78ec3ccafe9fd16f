"""/metrics and /health, on a port of their own."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from api.contract.exits import Exit, ExitError
from controller.telemetry.health import Doctor
from controller.telemetry.metrics import Metrics

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


class PortError(ExitError):
    """The address can't be listened on; the message says why."""

    code = Exit.UNREACHABLE


@asynccontextmanager
async def serving(host: str, port: int, metrics: Metrics, doctor: Doctor) -> AsyncIterator[int]:
    """Answer while this is open, on the port that is yielded; raises `PortError`."""

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": TEXT_FORMAT})

    async def show_health(_: web.Request) -> web.Response:
        health = await doctor.examine()
        status = 503 if health.stale else 200
        return web.Response(body=msgspec.json.encode(health), status=status, content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/metrics", show_metrics), web.get("/health", show_health)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listening = _listen(host, port)
        await web.SockSite(runner, listening).start()
        yield int(listening.getsockname()[1])
    finally:
        await runner.cleanup()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise PortError(
            f"The controller can't listen on {host} port {port}: {reason}. "
            "Stop what listens there, or set controller.metrics_port to another, or to 0."
        ) from error

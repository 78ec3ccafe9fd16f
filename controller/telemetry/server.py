"""/metrics and /health, on a port of their own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from api.contract.accept import Acceptor
from api.contract.listen import listen
from controller.telemetry.health import Doctor
from controller.telemetry.metrics import Metrics

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
CONNECTION_SECONDS = 10.0
"""For a connection, from its beginning to its end: whoever asks is answered within a few."""


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
    remedy = "Stop what listens there, or set controller.metrics_port to another, or to 0."
    listening = listen(host, port, who="The controller", remedy=remedy)
    await runner.setup()
    server = runner.server
    assert server is not None
    acceptor = Acceptor(listening, lambda _: server(), uid=os.getuid(), lifetime=CONNECTION_SECONDS)
    acceptor.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        acceptor.close()
        await runner.cleanup()

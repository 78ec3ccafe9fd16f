"""The bare framework, to compare with: one route, no database, served as the API is. Prints its port."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
import uvloop
from litestar import Litestar, Request, get, post

ANSWER = {"id": "first222", "name": "vllm_dummy-first222", "status": "running"}


@get("/")
async def _show() -> dict[str, str]:
    return ANSWER


@post("/", status_code=200)
async def _take(request: Request[Any, Any, Any]) -> dict[str, str]:
    await request.json()
    return ANSWER


def main() -> None:
    """Serve until told to end."""
    app = Litestar([_show, _take], openapi_config=None, logging_config=None)
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(app, http="httptools", ws="none", access_log=False, log_config=None, server_header=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    main()

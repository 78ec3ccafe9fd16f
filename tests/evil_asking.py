"""`python -m tests.evil_asking PORTS`: ask evil engines in each of our ways; print as JSON what it cost and told."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from api.contract.doors import Doors
from api.contract.launch import Health
from api.gateway.engines import NO_ANSWER, Engines, UnreachableError
from api.gateway.entrance import AskedService
from api.gateway.forward import Forwarder
from api.gateway.pool import Pool
from api.http.exposition import engine_texts, exposition
from api.http.prompt_requests import PromptRequest
from api.http.prompts import Prompts, done, gone
from api.web.replicas import ReadyReplica
from controller.clock import SystemClock
from controller.cluster.probes import HttpProbes
from controller.core.attempt import Attempt, ProbeSpec
from tests.doors import keyring_of

AT_ONCE = 3
ROW: Any = SimpleNamespace(
    id="y", name="y", replicas=1, ready_replicas=1, generation=1, observed_generation=1, created_at=0.0,
    conditions=(), deletion_requested_at=None, desired_state="running",
)  # fmt: skip
REQUEST = PromptRequest(messages=[{"role": "user", "content": "hi"}], prompt="hi", model=None, options={})


class Stall:
    """The longest that the event loop was kept busy, in seconds of this thread's own time: others' load is no stall."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.thread_time() - before)


def ways(port: int) -> dict[str, Callable[[], Awaitable[Any]]]:
    replica = ReadyReplica(token="af-x-y-0-1", name="y-0", models=("m",), host="127.0.0.1", port=port, door=None)
    doors = Doors(keyring_of(Path(tempfile.mkdtemp()) / "installation.key"), "api")
    engines = Engines(Forwarder(Pool(doors)))
    prompts, service = Prompts(engines), AskedService("y", "y", [replica])

    async def models() -> str:
        try:
            return f"{(await engines.get([replica], '/v1/models')).status}"
        except NO_ANSWER as error:
            return str(error)

    async def prompt() -> str:
        try:
            answer = await prompts.answer(service, "digest", REQUEST)
        except UnreachableError as error:
            answer = gone(error)
        return str(answer)[:300]

    async def stream() -> str:
        last = b""
        try:
            async for event in prompts.stream(service, "digest", REQUEST):
                last = event
        except UnreachableError as error:
            last = done(gone(error))
        return last[:300].decode()

    async def metrics() -> str:
        told = await asyncio.to_thread(exposition, ROW, await engine_texts(engines, [replica]))
        return next(line for line in told.decode().splitlines() if line.startswith("ai_factory_service_engine_up"))

    async def probe() -> str:
        probes = HttpProbes(SystemClock(), doors, print, None)  # type: ignore[arg-type]
        attempt = Attempt(token="af-x-y-0-1", service_id="y", replica=0, incarnation=1, generation=1, digest="d",
                          intent_at=0.0, host="127.0.0.1", port=port, serving_at=1.0)  # fmt: skip
        health = Health(path="/health", interval=1, timeout=5, retries=3)
        found = await probes.once(attempt, ProbeSpec(health=health, engine="vllm", model="m"))
        assert found is not None
        return found.message

    return {"models": models, "prompt": prompt, "stream": stream, "metrics": metrics, "probe": probe}


async def cost(ask: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    stall = Stall()
    watching = asyncio.create_task(stall.watch())
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
    before, begun = peak(), time.thread_time()
    told = await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    watching.cancel()
    return {
        "grown_mib": (peak() - before) / 1024,
        "stalled": round(stall.longest, 3),
        "busy": round(time.thread_time() - begun, 3),
        "told": told[0],
    }


def peak() -> int:
    """Return the most memory that this process has had, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


async def main(ports: dict[str, int]) -> None:
    for mode, port in ports.items():
        for how, ask in ways(port).items():
            print(json.dumps({"mode": mode, "how": how, **await cost(ask)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))

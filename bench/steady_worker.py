"""One controller with N services at rest on the simulated Slurm: `python -m bench.steady_worker CONFIG N PORT`.

It prints a line of JSON once it has adopted them, waits for a line, and prints the figures of its rest.
"""

from __future__ import annotations

import asyncio
import json
import sys

from api.contract.configuration import load
from bench.observed import Observed, observed
from bench.simulated import simulated_controller

TICKS = 20


async def main(config: str, services: int, port: int) -> None:
    """Adopt, rest, and be asked for more."""
    settings = load(config=config)
    async with observed(await simulated_controller(settings, port)) as seen:
        adopted = await seen.calm(services) - seen.began
        _say(adopted_wall=adopted.wall, adopted_cpu=adopted.cpu, adopted_passes=seen.passes)
        await asyncio.to_thread(sys.stdin.readline)
        _say(**await _rest(seen), **await _asked(seen, services))


async def _rest(seen: Observed) -> dict[str, float]:
    """Let it be, from one reading to the next."""
    first, before = await seen.next_reading()
    passes = seen.passes
    second, after = await seen.next_reading()
    span = second - first
    return {
        "commands_a_minute": (after.total() - before.total()) * 60 / span.wall,
        "core_share": span.cpu / span.wall,
        "passes_at_rest": seen.passes - passes,
    }


async def _asked(seen: Observed, services: int) -> dict[str, object]:
    """Have it read, and look at everything."""
    ticks = await seen.ticks(TICKS)
    everything = await seen.passes_of_all(services)
    return {"ticks": [tick.cpu for tick in ticks], "pass": everything.cpu / services}


def _say(**figures: object) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

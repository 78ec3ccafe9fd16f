"""Waking all who wait for the same thing."""

from __future__ import annotations

import asyncio


class Bell:
    """Rings for all. Who takes the `next` ring before looking, and waits for it after, misses none."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait."""
        self.next.set()
        self.next = asyncio.Event()


async def rung(ring: asyncio.Event, seconds: float) -> bool:
    """Wait for a ring; say whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            await ring.wait()
    except TimeoutError:
        return False
    return True

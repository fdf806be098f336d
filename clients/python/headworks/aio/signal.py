"""Waiting for a change within one event loop: a condition without a lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Signal:
    """Something that may have changed."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify_all(self) -> None:
        """Wake everybody who waits."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for the next change."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def wait_for(self, condition: Callable[[], object], seconds: float | None = None) -> bool:
        """Wait until the condition holds; False where it does not in time."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self.wait()
        except TimeoutError:
            return False
        return True

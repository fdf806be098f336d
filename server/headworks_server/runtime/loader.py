"""One thread, of low priority once others are served, for what takes long and must not disturb serving.

That is loads and evictions, in order.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

# Loads one after the other cost busy lanes a third of their batches and more at 0, about half of that at 10, and at 19
# no less. The loop hardly notices any of them, as long as no function holds the interpreter's lock for long: a thread
# that waits for a core holds it for many times as long.
NICENESS: Final = 10

P = ParamSpec("P")
T = TypeVar("T")


class LoaderThread:
    """Runs functions one after the other."""

    def __init__(self) -> None:
        """Start nothing yet: the thread comes with the first function."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="headworks-loader")

    async def lower_priority(self) -> None:
        """Step back behind the rest of the process, for good.

        Threads that a function starts later have the low priority, too: not for what loads sessions with threads of
        their own.
        """
        await self.run(_lower_priority, NICENESS)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the thread, behind those that were asked for before.

        A caller who is cancelled takes back a function that has not begun; one that has begun runs to its end.

        Raises:
            RuntimeError: the thread is closed.
        """
        future = self._executor.submit(function, *args, **kwargs)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for what runs, cancel what waits. Idempotent; not on the event loop, which would wait, too."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _lower_priority(niceness: int) -> None:
    with suppress(OSError, AttributeError):  # Linux, where a thread has a priority of its own
        thread = threading.get_native_id()
        # The kernel stops at 19.
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)

"""The event loop seen from outside: how late it runs its timers, and a way for other threads to read what it owns.

`app.py` starts the watch and hands the reader to the metrics server.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Protocol, TypeVar

from headworks_server.clock import NS_PER_S, Clock, monotonic_ns
from headworks_server.telemetry.histogram import Histogram

LAG_PERIOD_S = 0.25  # four timers a second cost nothing, and a stall of a second is seen four times
READ_TIMEOUT_S = 5.0  # below the 10 s that Prometheus waits for a scrape
T = TypeVar("T")


class Reader(Protocol):
    """Calls a function where what it reads stands still, and returns its result."""

    def __call__(self, collect: Callable[[], T], /) -> T:
        """Call `collect`; raises TimeoutError if it could not be called in time."""
        ...


def on_loop(loop: asyncio.AbstractEventLoop) -> Reader:
    """A reader for other threads: the function runs on the loop's thread, between two of its callbacks."""

    def read(collect: Callable[[], T], /) -> T:
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return  # the reader has given up
            try:
                answer.set_result(collect())
            except BaseException as error:
                answer.set_exception(error)

        loop.call_soon_threadsafe(run)
        try:
            return answer.result(READ_TIMEOUT_S)
        except concurrent.futures.TimeoutError:
            answer.cancel()
            raise

    return read


def watch_loop(loop: asyncio.AbstractEventLoop, lag: Histogram, *, clock: Clock = monotonic_ns) -> Callable[[], None]:
    """Observe into `lag` how late the loop runs a timer, four times a second; the returned function ends it.

    Called on the loop's thread. The loop's own clock is not used: uvloop's moves in milliseconds.
    """
    period_ns = int(LAG_PERIOD_S * NS_PER_S)
    due_ns = clock() + period_ns
    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal due_ns, timer
        now_ns = clock()
        lag.observe(max(0, now_ns - due_ns))  # a timer of a coarse clock may be a little early
        due_ns = now_ns + period_ns
        timer = loop.call_later(LAG_PERIOD_S, tick)

    timer = loop.call_later(LAG_PERIOD_S, tick)
    return lambda: timer.cancel()

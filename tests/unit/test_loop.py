"""The event loop seen from outside: lag is measured, and other threads read between its callbacks."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headworks_server.telemetry import loop as loop_module
from headworks_server.telemetry.histogram import Histogram
from headworks_server.telemetry.loop import on_loop, watch_loop

MS = 1_000_000


class HandTurnedLoop:
    """A loop whose timers fire when the test says so."""

    def __init__(self) -> None:
        self.timers: list[HandTurnedLoop.Timer] = []

    class Timer:
        def __init__(self, callback: object) -> None:
            self.callback = callback
            self.cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

    def call_later(self, _delay: float, callback: object) -> Timer:
        self.timers.append(self.Timer(callback))
        return self.timers[-1]


def test_lag_is_how_late_the_timer_came() -> None:
    """30 ms late, then in time, then a little early, which counts as in time; the end cancels the timer."""
    now_ns = 0
    lag = Histogram()
    loop = HandTurnedLoop()
    stop = watch_loop(loop, lag, clock=lambda: now_ns)  # type: ignore[arg-type]
    for late_ms in (30, 0, -1):
        now_ns += (250 + late_ms) * MS
        loop.timers[-1].callback()  # type: ignore[operator]
    assert (sum(lag.counts), lag.sum_ns) == (3, 30 * MS)
    stop()
    assert [timer.cancelled for timer in loop.timers] == [False, False, False, True]


def test_read_runs_on_the_loops_thread_and_brings_back_errors() -> None:
    """The caller is another thread."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        read = on_loop(loop)
        assert await loop.run_in_executor(None, lambda: read(threading.get_ident)) == threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: read(lambda: 1 // 0))

    asyncio.run(serve())


def test_read_gives_up_where_the_loop_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape fails then; it does not hang, and the late loop has nothing left to do."""
    monkeypatch.setattr(loop_module, "READ_TIMEOUT_S", 0.01)
    loop = asyncio.new_event_loop()
    called: list[int] = []
    with pytest.raises(TimeoutError):
        on_loop(loop)(lambda: called.append(1))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert called == []

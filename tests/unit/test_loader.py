"""The loader thread: one thing after the other, in order, of low priority, and never in the loop's way."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from headworks_server.runtime.loader import NICENESS, LoaderThread


def priority() -> int:
    """The nice value of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_functions_run_one_after_the_other_in_the_order_of_asking() -> None:
    """On one thread, which is not the loop's."""

    async def main() -> None:
        loader, order = LoaderThread(), []

        def work(number: int) -> tuple[int, int]:
            order.append(number)
            return number, threading.get_native_id()

        results = await asyncio.gather(*(loader.run(work, number) for number in range(20)))
        loader.close()
        assert order == [number for number, _ in results] == list(range(20))
        threads = {thread for _, thread in results}
        assert len(threads) == 1
        assert threading.get_native_id() not in threads

    asyncio.run(main())


def test_the_thread_alone_has_low_priority() -> None:
    """Lower than the loop's, whatever that was started with; the loop keeps its own."""

    async def main() -> None:
        loader, ours = LoaderThread(), priority()
        assert await loader.run(priority) == ours, "a start is in nobody's way"
        await loader.lower_priority()
        assert await loader.run(priority) == min(19, ours + NICENESS)
        assert priority() == ours
        loader.close()

    asyncio.run(main())


def test_an_error_reaches_the_one_who_asked() -> None:
    """And the next function runs as ever."""

    async def main() -> None:
        loader = LoaderThread()
        with pytest.raises(ZeroDivisionError):
            await loader.run(divmod, 1, 0)
        assert await loader.run(divmod, 7, 2) == (3, 1)
        loader.close()

    asyncio.run(main())


def test_closing_finishes_what_runs_and_cancels_what_waits() -> None:
    """The thread is gone afterwards; closing twice is allowed."""

    async def main() -> None:
        loader, started, release, ran = LoaderThread(), threading.Event(), threading.Event(), []

        def running() -> str:
            started.set()
            release.wait()
            return "finished"

        first = asyncio.ensure_future(loader.run(running))
        second = asyncio.ensure_future(loader.run(ran.append, 1))
        await asyncio.to_thread(started.wait)
        closing = asyncio.get_running_loop().run_in_executor(None, loader.close)
        with pytest.raises(asyncio.CancelledError):
            await second
        release.set()
        await closing
        assert await first == "finished"
        assert ran == []
        loader.close()

    asyncio.run(main())


def test_one_who_stops_waiting_takes_his_turn_back() -> None:
    """What has not begun is not run; what has begun runs to its end."""

    async def main() -> None:
        loader, started, release, ran = LoaderThread(), threading.Event(), threading.Event(), []

        def running() -> None:
            started.set()
            release.wait()
            ran.append("running")

        first = asyncio.ensure_future(loader.run(running))
        second = asyncio.ensure_future(loader.run(ran.append, "waiting"))
        await asyncio.to_thread(started.wait)
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        release.set()
        await loader.run(ran.append, "last")
        loader.close()
        assert ran == ["running", "last"]

    asyncio.run(main())

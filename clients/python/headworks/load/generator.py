"""Runs a load plan: opens the cameras, keeps their clock, closes them, and measures itself while it does.

Frames are due by a clock that nothing holds up, the server least of all: a frame that could not be sent in time still
ages from the moment it was due (no coordinated omission). How late the clock itself was is measured too, for then it
is the generator that is slow.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from headworks import aio
from headworks.load.camera import LoadCamera
from headworks.load.plan import LoadPlan

OPENING_AT_ONCE = 16


@dataclass(slots=True)
class LoadRun:
    """What came of a plan.

    Attributes:
        plan: what was to be done.
        cameras: all of them, closed.
        seconds: the measured time, as it was.
        late_ms: how late each frame was offered, after it was due; empty in a closed loop.
        cpu_s: CPU time of this process in the measured time.
    """

    plan: LoadPlan
    cameras: list[LoadCamera]
    seconds: float
    late_ms: array[float]
    cpu_s: float

    @property
    def failures(self) -> list[str]:
        """A sentence for each camera whose stream did not end well."""
        return [f"{camera.name}: {camera.failure}" for camera in self.cameras if camera.failure is not None]


async def run_load(
    plan: LoadPlan, connect: Callable[[int], aio.Client], *, progress: Callable[[float], None] | None = None
) -> LoadRun:
    """Run a plan to its end.

    `connect` makes the client of the camera of that number: each has a connection of its own, as cameras have. A stream
    that is refused or breaks is told in its camera's `failure`; the others go on. `progress` is told the share of the
    time that has passed, a few times a second.
    """
    cameras = [LoadCamera(number, plan) for number in range(plan.cameras)]
    clients = [connect(number) for number in range(plan.cameras)]
    gate = asyncio.Semaphore(OPENING_AT_ONCE)

    async def open_camera(camera: LoadCamera, client: aio.Client) -> None:
        async with gate:
            await camera.open(client)

    try:
        await asyncio.gather(*map(open_camera, cameras, clients))
        measured = await _keep_the_clock(plan, cameras, progress or (lambda _share: None))
        await asyncio.gather(*(camera.close() for camera in cameras))
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    return LoadRun(plan, cameras, *measured)


async def _keep_the_clock(
    plan: LoadPlan, cameras: list[LoadCamera], progress: Callable[[float], None]
) -> tuple[float, array[float], float]:
    """Offer every frame when it is due; returns (measured seconds, how late frames were in ms, CPU seconds)."""
    late_ms = array("d")
    begin_ns = time.monotonic_ns() + 50_000_000
    start_ns = begin_ns + int(plan.warm_s * 1e9)
    until_ns = start_ns + int(plan.seconds * 1e9)
    for camera in cameras:
        camera.begin(start_ns, until_ns)
    watch = asyncio.create_task(_watch(start_ns, until_ns, progress))
    if not plan.closed:
        period_ns = 1e9 / (plan.fps * len(cameras))
        for number in range(round((plan.warm_s + plan.seconds) * plan.fps) * len(cameras)):
            due_ns = begin_ns + int(number * period_ns)
            ahead_s = (due_ns - time.monotonic_ns()) / 1e9
            # Every now and then the cameras must have their turn, however late the clock is.
            if ahead_s > 0 or number % 64 == 0:
                await asyncio.sleep(max(0.0, ahead_s))
            if due_ns >= start_ns:
                late_ms.append((time.monotonic_ns() - due_ns) / 1e6)
            cameras[number % len(cameras)].offer(due_ns)
    seconds, cpu_s = await watch
    return seconds, late_ms, cpu_s


async def _watch(start_ns: int, until_ns: int, progress: Callable[[float], None]) -> tuple[float, float]:
    """Wait for the measured time, and measure its length and this process's CPU time in it."""
    await asyncio.sleep(max(0.0, (start_ns - time.monotonic_ns()) / 1e9))
    cpu_s, began_ns = time.process_time(), time.monotonic_ns()
    while (left_s := (until_ns - time.monotonic_ns()) / 1e9) > 0:
        progress(1 - left_s * 1e9 / (until_ns - start_ns))
        await asyncio.sleep(min(left_s, 0.25))
    progress(1.0)
    return (time.monotonic_ns() - began_ns) / 1e9, time.process_time() - cpu_s

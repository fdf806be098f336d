"""One camera of a load run: a stream of the asyncio client, fed by the generator's clock, its answers measured.

Frames wait in a backlog of their own before they are offered, so that what EVERY_FRAME or a closed loop has no room for
still ages from when it was due. There is no reconnecting: a stream that breaks is a finding.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

import headworks
from headworks import aio
from headworks.account import Account
from headworks.load.plan import LoadPlan
from headworks.load.record import STAGES, CameraRecord


class LoadCamera:
    """One camera.

    Attributes:
        name: of its stream.
        record: what was measured.
        opened: what the server granted.
        failure: why its stream did not end well.
    """

    def __init__(self, number: int, plan: LoadPlan) -> None:
        self.name = f"load {number + 1}"
        self.record = CameraRecord()
        self.opened: headworks.Opened | None = None
        self.failure: str | None = None
        self._plan = plan
        self._next = number * len(plan.pictures) // max(1, plan.cameras)
        self._backlog: deque[int] = deque()  # when the frames were due that have not been offered
        self._due = asyncio.Event()
        self._ending = False
        self._start_ns = 0
        self._until_ns = 0
        self._stream: aio.FrameStream | None = None
        self._sender: asyncio.Task[None] | None = None
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    @property
    def account(self) -> Account | None:
        """Where every frame has gone so far; None where there is no stream."""
        return None if self._stream is None else self._stream.account

    async def open(self, client: aio.Client) -> None:
        """Open the stream; a refusal is noted as the failure."""
        plan = self._plan
        stream = client.stream(
            plan.model or None,
            name=self.name,
            policy=plan.policy.kind,
            depth=plan.policy.depth,
            drop=plan.policy.drop,
            deadline_ms=plan.deadline_ms,
            weight=plan.weight,
            reconnect=False,
            on_result=self._on_result,
            on_drop=self._on_drop,
            on_error=self._on_error,
            on_lost=_nothing,
            on_notice=_nothing,
            on_connection=_nothing,
        )
        try:
            self._stream = await stream.__aenter__()
        except headworks.HeadworksError as error:
            self.failure = str(error)
            return
        self.opened = stream.opened
        self._sender = asyncio.create_task(self._send(self._stream))

    def begin(self, start_ns: int, until_ns: int) -> None:
        """The measured time is from `start_ns`; in a closed loop frames follow each other until `until_ns`."""
        self._start_ns, self._until_ns = start_ns, until_ns
        for _ in range(self._plan.closed):
            self.offer(time.monotonic_ns())

    def offer(self, due_ns: int) -> None:
        """A frame is due, whether or not it can be sent: its age counts from now."""
        self._backlog.append(due_ns)
        self._due.set()

    async def close(self) -> None:
        """Send what is still due, say that no frame follows, and read to the end."""
        if self._stream is None or self._sender is None:
            return
        self._ending = True
        self._due.set()
        try:
            await self._sender
            await self._stream.close()
        except headworks.HeadworksError as error:
            self.failure = str(error)

    async def _send(self, stream: aio.FrameStream) -> None:
        pictures, backlog = self._plan.pictures, self._backlog
        while True:
            if not backlog:
                if self._ending:
                    return
                self._due.clear()
                await self._due.wait()
                continue
            due_ns = backlog.popleft()
            picture = pictures[self._next % len(pictures)]
            self._next += 1
            await stream.send(
                picture.data,
                encoding=picture.encoding,
                width=picture.width,
                height=picture.height,
                capture_time_ns=self._epoch_ns + due_ns,
            )

    # --- outcomes

    def _on_result(self, result: headworks.Result) -> None:
        record, now_ns = self.record, time.monotonic_ns()
        record.due_s.append((now_ns - self._start_ns) / 1e9 - result.age_s)
        record.ages_ms.append(result.age_s * 1e3)
        record.round_trips_ms.append(result.round_trip_s * 1e3)
        for stage in STAGES:
            record.stages_ms[stage].append(getattr(result.timings, f"{stage}_us") / 1e3)
        record.batches[result.batch_size] += 1
        record.deadline_missed += result.deadline_missed
        for output in result.outputs:
            record.found += len(output.detections) + len(output.classifications)
        self._follow(1, now_ns)

    def _on_drop(self, dropped: headworks.Dropped) -> None:
        now_ns = time.monotonic_ns()
        self.record.drops_s.extend([(now_ns - self._start_ns) / 1e9] * dropped.total)
        self._follow(dropped.total, now_ns)

    def _on_error(self, _error: headworks.FrameError) -> None:
        now_ns = time.monotonic_ns()
        self.record.failed_s.append((now_ns - self._start_ns) / 1e9)
        self._follow(1, now_ns)

    def _follow(self, answered: int, now_ns: int) -> None:
        """In a closed loop the next frame follows an outcome."""
        if self._plan.closed and now_ns < self._until_ns:
            for _ in range(answered):
                self.offer(now_ns)


def _nothing(_told: object) -> None:
    """Accounts and failures tell it."""

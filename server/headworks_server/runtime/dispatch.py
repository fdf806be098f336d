"""The loop's side of the lanes: pumps admission when a frame arrives or room appears, and takes tickets back.

One per process, on the event loop. A wake of the completion ring's descriptor brings a batch; its frames get their
outcomes, admission fills the room, and only then are the writers woken, so that a frame's outcome and the credit of
the next leave in one write.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, cast

from headworks_native.lane import FAILED, CompletionRing, Ticket
from headworks_server.core.admission import AdmissionPool
from headworks_server.core.events import NoticeKind
from headworks_server.core.frame import Frame
from headworks_server.core.model import ServedModel
from headworks_server.core.outcomes import FrameErrorCode


class Stream(Protocol):
    """What the dispatcher knows of a frame's stream."""

    def ticket_done(self, ticket: Ticket, now_ns: int) -> None:
        """Give the ticket's frame its outcome."""
        ...

    def wake_if_due(self, now_ns: int) -> None:
        """Write what is due."""
        ...


class HealthListener(Protocol):
    """Whoever tells the world of a model's health."""

    def health_changed(self, model: ServedModel, kind: NoticeKind, now_ns: int) -> None:
        """Take in a change."""
        ...


class Dispatcher:
    """Pumps pools and drains completions.

    Arguments:
        completions: where all lanes push.
        pools: all pools, pumped whenever a lane wakes the loop.
    """

    def __init__(self, completions: CompletionRing, pools: list[AdmissionPool]) -> None:
        self._completions = completions
        self._pools = pools
        self._listener: HealthListener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, listener: HealthListener) -> None:
        """Begin to watch the completion ring."""
        self._loop, self._listener = loop, listener
        loop.add_reader(self._completions.fileno(), self.drain)

    def detach(self) -> None:
        """Stop watching. Idempotent."""
        if self._loop is not None:
            self._loop.remove_reader(self._completions.fileno())
            self._loop = None

    def pump(self, pool: AdmissionPool, now_ns: int, asking: object) -> None:
        """Admit what the pool's lanes have room for, and wake the streams whose frames moved, but the one that asks."""
        for frame in pool.pump(now_ns):
            if frame.stream is not asking:
                frame.stream.wake_if_due(now_ns)

    def drain(self) -> None:
        """Take finished tickets back, then fill the room they left."""
        tickets = self._completions.drain()
        now_ns = time.monotonic_ns()
        streams: dict[Stream, None] = {}
        for ticket in tickets:
            stream: Stream = cast(Frame, ticket.frame).stream
            streams[stream] = None
            self._account(ticket, cast(ServedModel, ticket.seat), now_ns)
            stream.ticket_done(ticket, now_ns)
        for pool in self._pools:
            for frame in pool.pump(now_ns):
                streams[frame.stream] = None
        for stream in streams:
            stream.wake_if_due(now_ns)

    def _account(self, ticket: Ticket, model: ServedModel, now_ns: int) -> None:
        """Feed the estimates of the lane and the model, and the model's health, once a batch.

        The model is the ticket's, not its stream's, which may have moved to another generation meanwhile.
        """
        estimate = model.pool.estimates[0]
        estimate.returned(1)
        model.queue.in_lanes -= 1
        if not ticket.leads_batch:
            return
        failed = ticket.status == FAILED and ticket.error_code == FrameErrorCode.ENGINE_FAILED
        if failed:
            kind = model.health.batch_failed(ticket.detail)
        else:
            kind = model.health.batch_done()
            decode_ns = ticket.decoded_ns - ticket.decode_started_ns
            batch_ns = ticket.executed_ns - ticket.launched_ns
            estimate.measured(decode_ns=decode_ns, batch_ns=batch_ns, size=ticket.batch_size, now_ns=now_ns)
            model.queue.times.add(decode_ns=decode_ns, batch_ns=batch_ns, size=ticket.batch_size)
            model.executed_ns += batch_ns
        if kind is not None and self._listener is not None:
            self._listener.health_changed(model, kind, now_ns)

"""One camera's call: reads into its session, writes what is due, and ends the call as the session says.

The handler coroutine supervises; a reader and a writer task do the work. None of them is ever cancelled while it
waits for gRPC, and a CancelledError that gRPC sends into the handler is raised on: both leak a batch of operations
otherwise (grpc#43360). Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import grpc

from headworks.v1 import frame_pb2 as pb
from headworks_native import wire
from headworks_server.core.events import NoticeKind, OpenedEvent
from headworks_server.core.leases import LeaseRefusedError
from headworks_server.core.readiness import Readiness
from headworks_server.rpc import codec
from headworks_server.rpc.call import FrameCall
from headworks_server.rpc.opening import OpenRefusedError
from headworks_server.rpc.status import STATUS

if TYPE_CHECKING:
    from headworks_server.rpc.service import FrameService

CLOSE_WRITE_S = 5.0  # how long a client that reads nothing may hold up its Closed
TORN_S = 0.05  # from the end of what can be read to the news that the connection is gone
MAX_NAME = 64


class StreamCall(FrameCall):
    """One open call of StreamFrames."""

    def __init__(self, service: FrameService, context: grpc.aio.ServicerContext[bytes, bytes], stream_id: int) -> None:
        super().__init__(service, context, stream_id)
        self._wakeup: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._last_call_timer: asyncio.TimerHandle | None = None
        self._writes = 0
        self._ended = False
        self._starved = False  # whether the client was told that there is no room for its model

    # The call.

    async def serve(self) -> None:
        """Run the call to its end."""
        reader = self._loop.create_task(self._read())
        writer = self._loop.create_task(self._write())
        try:
            await self._done
        except asyncio.CancelledError:
            self._abandon()
            raise
        finally:
            self._stop_timers()
            self._wake()  # the writer looks once more and ends
        if self._refusal is not None:
            await self._abort(*self._refusal)
        status = self.session.finished
        assert status is not None
        if status.kind != "ok":
            await self._abort(STATUS[status.kind], status.detail)
        # A pending read ends by itself once the call has: neither task is awaited or cancelled.
        del reader, writer

    async def _read(self) -> None:
        """Read until the client has nothing more to say. The server never stops reading a stream before that."""
        context, receive = self._context, self._receive
        try:
            while (raw := await context.read()) is not grpc.aio.EOF:
                receive(raw, time.monotonic_ns())
        except (grpc.aio.BaseError, grpc.aio.UsageError, asyncio.CancelledError):
            return  # the call is over; the handler hears of it by itself
        except Exception as error:
            self._defect(error)
            return
        if self._ended:
            return
        # A client that half-closes without End means the same. But a torn connection reads alike at first, and only
        # then cancels the handler.
        await asyncio.sleep(TORN_S)
        if not self._done.done():
            self._end(time.monotonic_ns())

    async def _write(self) -> None:
        session = self.session
        try:
            while session.finished is None and not self._done.done():
                now_ns = time.monotonic_ns()
                if session.has_due(now_ns):
                    self._writes += 1
                    await self._context.write(codec.encode_events(session.poll(now_ns), self._opened_entry))
                else:
                    self._set_timer(now_ns)
                    self._wakeup = self._loop.create_future()
                    await self._wakeup
                    self._wakeup = None
        except (grpc.aio.BaseError, grpc.aio.UsageError, asyncio.CancelledError):
            return  # the peer is gone
        except Exception as error:
            self._defect(error)
            return
        self._conclude()

    # What the client sends.

    def _receive(self, raw: bytes, now_ns: int) -> None:
        try:
            message = codec.parse_request(raw)
        except codec.MalformedRequestError as error:
            self.session.protocol_error(str(error), now_ns)
            self._wake()
            return
        if isinstance(message, wire.FrameMessage):
            self._receive_frame(message, now_ns)
        elif isinstance(message, pb.Ping):
            self.session.receive_ping(message.nonce, now_ns)
        elif isinstance(message, pb.Open):
            self._receive_open(message, now_ns)
        else:
            self._end(now_ns)
        self.wake_if_due(now_ns)

    def _receive_open(self, request: pb.Open, now_ns: int) -> None:
        if self.model is not None:
            self.session.protocol_error("a second Open", now_ns)
            return
        try:
            opening = self._service.resolve(request)
            self._service.leases.lease(opening.model, now_ns)
        except (OpenRefusedError, LeaseRefusedError) as refusal:
            self._refuse(STATUS[refusal.kind], refusal.detail)
            return
        self.lease.take(self.session, now_ns)
        self.name = request.stream_name[:MAX_NAME]
        self._open(opening, now_ns)
        self._service.opened(self)

    def _end(self, now_ns: int) -> None:
        self._ended = True
        self.session.receive_end(now_ns)
        self.wake_if_due(now_ns)

    # What the server says.

    def notice(self, kind: NoticeKind, detail: str, now_ns: int) -> None:
        """Tell the client of a change of its model."""
        model = self.model.facts.name if self.model is not None else ""
        self.session.notice(kind, now_ns, detail=detail, model=model)
        self.wake_if_due(now_ns)

    def _lease_refused(self, detail: str, now_ns: int) -> None:
        if not self._starved:
            super()._lease_refused(detail, now_ns)
            self._starved = True
            self.notice(NoticeKind.DEGRADED, detail, now_ns)

    def engine_changed(self, now_ns: int) -> None:
        """Take in that the model's engine has come or gone; a stream that it was refused to is told, too."""
        if self._starved and self.model is not None and self.model.readiness is Readiness.READY:
            self._starved = False
            self.notice(NoticeKind.RESTORED, "there is room for the model again", now_ns)
        super().engine_changed(now_ns)

    def drain(self, grace_ns: int, now_ns: int) -> None:
        """Begin to shut the stream down: the end of the grace must come even where the writer is stuck."""
        super().drain(grace_ns, now_ns)
        self._set_timer(now_ns)

    def wake_if_due(self, now_ns: int) -> None:
        """Wake the writer if there is something to write, or the time to look again has changed."""
        if self._wakeup is None or self.session.has_due(now_ns):
            self._wake()
        else:
            self._set_timer(now_ns)

    def _opened_entry(self, event: OpenedEvent) -> bytes:
        assert self.model is not None
        return codec.opened_entry(event, self.model.facts, self._service.wire_limits, self.stream_id)

    def _wake(self) -> None:
        if self._wakeup is None:
            if self.session.closing:
                self._last_call()
        elif not self._wakeup.done():
            self._wakeup.set_result(None)

    # Time.

    def _set_timer(self, now_ns: int) -> None:
        """Look again when the session asks for it. An earlier look does no harm, so a timer is seldom moved."""
        wakeup_ns = self.session.next_wakeup_ns()
        if wakeup_ns is None or self._done.done():
            return
        if self._timer is not None:
            if self._timer_ns <= wakeup_ns:
                return
            self._timer.cancel()
        self._timer_ns = wakeup_ns
        self._timer = self._loop.call_later(max(wakeup_ns - now_ns, 0) / 1e9 + 1e-4, self._on_timer)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._last_call_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._last_call_timer = None

    def _on_timer(self) -> None:
        self._timer = None
        now_ns = time.monotonic_ns()
        self.session.tick(now_ns)
        if self.session.wants_admission:  # of a frame that has waited for its time
            self._admit(now_ns)
        self._wake()
        self._set_timer(now_ns)

    def _last_call(self) -> None:
        """The session is closing and the writer is stuck: end the call unless it gets on within CLOSE_WRITE_S."""
        if self._last_call_timer is None:
            self._last_call_timer = self._loop.call_later(CLOSE_WRITE_S, self._give_up, self._writes)

    def _give_up(self, writes: int) -> None:
        self._last_call_timer = None
        if self._done.done() or self._wakeup is not None:
            return
        if self._writes != writes:
            self._last_call()
            return
        self._refuse(grpc.StatusCode.DEADLINE_EXCEEDED, f"the client has read nothing for {CLOSE_WRITE_S:g} s")

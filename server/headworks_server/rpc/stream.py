"""One camera's call: reads into its session, writes what is due, and ends the call as the session says.

The handler coroutine supervises; a reader and a writer task do the work. None of them is ever cancelled while it
waits for gRPC, and a CancelledError that gRPC sends into the handler is raised on: both leak a batch of operations
otherwise (grpc#43360). Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

import grpc

from headworks.v1 import frame_pb2 as pb
from headworks_native import wire
from headworks_native.lane import DEADLINE, DONE, FAILED, Ticket
from headworks_server.core.admission import Share
from headworks_server.core.events import (
    IGNORE,
    DropOutcome,
    ErrorOutcome,
    NoticeKind,
    OpenedEvent,
    Outcome,
    ResultOutcome,
)
from headworks_server.core.frame import Frame
from headworks_server.core.model import ServedModel
from headworks_server.core.outcomes import DropReason, DropStage, FrameErrorCode
from headworks_server.core.session import StreamSession
from headworks_server.rpc import codec
from headworks_server.rpc.opening import OpenRefusedError
from headworks_server.rpc.status import STATUS

if TYPE_CHECKING:
    from headworks_server.rpc.service import FrameService

CLOSE_WRITE_S = 5.0  # how long a client that reads nothing may hold up its Closed
TORN_S = 0.05  # from the end of what can be read to the news that the connection is gone
MAX_NAME = 64


class StreamCall:
    """One open call. Made by FrameService for each StreamFrames; also what frames name as their `stream`.

    Attributes:
        stream_id: the server's number.
        name: chosen by the client, "" until Open.
        peer: the client's address as gRPC spells it.
        session: the stream's rules and ledger.
        model: what the stream runs; None until Open.
        model_name: its name, "" until Open.
        score_threshold: of the stream's results.
        max_detections: of one result of the stream.
    """

    def __init__(self, service: FrameService, context: grpc.aio.ServicerContext[bytes, bytes], stream_id: int) -> None:
        self.stream_id = stream_id
        self.name = ""
        self.peer = context.peer()
        self.model: ServedModel | None = None
        self.model_name = ""
        self.score_threshold = 0.0
        self.max_detections = 0
        self._service = service
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._opened_ns = time.monotonic_ns()
        self.session = StreamSession(
            stream_id, now_ns=self._opened_ns, budget=service.budget, limits=service.limits.session
        )
        self._share: Share | None = None
        self._output_prefix = b""
        self._refusal: tuple[grpc.StatusCode, str] | None = None
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._wakeup: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._last_call_timer: asyncio.TimerHandle | None = None
        self._writes = 0
        self._ended = False
        self._concluded = False

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
            await self._context.abort(*self._refusal)
        status = self.session.finished
        assert status is not None
        if status.kind != "ok":
            await self._context.abort(STATUS[status.kind], status.detail)
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
            self._open(message, now_ns)
        else:
            self._end(now_ns)
        self.wake_if_due(now_ns)

    def _receive_frame(self, message: wire.FrameMessage, now_ns: int) -> None:
        size = message.data_length
        limit = self._service.limits.max_frame_bytes
        if size > limit:
            detail = f"{self.place(message.frame_id)}: expected at most {limit:,} bytes, got {size:,}"
            self.session.receive_rejected(message.frame_id, FrameErrorCode.TOO_LARGE, detail, now_ns)
            return
        frame = Frame(
            message.frame_id,
            message,
            size,
            now_ns,
            stream=self,
            capture_time=message.capture_time if message.has_capture_time else None,
        )
        action = self.session.receive_frame(frame, now_ns)
        share = self._share
        if action is IGNORE or share is None or self.model is None:
            return
        pool = self.model.pool
        pool.offer(share)
        self._service.pump(pool, now_ns, self)

    def _open(self, request: pb.Open, now_ns: int) -> None:
        if self.model is not None:
            self.session.protocol_error("a second Open", now_ns)
            return
        try:
            opening = self._service.resolve(request)
        except OpenRefusedError as refusal:
            self._refuse(STATUS[refusal.kind], refusal.detail)
            return
        self.name = request.stream_name[:MAX_NAME]
        self.model = opening.model
        self.model_name = opening.model.facts.name
        self.score_threshold = opening.score_threshold
        self.max_detections = opening.max_detections
        self._output_prefix = codec.output_prefix(opening.model.facts)
        self.session.receive_open(opening.grant, now_ns)
        self._share = opening.model.pool.join(self.session)
        self._service.opened(self)

    def _end(self, now_ns: int) -> None:
        self._ended = True
        self.session.receive_end(now_ns)
        self.wake_if_due(now_ns)

    # What the lanes bring back.

    def ticket_done(self, ticket: Ticket, now_ns: int) -> None:
        """Give the ticket's frame its outcome. The caller pumps and wakes."""
        session = self.session
        frame = cast(Frame, ticket.frame)
        frame.ticket = None  # they name each other: the payload must not wait for the collector of cycles
        try:
            outcome = self._outcome(ticket, frame, now_ns)
        except Exception as error:  # must cost this stream, not those of the tickets behind
            self._defect(error)
            outcome = ErrorOutcome(FrameErrorCode.ENGINE_FAILED, "a defect of the server")
        session.complete(frame, outcome, now_ns)
        if session.finished is not None:
            self._conclude()
        elif self._share is not None and self.model is not None:
            self.model.pool.offer(self._share)

    def _outcome(self, ticket: Ticket, frame: Frame, now_ns: int) -> Outcome:
        status = ticket.status
        if status == DONE:
            return ResultOutcome(self._result(ticket, frame, now_ns))
        if status == FAILED:
            code = FrameErrorCode(ticket.error_code)
            self._service.metrics.add_error(self.model_name, code)
            return ErrorOutcome(code, f"{self.place(frame.frame_id)}: {ticket.detail}")
        reason = DropReason.DEADLINE if status == DEADLINE else DropReason.CANCELLED
        return DropOutcome(reason, DropStage(ticket.stage))

    def _result(self, ticket: Ticket, frame: Frame, now_ns: int) -> bytes:
        started, decoded_at, launched, executed = (
            ticket.decode_started_ns,
            ticket.decoded_ns,
            ticket.launched_ns,
            ticket.executed_ns,
        )
        waited, decoded, batched, executing, postprocessed = stages = (
            started - frame.received_ns,
            decoded_at - started,
            launched - decoded_at,
            executed - launched,
            now_ns - executed,
        )
        missed = bool(frame.deadline_ns) and now_ns > frame.deadline_ns
        self._service.metrics.add_result(self.model_name, stages, deadline_missed=missed)
        return wire.encode_result(
            frame_id=frame.frame_id,
            capture_time=frame.capture_time,
            source_width=ticket.source_width,
            source_height=ticket.source_height,
            output_prefix=self._output_prefix,
            detections=ticket.detections,
            batch_size=ticket.batch_size,
            deadline_missed=missed,
            waited_us=waited // 1000,
            decoded_us=decoded // 1000,
            batched_us=batched // 1000,
            executed_us=executing // 1000,
            postprocessed_us=postprocessed // 1000,
        )

    def place(self, frame_id: int) -> str:
        """Where something happened, for an error text."""
        return f"frame {frame_id} of {self.name!r}" if self.name else f"frame {frame_id} of stream {self.stream_id}"

    # What the server says.

    def notice(self, kind: NoticeKind, detail: str, now_ns: int) -> None:
        """Tell the client of a change of its model."""
        model = self.model.facts.name if self.model is not None else ""
        self.session.notice(kind, now_ns, detail=detail, model=model)
        self.wake_if_due(now_ns)

    def drain(self, grace_ns: int, now_ns: int) -> None:
        """Begin to shut the stream down."""
        self.session.drain(grace_ns, now_ns)
        self._set_timer(now_ns)
        self.wake_if_due(now_ns)

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

    # The end.

    def _refuse(self, code: grpc.StatusCode, detail: str) -> None:
        """End the call with a status, without Closed."""
        if not self._done.done():
            self._refusal = (code, detail)
            self._abandon()
        if not self._done.done():  # frames in flight: their tickets come back after the call has ended
            self._done.set_result(None)

    def _defect(self, error: Exception) -> None:
        """Something that must not happen: end this call, and no other."""
        self._service.log.exception("stream_defect", stream_id=self.stream_id)
        self._refuse(grpc.StatusCode.INTERNAL, f"a defect of the server: {error!r}")

    def _abandon(self) -> None:
        """The peer is gone, or is to be: nothing is delivered any more, and what is in hand is cancelled."""
        now_ns = time.monotonic_ns()
        for frame in self.session.frames_in_flight():
            if frame.ticket is not None:
                frame.ticket.cancelled = True
        self.session.peer_gone(now_ns)
        if self.session.finished is not None:
            self._conclude()

    def _conclude(self) -> None:
        """The session has finished: leave the pool, write the log line, let the handler end the call."""
        if self._concluded or self.session.finished is None:
            return
        self._concluded = True
        self._stop_timers()
        if self._share is not None and self.model is not None:
            self.model.pool.leave(self._share)
        self._service.closed(self, (time.monotonic_ns() - self._opened_ns) / 1e9)
        if not self._done.done():
            self._done.set_result(None)

"""What the calls of FrameService have in common: a session in its model's queue, and tickets that become outcomes.

`stream.py` and `infer.py` build on it. It takes frames in and gives them their outcomes; how the client hears of them
is theirs. Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

import grpc

from headworks.v1 import frame_pb2 as pb
from headworks_native import wire
from headworks_native.lane import DEADLINE, DONE, FAILED, Ticket
from headworks_server.core.events import IGNORE, WAIT, DropOutcome, ErrorOutcome, Outcome, ResultOutcome
from headworks_server.core.frame import Frame
from headworks_server.core.leases import Lease, LeaseRefusedError
from headworks_server.core.model import ServedModel
from headworks_server.core.outcomes import DropReason, DropStage, FrameErrorCode
from headworks_server.core.roundrobin import Share
from headworks_server.core.session import StreamSession
from headworks_server.rpc import codec
from headworks_server.rpc.auth import principal_of
from headworks_server.rpc.opening import Opening, ResultForm, result_form

if TYPE_CHECKING:
    from headworks_server.rpc.service import FrameService


class FrameCall(ABC):
    """One call; what its frames name as their `stream`.

    Attributes:
        stream_id: the server's number.
        name: chosen by the client, "" where it has said none.
        peer: the client's address as gRPC spells it.
        principal: who the client is, "" where nobody asks.
        session: the rules and the ledger.
        model: what the call runs; None until that is decided. A live swap changes it.
        model_name: its name, "" until then.
        version: the version that the client asked for; "" follows the name.
        lease: of the model's engine.
        asked: what the client asked of the results.
        form: of the results, a number of `ResultOptions.Form`.
        score_threshold: of the results.
        max_detections: of one result; where results are classes, how many.
    """

    def __init__(self, service: FrameService, context: grpc.aio.ServicerContext[bytes, bytes], stream_id: int) -> None:
        self.stream_id = stream_id
        self.name = ""
        self.peer = context.peer()
        self.principal = principal_of(context)
        self.model: ServedModel | None = None
        self.model_name = ""
        self.version = ""
        self.lease = Lease()
        self.asked = pb.ResultOptions()
        self.form = 0
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
        self._refusal: tuple[grpc.StatusCode, str] | None = None  # what the call ends with in the place of its outcomes
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._concluded = False

    @abstractmethod
    def wake_if_due(self, now_ns: int) -> None:
        """See to it that the client hears what is due."""

    def drain(self, grace_ns: int, now_ns: int) -> None:
        """Begin to shut the call down."""
        self.session.drain(grace_ns, now_ns)
        self.wake_if_due(now_ns)

    def place(self, frame_id: int) -> str:
        """Where something happened, for an error text."""
        return f"frame {frame_id} of {self.name!r}" if self.name else f"frame {frame_id} of stream {self.stream_id}"

    # Frames in.

    def _open(self, opening: Opening, now_ns: int) -> None:
        """Run with what was granted; the engine is leased."""
        self.model_name = opening.model.facts.name
        self.version = opening.version
        self.asked = opening.asked
        self.session.receive_open(opening.grant, now_ns)
        self._join(opening.model, opening.result, now_ns)

    def _join(self, model: ServedModel, result: ResultForm, now_ns: int) -> None:
        self.model = model
        self.form, self.score_threshold, self.max_detections = result
        self._output_prefix = codec.output_prefix(model.facts)
        self._share = model.queue.join(self.session)
        self.session.engine_changed(model.readiness, now_ns, detail=model.detail)

    def follow(self, model: ServedModel, now_ns: int) -> None:
        """Move to what serves under the name from now on. What is in a lane comes back from the old one."""
        old, share = self.model, self._share
        assert old is not None and share is not None  # noqa: PT018
        old.pool.leave(share)
        if self.lease.held:
            self._service.leases.lease(model, now_ns)  # it is resident
            self._service.leases.release(old, now_ns)
        self._join(model, result_form(model.facts, self.asked), now_ns)
        self.session.model_changed(model.facts, now_ns)
        self._admit(now_ns)
        self.wake_if_due(now_ns)

    def engine_changed(self, now_ns: int) -> None:
        """Take in that the model's engine has come or gone, or runs on another backend."""
        if self.model is None:
            return
        self._output_prefix = codec.output_prefix(self.model.facts)
        self.session.engine_changed(self.model.readiness, now_ns, detail=self.model.detail)
        self._admit(now_ns)
        self.wake_if_due(now_ns)

    def keep_lease(self, now_ns: int) -> None:
        """Let the lease of a silent call go, and ask again for one that waits; every second or so."""
        model = self.model
        if model is None:
            return
        if self.lease.expired(self.session, self._service.limits.silent_ns, now_ns):
            self.lease.held = False
            self._service.leases.release(model, now_ns)
        elif not self.lease.held and self.session.waiting is not None:
            self._renew(now_ns)

    def _renew(self, now_ns: int) -> None:
        """Lease the engine again, for a frame after a silence. Where it cannot be had, frames find it loading."""
        model = self.model
        if model is None:
            return
        try:
            self._service.leases.lease(model, now_ns)
        except LeaseRefusedError as refusal:
            self._lease_refused(refusal.detail, now_ns)
        else:
            self.lease.take(self.session, now_ns)

    def _lease_refused(self, detail: str, now_ns: int) -> None:  # noqa: ARG002  (a stream tells its client)
        """Tell the client, where it can be told."""
        self._service.log.warning("lease_refused", stream_id=self.stream_id, detail=detail)

    def _receive_frame(self, message: wire.FrameMessage, now_ns: int) -> None:
        if not self.lease.held:
            self._renew(now_ns)
        size = message.data_length
        limit = self._service.limits.max_frame_bytes
        if size > limit:
            detail = f"{self.place(message.frame_id)}: expected at most {limit:,} bytes, got {size:,}"
            action = self.session.receive_rejected(message.frame_id, FrameErrorCode.TOO_LARGE, detail, now_ns)
        else:
            frame = Frame(
                message.frame_id,
                message,
                size,
                now_ns,
                stream=self,
                capture_time=message.capture_time if message.has_capture_time else None,
            )
            action = self.session.receive_frame(frame, now_ns)
        if action is not WAIT and isinstance(action, ErrorOutcome):
            self._service.metrics.add_error(self.model_name, action.code)
        elif action is not IGNORE:
            self._admit(now_ns)

    def _admit(self, now_ns: int) -> None:
        """Ask for admission, and admit what the lanes have room for."""
        if self._share is not None and self.model is not None:
            pool = self.model.pool
            pool.offer(self._share)
            self._service.pump(pool, now_ns, self)

    # What the lanes bring back.

    def ticket_done(self, ticket: Ticket, now_ns: int) -> None:
        """Give the ticket's frame its outcome. The caller pumps and wakes."""
        session = self.session
        frame = cast(Frame, ticket.frame)
        frame.ticket = None  # they name each other: the payload must not wait for the collector of cycles
        try:
            outcome = self._outcome(ticket, frame, now_ns)
        except Exception as error:  # must cost this call, not those of the tickets behind
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
        value = ticket.value  # empty for detections
        prefix = self._output_prefix
        if ticket.seat is not self.model:  # it was admitted before the model changed
            prefix = codec.output_prefix(cast(ServedModel, ticket.seat).facts)
        return wire.encode_result(
            frame_id=frame.frame_id,
            capture_time=frame.capture_time,
            source_width=ticket.source_width,
            source_height=ticket.source_height,
            output_prefix=prefix + value if value else prefix,
            detections=None if value else ticket.detections,
            batch_size=ticket.batch_size,
            deadline_missed=missed,
            waited_us=waited // 1000,
            decoded_us=decoded // 1000,
            batched_us=batched // 1000,
            executed_us=executing // 1000,
            postprocessed_us=postprocessed // 1000,
        )

    # The end.

    async def _abort(self, code: grpc.StatusCode, detail: str) -> None:
        """Let the handler end with a status. Never returns."""
        try:
            await self._context.abort(code, detail)
        except grpc.aio.AbortError:
            raise
        except grpc.aio.BaseError as error:  # the client, or its deadline, was faster by a turn of the loop
            raise asyncio.CancelledError from error

    def _refuse(self, code: grpc.StatusCode, detail: str) -> None:
        """End the call with a status; what is in hand is cancelled."""
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
        """The session has finished: leave the queue, hand the ledger in, let the handler end the call."""
        if self._concluded or self.session.finished is None:
            return
        self._concluded = True
        if self._share is not None and self.model is not None:
            self.model.pool.leave(self._share)
            if self.lease.held:
                self.lease.held = False
                self._service.leases.release(self.model, time.monotonic_ns())
        self._service.closed(self, (time.monotonic_ns() - self._opened_ns) / 1e9)
        if not self._done.done():
            self._done.set_result(None)

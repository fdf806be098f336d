"""One InferFrame: a stream of one frame, whose outcome is the answer.

It has a session like a camera's, so that it waits its turn among the streams of its model, counts in its ledger, and
is drained with the rest. A CancelledError that gRPC sends into the handler, because the client is gone or its deadline
has passed, cancels the ticket and is raised on. Made by FrameService; runs on the event loop.
"""

from __future__ import annotations

import asyncio
import time

from headworks_native import wire
from headworks_server.core.events import DroppedEvent, FrameErrorEvent, ResultOutcome
from headworks_server.core.leases import LeaseRefusedError
from headworks_server.core.model import ServedModel
from headworks_server.core.outcomes import DropReason
from headworks_server.core.readiness import Readiness
from headworks_server.rpc import codec
from headworks_server.rpc.call import FrameCall
from headworks_server.rpc.opening import OpenRefusedError
from headworks_server.rpc.status import DROP_STATUS, ERROR_STATUS, STATUS


class InferCall(FrameCall):
    """One call of InferFrame."""

    _response = b""

    async def serve(self, raw: bytes) -> bytes:
        """Answer the bytes of an InferFrameRequest with those of an InferFrameResponse, or end with a status."""
        try:
            if await self._start(raw):
                await self._done
        except asyncio.CancelledError:
            self._abandon()
            raise
        except Exception as error:
            self._defect(error)
        if self._refusal is not None:
            await self._abort(*self._refusal)
        return self._response

    def place(self, frame_id: int) -> str:
        """Where something happened, for an error text."""
        return f"frame {frame_id}"

    def wake_if_due(self, now_ns: int) -> None:
        """Take the outcome of the frame, once it is there."""
        session = self.session
        if not session.has_due(now_ns):
            return
        for event in session.poll(now_ns):
            if isinstance(event, ResultOutcome):
                self._response = codec.infer_response(event.entry)
            elif isinstance(event, FrameErrorEvent):
                self._refusal = (ERROR_STATUS[event.code], event.detail)
            elif isinstance(event, DroppedEvent):
                ((reason, _),) = event.counts
                self._refusal = DROP_STATUS[reason]
        self._conclude()

    def drain(self, grace_ns: int, now_ns: int) -> None:
        """Begin to shut the call down; one that still waits for its model ends at once."""
        if self.model is None:
            self._refuse(*DROP_STATUS[DropReason.DRAINING])
        else:
            super().drain(grace_ns, now_ns)

    async def _start(self, raw: bytes) -> bool:
        """Hand the frame in, once its model is there. False where the call has been refused."""
        service, now_ns = self._service, time.monotonic_ns()
        try:
            request = codec.parse_infer_request(raw)
            opening = service.resolve_infer(request, time_remaining_s=self._context.time_remaining())
            service.leases.lease(opening.model, now_ns)
        except codec.MalformedRequestError as error:
            self._refuse(STATUS["invalid_argument"], str(error))
            return False
        except (OpenRefusedError, LeaseRefusedError) as refusal:
            self._refuse(STATUS[refusal.kind], refusal.detail)
            return False
        if opening.model.readiness is not Readiness.READY and not await self._wait_for(opening.model):
            return False
        now_ns = time.monotonic_ns()
        self.lease.take(self.session, now_ns)
        self._open(opening, now_ns)
        self._receive_frame(wire.frame_message(request.frame), now_ns)
        self.session.receive_end(now_ns)
        self.wake_if_due(now_ns)
        return True

    async def _wait_for(self, model: ServedModel) -> bool:
        """Wait until the engine is loaded: a script that asks once wants an answer, not the news that it is loading."""
        leases = self._service.leases
        loaded = asyncio.ensure_future(leases.ready(model))
        try:
            await asyncio.wait((loaded, self._done), return_when=asyncio.FIRST_COMPLETED)
            if not self._done.done():
                loaded.result()
                return True
        except LeaseRefusedError as refusal:
            self._refuse(STATUS[refusal.kind], refusal.detail)
        except asyncio.CancelledError:
            leases.release(model, time.monotonic_ns())
            raise
        finally:
            loaded.cancel()
        leases.release(model, time.monotonic_ns())
        return False

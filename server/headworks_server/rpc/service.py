"""FrameService: opens calls, holds what all of them share, and drains them.

Made by the composition root; lives on the event loop. It counts streams, writes one log line when a stream opens and
one, with the ledger, when it closes, and tells the streams of a model when its health changes. An InferFrame counts
in the ledger of its model, and has no line.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import structlog

from headworks.v1 import frame_pb2 as pb
from headworks_server.core.admission import AdmissionPool
from headworks_server.core.budget import WaitingBytes
from headworks_server.core.events import NoticeKind
from headworks_server.core.leases import EngineLeases
from headworks_server.core.ledger import Ledger
from headworks_server.core.limits import SessionLimits
from headworks_server.core.model import ServedModel
from headworks_server.core.outcomes import CloseReason, FrameErrorCode
from headworks_server.rpc.call import FrameCall
from headworks_server.rpc.infer import InferCall
from headworks_server.rpc.opening import ModelNames, Opening, OpenRefusedError, resolve, resolve_infer, result_form
from headworks_server.rpc.status import STATUS
from headworks_server.rpc.stream import StreamCall

FRAME_SERVICE = "headworks.v1.FrameService"


class StreamMetrics(Protocol):
    """What the service tells the metrics."""

    def open_stream(self) -> None:
        """A stream opened."""
        ...

    def close_stream(self, reason: CloseReason) -> None:
        """A stream closed."""
        ...

    def add_error(self, model: str, code: FrameErrorCode) -> None:
        """A frame was answered with an error."""
        ...

    def add_result(self, model: str, stages_ns: tuple[int, int, int, int, int], *, deadline_missed: bool) -> None:
        """A frame was answered with a result."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """Bounds that hold for every stream.

    Attributes:
        max_streams: streams open at one time; also how many calls of InferFrame may be.
        max_frame_bytes: of one frame.
        max_frame_pixels: of one frame; checked by the decoder, told to clients.
        session: the bounds inside a stream.
        silent_ns: after so long without a frame a stream does not keep its model's engine any more.
    """

    max_streams: int
    max_frame_bytes: int
    max_frame_pixels: int
    session: SessionLimits
    silent_ns: int = 30_000_000_000


class FrameService:
    """The servicer of `headworks.v1.FrameService`.

    Attributes:
        limits: bounds on streams and frames.
        budget: the bytes that may wait, over all streams.
        metrics: the counters.
        leases: who holds the engines.
        pump: admits what a pool's lanes have room for.
    """

    def __init__(
        self,
        models: ModelNames,
        *,
        leases: EngineLeases,
        limits: ServiceLimits,
        budget: WaitingBytes,
        metrics: StreamMetrics,
        pump: Callable[[AdmissionPool, int, object], None],
        health_changed: Callable[[ServedModel, bool, int], Any],
    ) -> None:
        self.leases = leases
        self.limits = limits
        self.budget = budget
        self.metrics = metrics
        self.pump = pump
        self.log = structlog.get_logger("headworks.stream")
        self.wire_limits = pb.Limits(max_frame_bytes=limits.max_frame_bytes, max_frame_pixels=limits.max_frame_pixels)
        self._models = models
        self._health_changed = health_changed
        self._streams: set[StreamCall] = set()
        self._inferences: set[InferCall] = set()
        self._settled: defaultdict[str, Ledger] = defaultdict(Ledger)  # of calls that have ended, by model
        self._last_stream_id = 0
        self._draining = False
        self._empty: asyncio.Event | None = None

    # gRPC.

    def handler(self) -> grpc.GenericRpcHandler:
        """The service as a generic handler of raw bytes: frames are read natively, not by protobuf."""
        methods = {
            "StreamFrames": grpc.stream_stream_rpc_method_handler(self._stream_frames),
            "InferFrame": grpc.unary_unary_rpc_method_handler(self._infer_frame),
        }
        return grpc.method_handlers_generic_handler(FRAME_SERVICE, methods)

    async def _stream_frames(self, _requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await self._let_in(context, len(self._streams), "streams, all are open")
        call = StreamCall(self, context, self._next_id())
        self._streams.add(call)
        await call.serve()

    async def _infer_frame(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await self._let_in(context, len(self._inferences), "calls of InferFrame at one time, all are running")
        call = InferCall(self, context, self._next_id())
        self._inferences.add(call)
        return await call.serve(request)

    async def _let_in(self, context: grpc.aio.ServicerContext[bytes, bytes], count: int, what: str) -> None:
        if self._draining:
            await context.abort(STATUS["unavailable"], "the server is shutting down")
        if count >= self.limits.max_streams:
            await context.abort(STATUS["resource_exhausted"], f"expected at most {self.limits.max_streams} {what}")

    def _next_id(self) -> int:
        self._last_stream_id += 1
        return self._last_stream_id

    # For calls.

    def resolve(self, request: pb.Open) -> Opening:
        """Decide an Open. Raises OpenRefusedError."""
        if self._draining:
            raise OpenRefusedError("unavailable", "the server is shutting down")
        return resolve(request, self._models)

    def resolve_infer(self, request: pb.InferFrameRequest, *, time_remaining_s: float | None) -> Opening:
        """Decide an InferFrame. Raises OpenRefusedError."""
        return resolve_infer(request, self._models, time_remaining_s=time_remaining_s)

    def opened(self, call: StreamCall) -> None:
        """A call has opened its stream."""
        self.metrics.open_stream()
        self.log.info(
            "stream_open",
            stream_id=call.stream_id,
            stream=call.name,
            peer=call.peer,
            principal=call.principal,
            model=call.model_name,
        )

    def closed(self, call: FrameCall, seconds: float) -> None:
        """A call's session has finished: its ledger is final."""
        calls: set[Any] = self._streams if isinstance(call, StreamCall) else self._inferences
        calls.discard(call)
        if self._empty is not None and not self._streams and not self._inferences:
            self._empty.set()
        if call.model is None:
            return
        self._settled[call.model_name].add(call.session.ledger)
        if isinstance(call, StreamCall):
            self._tell_closed(call, seconds)

    def _tell_closed(self, call: StreamCall, seconds: float) -> None:
        ledger, status = call.session.ledger, call.session.finished
        assert status is not None
        self.metrics.close_stream(status.reason)
        self.log.info(
            "stream_close",
            stream_id=call.stream_id,
            stream=call.name,
            principal=call.principal,
            model=call.model_name,
            seconds=round(seconds, 3),
            reason=status.reason.name,
            detail=status.detail,
            received=ledger.received,
            results=ledger.results,
            drops=ledger.drops_by_reason(),
            errors=ledger.errors,
        )

    # For the rest of the process.

    def ledger(self, model: str) -> Ledger:
        """The frames of a model by outcome, over all calls since the start. On the loop only."""
        total = Ledger()
        total.add(self._settled[model])
        for call in (*self._streams, *self._inferences):
            if call.model_name == model:
                total.add(call.session.ledger)
        return total

    def health_changed(self, model: ServedModel, kind: NoticeKind, now_ns: int) -> None:
        """A model's engine became unhealthy or healthy again: tell health and the model's streams."""
        name = model.facts.name
        serving = kind is NoticeKind.RESTORED
        self.log.warning("model_restored" if serving else "model_degraded", model=name, detail=model.health.detail)
        self._health_changed(model, serving, now_ns)
        detail = "the engine works again" if serving else f"three batches failed in a row: {model.health.detail}"
        for call in self._streams:
            if call.model is model:
                call.notice(kind, detail, now_ns)

    def engine_changed(self, model: ServedModel, now_ns: int) -> None:
        """A model's engine has come or gone, or runs on another backend: tell its calls."""
        for call in self._calls_of(model):
            call.engine_changed(now_ns)

    def backend_changed(self, model: ServedModel, detail: str, now_ns: int) -> None:
        """Another backend has taken a model over: tell its streams what serves them now, and why it is another."""
        for call in self._streams:
            if call.model is model:
                call.session.model_changed(model.facts, now_ns)
                if detail:
                    call.notice(NoticeKind.DEGRADED, detail, now_ns)

    def unserved_form(self, old: ServedModel, new: ServedModel) -> str:
        """Why the streams of one model cannot be moved to another, in words; "" where they can."""
        for call in self._followers(old):
            try:
                result_form(new.facts, call.asked)
            except OpenRefusedError as refusal:
                return f"{call.name or f'stream {call.stream_id}'}: {refusal.detail}"
        return ""

    def move(self, old: ServedModel, new: ServedModel, now_ns: int) -> int:
        """Move the calls that follow the name from one model to another; returns how many."""
        followers = self._followers(old)
        for call in followers:
            call.follow(new, now_ns)
        return len(followers)

    def keep_leases(self, now_ns: int) -> None:
        """Look after the leases of all streams; to be called every second or so."""
        for call in list(self._streams):
            call.keep_lease(now_ns)

    def _calls_of(self, model: ServedModel) -> list[FrameCall]:
        return [call for call in (*self._streams, *self._inferences) if call.model is model]

    def _followers(self, model: ServedModel) -> list[FrameCall]:
        return [call for call in self._calls_of(model) if not call.version and call.session.finished is None]

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, let the open ones come to their end; returns when none is left, or the grace is over."""
        self._draining = True
        calls = [*self._streams, *self._inferences]
        if not calls:
            return
        self._empty = asyncio.Event()
        now_ns = time.monotonic_ns()
        for call in calls:
            call.drain(int(grace_s * 1e9), now_ns)
        # Beyond the grace: what is in flight finishes, and Closed has to be read.
        await asyncio.wait([asyncio.ensure_future(self._empty.wait())], timeout=grace_s + 5.0)

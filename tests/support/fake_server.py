"""A scripted server for tests of clients: plain synchronous gRPC, one generator per stream that says what it does.

A script takes a `FakeStream`, reads requests from it and yields events; returning ends the call OK. What it read
stays in `FakeServer.streams`. The scripts at the end are named by what they do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import grpc

from headworks.v1 import frame_pb2 as pb

LABELS = ("player", "referee", "ball")
Events = Iterator[pb.ServerEvent | list[pb.ServerEvent] | bytes]
Script = Callable[["FakeStream"], Events]


class FakeServer:
    """Serves streams by scripts, on a port of its own.

    Arguments:
        script: what each stream does; where several are given, the first stream does the first, and so on, and all
            further streams do the last.
        port: 0 for a free one.
        credentials: for TLS.
        infer: what InferFrame answers.
    """

    def __init__(
        self,
        *script: Script,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        infer: Callable[[pb.InferFrameRequest, grpc.ServicerContext], pb.InferFrameResponse] | None = None,
    ) -> None:
        self._scripts = script
        self._infer = infer
        self.streams: list[FakeStream] = []
        self.hold = threading.Event()
        """For scripts that wait: set by the test, and when the server stops."""
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16))
        # Without a parser, so that a script may also send what is no message.
        handlers = {
            "StreamFrames": grpc.stream_stream_rpc_method_handler(self._serve),
            "InferFrame": grpc.unary_unary_rpc_method_handler(self._answer),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("headworks.v1.FrameService", handlers),)
        )
        place = f"127.0.0.1:{port}"
        self.port: int = (
            self._server.add_insecure_port(place)
            if credentials is None
            else self._server.add_secure_port(place, credentials)
        )
        self.target = f"127.0.0.1:{self.port}"

    def __enter__(self) -> FakeServer:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.die()

    def die(self) -> None:
        """Cut every call and leave."""
        stopped = self._server.stop(None)
        self.hold.set()
        stopped.wait()

    def _serve(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """One call of StreamFrames, raw bytes both ways."""
        stream = FakeStream(self, requests, context)
        script = self._scripts[min(len(self.streams), len(self._scripts) - 1)]
        self.streams.append(stream)
        for said in script(stream):
            if isinstance(said, bytes):
                yield said
            else:
                events = said if isinstance(said, list) else [said]
                yield pb.StreamFramesResponse(events=events).SerializeToString()

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """One call of InferFrame."""
        if self._infer is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no InferFrame here")
        answer = self._infer(pb.InferFrameRequest.FromString(request), context)
        return answer.SerializeToString()


class FakeStream:
    """The server's end of one stream: reads requests, builds events, keeps a true ledger."""

    def __init__(self, server: FakeServer, requests: Iterator[bytes], context: grpc.ServicerContext) -> None:
        self.server = server
        self.context = context
        self.peer = context.peer()
        self._requests = requests
        self.frames: list[pb.Frame] = []
        self.pings: list[int] = []
        self.opening: pb.Open | None = None
        self.ledger = pb.Ledger()

    def __iter__(self) -> Iterator[pb.StreamFramesRequest]:
        """The requests, noted as they are read."""
        for raw in self._requests:
            request = pb.StreamFramesRequest.FromString(raw)
            match request.WhichOneof("message"):
                case "open":
                    self.opening = request.open
                case "frame":
                    self.frames.append(request.frame)
                    self.ledger.received += 1
                case "ping":
                    self.pings.append(request.ping.nonce)
            yield request

    def read(self) -> pb.StreamFramesRequest:
        """The next request."""
        return next(iter(self))

    def opened(self, frames_allowed: int = 4) -> pb.ServerEvent:
        """Grants what a server grants by default."""
        model = pb.ModelInfo(name="football", version="1", generation=1, labels=LABELS, backend="fake")
        limits = pb.Limits(max_frame_bytes=16 << 20, max_frame_pixels=33_000_000)
        return pb.ServerEvent(
            opened=pb.Opened(
                stream_id=1, max_in_flight=2, frames_allowed=frames_allowed, weight=1, models=[model], limits=limits
            )
        )

    def result(self, frame: pb.Frame, *, class_id: int = 2, generation: int = 1) -> pb.ServerEvent:
        """One detection, whose x1 is the frame's id."""
        self.ledger.results += 1
        box = pb.Detection(x1=frame.frame_id, y1=2, x2=3, y2=4, score=0.5, class_id=class_id)
        output = pb.Output(
            model="football",
            version=str(generation),
            generation=generation,
            detections=pb.Detections(detections=[box]),
        )
        return pb.ServerEvent(
            result=pb.Result(
                frame_id=frame.frame_id,
                capture_time=frame.capture_time,
                source_width=640,
                source_height=480,
                outputs=[output],
                batch_size=2,
                timings=pb.Timings(waited_us=1, decoded_us=2, batched_us=3, executed_us=4, postprocessed_us=5),
            )
        )

    def dropped(
        self, first: int, last: int, count: int, reason: int = pb.DROP_REASON_REPLACED_BY_NEWER
    ) -> pb.ServerEvent:
        """A run of drops of one reason."""
        drop = pb.DropCount(reason=reason, stage=pb.DROP_STAGE_BEFORE_DECODE, count=count)
        self.ledger.drops.append(drop)
        return pb.ServerEvent(dropped=pb.Dropped(first_frame_id=first, last_frame_id=last, counts=[drop]))

    def frame_error(self, frame: pb.Frame, detail: str = "no JPEG") -> pb.ServerEvent:
        """The frame is undecodable."""
        self.ledger.errors += 1
        return pb.ServerEvent(
            frame_error=pb.FrameError(frame_id=frame.frame_id, code=pb.FRAME_ERROR_CODE_UNDECODABLE, detail=detail)
        )

    def credit(self, frames_allowed: int) -> pb.ServerEvent:
        """So many frames in all."""
        return pb.ServerEvent(credit=pb.Credit(frames_allowed=frames_allowed))

    def pong(self, request: pb.StreamFramesRequest) -> pb.ServerEvent:
        """The answer to a Ping."""
        return pb.ServerEvent(pong=pb.Pong(nonce=request.ping.nonce))

    def draining(self) -> pb.ServerEvent:
        """The server shuts down."""
        return pb.ServerEvent(notice=pb.Notice(kind=pb.Notice.KIND_DRAINING, detail="restart", grace_ms=5000))

    def swapped(self, first_frame_id: int) -> pb.ServerEvent:
        """Version 2 serves from a frame on, and has other labels."""
        model = pb.ModelInfo(name="football", version="2", generation=2, labels=[f"new {name}" for name in LABELS])
        kind = pb.Notice.KIND_MODEL_CHANGED
        return pb.ServerEvent(
            notice=pb.Notice(kind=kind, first_frame_id=first_frame_id, generation=2, model="football", model_info=model)
        )

    def closed(self, reason: int = pb.CLOSE_REASON_END) -> pb.ServerEvent:
        """The last word, with the ledger of what was read and said."""
        return pb.ServerEvent(closed=pb.Closed(ledger=self.ledger, reason=reason))


def answer_every_frame(stream: FakeStream) -> Events:
    """A result for each frame and a frame of credit with it."""
    stream.read()
    yield stream.opened()
    for request in stream:
        match request.WhichOneof("message"):
            case "frame":
                yield [stream.result(request.frame), stream.credit(4 + stream.ledger.received)]
            case "ping":
                yield stream.pong(request)
            case "end":
                yield stream.closed()


def drop_then_fail_then_answer(stream: FakeStream) -> Events:
    """Of each three frames, one is dropped, one fails and one is served."""
    stream.read()
    yield stream.opened(frames_allowed=100)
    for request in stream:
        match request.WhichOneof("message"):
            case "frame":
                frame = request.frame
                match len(stream.frames) % 3:
                    case 1:
                        yield stream.dropped(frame.frame_id, frame.frame_id, 1)
                    case 2:
                        yield stream.frame_error(frame)
                    case _:
                        yield stream.result(frame)
            case "end":
                yield stream.closed()


def silent_after_opened(stream: FakeStream) -> Events:
    """Grants, and then neither reads nor says anything."""
    stream.read()
    yield stream.opened()
    stream.server.hold.wait()


def silent_from_the_start(stream: FakeStream) -> Events:
    """Reads nothing and says nothing."""
    stream.server.hold.wait()
    yield from ()


def refuse(stream: FakeStream) -> Events:
    """No such model."""
    stream.read()
    stream.context.abort(grpc.StatusCode.NOT_FOUND, "no model 'tennis'; there are: football")
    yield from ()


def drain_after_first_frame(stream: FakeStream) -> Events:
    """Answers one frame, announces the drain, closes, and ends the call UNAVAILABLE."""
    stream.read()
    yield stream.opened()
    frame = stream.read().frame
    yield [stream.result(frame), stream.draining(), stream.closed(pb.CLOSE_REASON_DRAINED)]
    stream.context.abort(grpc.StatusCode.UNAVAILABLE, "the server drained")


def answer_two_then_break(stream: FakeStream) -> Events:
    """Answers two frames, reads two more and breaks."""
    stream.read()
    yield stream.opened()
    for _ in range(2):
        yield [stream.result(stream.read().frame), stream.credit(4 + stream.ledger.received)]
    for _ in range(2):
        stream.read()
    stream.context.abort(grpc.StatusCode.INTERNAL, "the script says so")


def drain_when_told(stream: FakeStream) -> Events:
    """Answers frames until the test says so; then announces the drain, drops what still comes, and waits for End."""
    stream.read()
    yield stream.opened()
    draining = False
    for request in stream:
        match request.WhichOneof("message"):
            case "frame" if draining:
                yield stream.dropped(request.frame.frame_id, request.frame.frame_id, 1, pb.DROP_REASON_DRAINING)
            case "frame":
                yield [stream.result(request.frame), stream.credit(4 + stream.ledger.received)]
            case "end":
                yield stream.closed()
                return
        if stream.server.hold.is_set() and not draining:
            draining = True
            yield stream.draining()


def no_room(stream: FakeStream) -> Events:
    """Refuses for now."""
    stream.read()
    stream.context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "all memory is leased")
    yield from ()


def talk_nonsense(stream: FakeStream) -> Events:
    """Grants twice."""
    stream.read()
    yield stream.opened()
    yield stream.opened()
    stream.server.hold.wait()


def swap_before_the_first_result(stream: FakeStream) -> Events:
    """The model changes from frame 2 on; the old one's result of frame 1 comes after the notice."""
    stream.read()
    yield stream.opened()
    for request in stream:
        match request.WhichOneof("message"):
            case "frame" if request.frame.frame_id == 1:
                yield [stream.swapped(2), stream.result(request.frame), stream.credit(5)]
            case "frame":
                yield [stream.result(request.frame, generation=2), stream.credit(4 + stream.ledger.received)]
            case "end":
                yield stream.closed()

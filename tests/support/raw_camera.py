"""A camera made from bare gRPC stubs: no client library, no credit, no mailbox, any misbehaviour.

Used by the integration and the fault tests. It sends what it is told at once, records every event in order, and can
stop reading, half-close, cancel, or send bytes that are no message. `support/laws.py` judges what it has recorded.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from headworks.v1 import frame_pb2 as pb
from support import laws
from support.history import OUTCOMES, History
from support.server import PATIENCE_S

STREAM_FRAMES = "/headworks.v1.FrameService/StreamFrames"
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    # The receive window stays small, so that a camera that does not read holds its server up soon.
    ("grpc.http2.bdp_probe", 0),
)


class RawCamera:
    """One call of StreamFrames; use it in a `with`, which cancels what is left of the call.

    Arguments:
        target: "host:port".
        opening: sends Open at once where it is not None.
        reading: whether to read from the start; see `read`.
        channel: a channel to share with other cameras; its own by default.
        credentials: for TLS; plaintext by default.
        history: where to record; one of its own by default.

    Attributes:
        events: every event so far, in order.
        history: what it did and heard.
        frames_allowed: the credit so far, which it does not keep to.
    """

    def __init__(
        self,
        target: str,
        opening: pb.Open | None = None,
        *,
        reading: bool = True,
        channel: grpc.Channel | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        history: History | None = None,
    ) -> None:
        self.events: list[pb.ServerEvent] = []
        self.history = history or History()
        self.last_frame_id = 0
        self.frames_allowed = 0
        self._changed = threading.Condition()
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._may_read = threading.Event()
        self._ended = False
        self._status: tuple[grpc.StatusCode, str] | None = None
        self._own_channel = channel is None
        self._channel = channel or open_channel(target, credentials)
        self._call: Any = self._channel.stream_stream(STREAM_FRAMES)(iter(self._requests.get, None))
        if reading:
            self._may_read.set()
        self._reader = threading.Thread(target=self._read, name="raw-camera", daemon=True)
        self._reader.start()
        if opening is not None:
            self.send(open=opening)

    def __enter__(self) -> RawCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()
        self._may_read.set()
        self.half_close()
        self._reader.join(PATIENCE_S)
        if self._own_channel:
            self._channel.close()

    # What it says.

    def send(self, **message: Any) -> None:
        """Send one message: `open`, `frame`, `ping` or `end`."""
        request = pb.StreamFramesRequest(**message)
        self.history.did_request(request)
        self.send_raw(request.SerializeToString())

    def send_raw(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self._requests.put(raw)

    def send_frame(
        self, data: bytes, encoding: int = pb.ENCODING_JPEG, *, width: int = 0, height: int = 0, frame_id: int = 0
    ) -> int:
        """Send a frame at once, whatever the credit; return its number, the next one unless given."""
        self.last_frame_id = frame_id or self.last_frame_id + 1
        frame = pb.Frame(frame_id=self.last_frame_id, encoding=encoding, width=width, height=height, data=data)  # type: ignore[arg-type]
        self.send(frame=frame)
        return self.last_frame_id

    def end(self) -> None:
        """Say that no frame follows."""
        self.send(end=pb.End())

    def half_close(self) -> None:
        """Close the sending direction, with or without an End before."""
        self._requests.put(None)

    def cancel(self) -> None:
        """Cancel the call."""
        self._call.cancel()

    # What it hears.

    def read(self) -> None:
        """Begin to read, where it has not read from the start."""
        self._may_read.set()

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition over the events holds, and return its value; fail when the call ends before."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while not (value := condition()):
                left = deadline - time.monotonic()
                assert not self._ended, f"the call has ended with {self._status}, last: {self.events[-3:]}"
                assert left > 0, f"nothing within {PATIENCE_S:g} s, last: {self.events[-3:]}"
                self._changed.wait(left)
            return value

    def wait_event(self, kind: str, number: int = 1) -> Any:
        """Wait for the n-th event of a kind, and return what it carries."""
        return self.wait(lambda: len(self.all(kind)) >= number and self.all(kind)[number - 1])

    def ask(self, data: bytes, encoding: int = pb.ENCODING_JPEG, **where: int) -> pb.ServerEvent:
        """Send one frame and wait for its outcome."""
        frame_id = self.send_frame(data, encoding, **where)
        return self.wait(lambda: self.outcome(frame_id))

    def ask_result(self, data: bytes, encoding: int = pb.ENCODING_JPEG, **where: int) -> pb.Result:
        """Send one frame and wait for its result."""
        event = self.ask(data, encoding, **where)
        assert event.HasField("result"), event
        return event.result

    def ask_error(self, data: bytes, encoding: int = pb.ENCODING_JPEG, **where: int) -> pb.FrameError:
        """Send one frame and wait for its error."""
        event = self.ask(data, encoding, **where)
        assert event.HasField("frame_error"), event
        return event.frame_error

    def status(self) -> tuple[grpc.StatusCode, str]:
        """Wait for the end of the call; return its status and detail."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._status is not None, PATIENCE_S), "the call goes on"
        assert self._status is not None
        return self._status

    def close(self) -> pb.Closed:
        """End the stream, and hold it to the contract: Closed, then OK, and a ledger that agrees with the events."""
        self.end()
        code, detail = self.status()
        assert code is grpc.StatusCode.OK, (code, detail)
        return self.check()

    # What it makes of it.

    def all(self, kind: str) -> list[Any]:
        """What all events of a kind carry."""
        return [getattr(event, kind) for event in list(self.events) if event.WhichOneof("event") == kind]

    def outcome(self, frame_id: int) -> pb.ServerEvent | None:
        """The outcome of a frame: a Result, a FrameError, or the Dropped in whose range it lies."""
        for event in reversed(self.events):
            first, last = _range(event)
            if first <= frame_id <= last:
                return event
        return None

    @property
    def opened(self) -> pb.Opened:
        """What was granted; waits for it."""
        return self.wait_event("opened")

    def counts(self) -> Counter[str]:
        """Frames by outcome, as told: `results`, `errors`, and drops by the reason's name."""
        return laws.told_counts(self.history.events)

    def check(self) -> pb.Closed:
        """Hold the events to the laws of a stream that ended with Closed; return it."""
        assert laws.stream(self.history.events) == []
        kinds = [event.WhichOneof("event") for event in self.events]
        assert (kinds[0], kinds[-1]) == ("opened", "closed"), kinds
        return self.events[-1].closed

    def _read(self) -> None:
        try:
            for raw in self._messages():
                events = pb.StreamFramesResponse.FromString(raw).events
                with self._changed:
                    for event in events:
                        self.history.heard_event(event)
                        self.frames_allowed = max(
                            self.frames_allowed, event.opened.frames_allowed, event.credit.frames_allowed
                        )
                    self.events.extend(events)
                    self._changed.notify_all()
        except grpc.RpcError:
            pass  # the status is asked for below
        except DecodeError:
            self.cancel()
        with self._changed:
            self._ended = True
            self._status = (self._call.code(), self._call.details())  # which wait for the end of the call
            self.history.ended(self._status[0].name, self._status[1])
            self._changed.notify_all()
        self.half_close()  # gRPC's thread that sends waits for a message; there is none any more

    def _messages(self) -> Iterator[bytes]:
        self._may_read.wait()
        yield from self._call


def open_channel(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """A connection of its own."""
    if credentials is None:
        return grpc.insecure_channel(target, options=_OPTIONS)
    return grpc.secure_channel(target, credentials, options=_OPTIONS)


def open_request(model: str = "", **fields: Any) -> pb.Open:
    """An Open of one model."""
    return pb.Open(models=[pb.ModelSelector(name=model)] if model else [], **fields)


def line_counts(line: dict[str, Any]) -> Counter[str]:
    """Frames by outcome as the log line of a stream's end says, in the words of `RawCamera.counts`."""
    return laws.counts(line)


def _range(event: pb.ServerEvent) -> tuple[int, int]:
    kind = event.WhichOneof("event")
    if kind == "dropped":
        return event.dropped.first_frame_id, event.dropped.last_frame_id
    if kind in OUTCOMES:
        frame_id = getattr(event, kind).frame_id
        return frame_id, frame_id
    return 1, 0

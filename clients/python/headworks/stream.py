"""One camera's stream: the threads and the call around `ClientSession`. Made by `Client.stream`, used in a `with`.

Two threads serve a stream: gRPC's own, which asks this object for the next request (`__next__` of `_Requests`), and
the reader, which hands outcomes to the callbacks. `send` only touches the mailbox. One lock guards the session; no
callback and no gRPC call runs under it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from headworks import codec
from headworks.account import Account
from headworks.errors import (
    ConnectionFailedError,
    HeadworksError,
    ProtocolError,
    StreamBrokenError,
    StreamRefusedError,
)
from headworks.loud import OutcomeLog
from headworks.outcomes import Closed, Dropped, FrameError, Notice, Opened, Outcome, Result
from headworks.session import DEAD_AFTER_NS, ClientSession, OutgoingFrame
from headworks.v1 import frame_pb2

if TYPE_CHECKING:
    from headworks.client import Client

MAX_MESSAGE_BYTES = 32 << 20
"""Of one gRPC message: twice the server's default limit of a frame, which answers a larger one with a FrameError."""
MAX_FRAME_BYTES = MAX_MESSAGE_BYTES - 1024  # the header of a frame is under 64 bytes
UNREAD_OUTCOMES = 1024
"""Outcomes kept for a loop over the stream: half a minute of a 30 fps camera. The oldest fall out, and are logged."""

logger = logging.getLogger("headworks")


class FrameStream:
    """Sends the frames of one camera and tells what became of each.

    Entering opens the stream and waits for the server's grant; leaving sends End and waits for Closed. `send`
    may be called from any thread. Callbacks run on the stream's reader thread: a slow one delays the next.

    Outcomes without a callback can be read by a loop (`for outcome in stream`), which ends when the stream does.
    Drops and errors that have neither a callback nor a loop are logged as warnings of the logger "headworks".
    """

    def __init__(
        self,
        client: Client,
        *,
        name: str,
        open_request: bytes,
        on_result: Callable[[Result], object] | None,
        on_drop: Callable[[Dropped], object] | None,
        on_error: Callable[[FrameError], object] | None,
        on_notice: Callable[[Notice], object] | None,
    ) -> None:
        self.name = name
        self._client = client
        self._now_ns = client.now_ns
        self._session = ClientSession(open_request)
        self._on_result, self._on_drop, self._on_error, self._on_notice = on_result, on_drop, on_error, on_notice
        lock = threading.Lock()
        self._sendable = threading.Condition(lock)  # gRPC's thread waits here for something to write
        self._changed = threading.Condition(lock)  # the application waits here: opened, outcome, finished
        self._unread: deque[Outcome] = deque()
        self._looping = False
        self._log = OutcomeLog(name)
        self._failure: HeadworksError | None = None
        self._finished = False
        self._call: Any = None
        self._reader = threading.Thread(target=self._read, name=f"headworks-{name}", daemon=True)

    # --- the application's side

    def __enter__(self) -> FrameStream:
        """Open the stream and wait for the grant.

        Raises:
            ConnectionFailedError: nobody answered, or not in time.
            StreamRefusedError: the server said no.
        """
        self._call = self._client.call(_Requests(self))
        self._client.watch(self)
        self._reader.start()
        try:
            with self._changed:
                answered = self._changed.wait_for(
                    lambda: self._session.opened is not None or self._finished, self._client.open_timeout_s
                )
                failed = self._session.opened is None and self._finished
        except BaseException:  # Ctrl-C while nobody answers
            self._call.cancel()
            raise
        if not answered:
            self._break(
                ConnectionFailedError(self._client.target, f"no answer to Open in {self._client.open_timeout_s:g} s")
            )
        if not answered or failed:
            self._reader.join()
            raise self._failure or StreamRefusedError(self._client.target, "UNKNOWN", "no reason was given")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stream; where the body raised, cut it off instead, so that its exception is not held up."""
        if kind is None:
            self.close()
            return
        self._break(StreamBrokenError(self.name, "CANCELLED", "the application left with an exception"))
        self._join()

    def send(
        self,
        data: bytes | bytearray | memoryview | Any,
        *,
        encoding: str = "jpeg",
        width: int = 0,
        height: int = 0,
        frame_id: int | None = None,
        capture_time_ns: int | None = None,
    ) -> int:
        """Offer a frame and return its frame_id. Never waits: a newer frame replaces the one still waiting here.

        Args:
            data: an encoded picture, raw pixels, or an array of uint8 [height, width, 3], blue first, whose
                encoding and size are then taken from it. Anything but `bytes` is copied before this returns.
            encoding: "jpeg", "png" or "bgr24".
            width: pixels; needed for raw pixels.
            height: pixels; needed for raw pixels.
            frame_id: greater than the last one; counts 1, 2, 3 where not given.
            capture_time_ns: nanoseconds since the epoch, now where not given.

        Raises:
            HeadworksError: the stream has broken; the same error that leaving it raises.
            ValueError: an argument makes no sense, or the stream has been ended.
        """
        payload, number, width, height = _picture(data, encoding, width, height)
        wall_ns, now_ns = time_ns(), self._now_ns()
        captured_ns = now_ns if capture_time_ns is None else now_ns - (wall_ns - capture_time_ns)
        with self._sendable:
            if self._failure is not None:
                raise self._failure
            frame = OutgoingFrame(
                frame_id=self._session.next_frame_id() if frame_id is None else frame_id,
                captured_ns=captured_ns,
                capture_time_ns=wall_ns if capture_time_ns is None else capture_time_ns,
                encoding=number,
                width=width,
                height=height,
                payload=payload,
            )
            self._session.offer(frame)
            self._sendable.notify()
        return frame.frame_id

    def end(self) -> None:
        """Say that no frame follows, without waiting: a loop over the stream then ends with its last outcome."""
        with self._sendable:
            self._session.end()
            self._sendable.notify()

    def close(self) -> None:
        """End the stream and wait for Closed and for the last callback.

        Raises:
            HeadworksError: the stream broke, or Closed did not come in time.
        """
        if self._call is None:
            return  # never opened
        self.end()
        if threading.current_thread() is not self._reader:
            limit_s = self._client.close_timeout_s
            with self._changed:
                finished = self._changed.wait_for(lambda: self._finished, limit_s)
            if not finished:
                self._break(StreamBrokenError(self.name, "DEADLINE_EXCEEDED", f"no Closed within {limit_s:g} s of End"))
            self._join()
        if self._failure is not None:
            raise self._failure

    def __iter__(self) -> Iterator[Outcome]:
        """Yield the outcomes that have no callback, until the stream has ended.

        Raises:
            HeadworksError: after the last outcome, where the stream broke.
        """
        self._looping = True
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unread or self._finished)
                if not self._unread:
                    break
                outcome = self._unread.popleft()
            yield outcome
        if self._failure is not None:
            raise self._failure

    @property
    def opened(self) -> Opened:
        """What the server granted."""
        if self._session.opened is None:
            raise HeadworksError(f"stream {self.name!r} has not been opened: use it in a `with` statement")
        return self._session.opened

    @property
    def closed(self) -> Closed | None:
        """The server's last word, once it has come."""
        return self._session.closed

    @property
    def account(self) -> Account:
        """Where every frame has gone so far."""
        with self._sendable:
            return self._session.account()

    # --- the client's watch

    def tick(self) -> None:
        """Look at the clock: wake the writer for a Ping, give up a silent server. Called about twice a second.

        Not the writer's own business, for that may be stuck in a write to the very peer that has died.
        """
        with self._sendable:
            now_ns = self._now_ns()
            dead = self._session.is_dead(now_ns)
            if self._session.has_due(now_ns):
                self._sendable.notify()
            line = self._log.line(now_ns)
        if line is not None:
            logger.warning("%s", line)
        if dead:
            self._break(
                StreamBrokenError(
                    self.name, "UNAVAILABLE", f"nothing heard from {self._client.target} for {DEAD_AFTER_NS / 1e9:g} s"
                )
            )

    # --- gRPC's side

    def next_request(self) -> bytes:
        """Wait for the next request and return it; StopIteration after End. Called by gRPC's thread only."""
        with self._sendable:
            while True:
                request = self._session.poll(self._now_ns())
                if request is not None:
                    break
                if self._session.writing_is_over or self._finished:
                    raise StopIteration
                self._sendable.wait()
        # The copy of the payload happens here, outside the lock.
        return request if isinstance(request, bytes) else request.to_bytes()

    def _read(self) -> None:
        failure: HeadworksError | None = None
        try:
            for message in self._call:
                self._receive(message)
        except grpc.RpcError as error:
            failure = self._status(error)
        except ProtocolError as error:
            failure = error
        except DecodeError as error:
            failure = ProtocolError(f"the server sent a message that is no StreamFramesResponse: {error}")
        finally:
            self._finish(failure)

    def _receive(self, message: bytes) -> None:
        told: list[Outcome | Notice] = []
        try:
            with self._changed:
                now_ns = self._now_ns()
                for event in frame_pb2.StreamFramesResponse.FromString(message).events:
                    item = self._session.receive(event, now_ns)
                    if isinstance(item, Opened):
                        self._changed.notify_all()
                    elif item is not None and not isinstance(item, Closed):
                        told.append(item)
                if self._session.has_due(now_ns):
                    self._sendable.notify()
        finally:  # what was told before a ProtocolError was told all the same
            for item in told:
                self._deliver(item)

    def _deliver(self, item: Outcome | Notice) -> None:
        """Hand one outcome to its callback, or keep it for the loop and the log."""
        callback = self._callback(item)
        if callback is not None:
            try:
                callback(item)
            except Exception:  # a stream outlives the faults of its application
                logger.exception("stream %r: the callback for %s failed", self.name, type(item).__name__)
            return
        assert not isinstance(item, Notice)
        with self._changed:
            self._keep(item)
            line = self._log.line(self._now_ns())
        if line is not None:
            logger.warning("%s", line)

    def _callback(self, item: Outcome | Notice) -> Callable[[Any], object] | None:
        match item:
            case Result():
                return self._on_result
            case Dropped():
                return self._on_drop
            case FrameError():
                return self._on_error
            case Notice():
                return self._on_notice or self._log_notice

    def _keep(self, item: Outcome) -> None:
        if len(self._unread) == UNREAD_OUTCOMES:
            self._unread.popleft()
            self._log.add_unread()
        self._unread.append(item)
        self._changed.notify_all()
        if self._looping:
            return
        if isinstance(item, Dropped):
            self._log.add_drop(item)
        elif isinstance(item, FrameError):
            self._log.add_error(item)

    def _log_notice(self, notice: Notice) -> None:
        logger.warning("stream %r: the server says %s: %s", self.name, notice.kind, notice.detail)

    def _status(self, error: grpc.RpcError) -> HeadworksError:
        """Say what a gRPC status means at this point of the stream's life."""
        code, detail = error.code(), error.details() or "no reason was given"
        if self._session.opened is not None:
            return StreamBrokenError(self.name, code.name, detail, self._session.closed)
        if code is grpc.StatusCode.UNAVAILABLE:
            return ConnectionFailedError(self._client.target, detail)
        return StreamRefusedError(self._client.target, code.name, detail)

    def _finish(self, failure: HeadworksError | None) -> None:
        """The call is over: settle why, wake everybody."""
        if isinstance(failure, ProtocolError):
            self._call.cancel()
        if failure is None and self._session.closed is None:
            detail = "the server ended the call without Closed"
            failure = (
                StreamBrokenError(self.name, "OK", detail)
                if self._session.opened is not None
                else StreamRefusedError(self._client.target, "OK", detail)
            )
        self._client.unwatch(self)
        with self._changed:
            if self._failure is None:
                self._failure = failure
            self._session.disconnect()
            self._finished = True
            self._sendable.notify_all()
            self._changed.notify_all()
            line = self._log.line(self._now_ns(), last=True)
        if line is not None:
            logger.warning("%s", line)

    def _break(self, failure: HeadworksError) -> None:
        """Give the stream up; the reader then finishes it."""
        with self._changed:
            if self._failure is None and not self._finished:
                self._failure = failure
        self._call.cancel()

    def _join(self) -> None:
        if threading.current_thread() is not self._reader:
            self._reader.join()


class _Requests:
    """What gRPC iterates over. Apart from FrameStream, whose own iteration yields outcomes."""

    def __init__(self, stream: FrameStream) -> None:
        self._stream = stream

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> bytes:
        return self._stream.next_request()


def _picture(data: Any, encoding: str, width: int, height: int) -> tuple[bytes, int, int, int]:
    """Return (payload, number of the encoding, width, height), the payload in memory that nobody else writes to."""
    if isinstance(data, bytes):
        payload = data
    else:
        view = memoryview(data)
        if view.ndim == 3:
            if view.format != "B" or view.shape is None or view.shape[2] != 3:
                raise ValueError(
                    f"array of format {view.format!r}, shape {view.shape}: expected uint8 [height, width, 3]"
                )
            encoding, (height, width, _) = "bgr24", view.shape
        # A camera reuses its buffer: what is sent later must be what was given now.
        payload = view.tobytes()
    number = codec.ENCODINGS.get(encoding)
    if number is None:
        raise ValueError(f"encoding {encoding!r}: expected one of {', '.join(codec.ENCODINGS)}")
    if encoding == "bgr24" and len(payload) != width * height * 3:
        raise ValueError(
            f"{width}x{height} bgr24: expected {width * height * 3:,} bytes, width x height x 3; got {len(payload):,}"
        )
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"frame of {len(payload):,} bytes: at most {MAX_FRAME_BYTES:,} fit into a message")
    return payload, number, width, height

"""The connection to one server: a gRPC channel of its own and a watch over its streams. The door of this package.

Plain synchronous gRPC, not grpc.aio: all event loops of a process share one completion queue, so a loop of ours
would disturb one of the application's. It costs under 10 % more CPU a frame (bench/client_send.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc

from headworks import codec
from headworks.outcomes import Dropped, FrameError, Notice, Result
from headworks.stream import MAX_MESSAGE_BYTES, FrameStream

DEFAULT_TARGET = "127.0.0.1:50051"
STREAM_FRAMES = "/headworks.v1.FrameService/StreamFrames"
WATCH_INTERVAL_S = 0.5
"""How often streams look at the clock: a quarter of the time after which silence is answered with a Ping."""

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A backstop below the streams' own Pings, for what breaks beneath HTTP/2.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Two clients of one process do not share a connection.
    ("grpc.use_local_subchannel_pool", 1),
)


class Client:
    """A connection to a Headworks server, for any number of streams. Connects when the first stream opens.

    Args:
        target: "host:port".
        open_timeout_s: seconds to wait for the grant of a stream.
        close_timeout_s: seconds to wait for Closed after End.
        now_ns: the monotonic clock, in nanoseconds.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        open_timeout_s: float = 10.0,
        close_timeout_s: float = 30.0,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.target = target
        self.open_timeout_s = open_timeout_s
        self.close_timeout_s = close_timeout_s
        self.now_ns = now_ns
        self._channel = grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
        # Raw bytes both ways: requests are built by hand, answers are parsed on the stream's own thread.
        self._stream_frames = self._channel.stream_stream(STREAM_FRAMES)
        self._lock = threading.Lock()
        self._watched: set[FrameStream] = set()
        self._watch: threading.Thread | None = None
        self._stop = threading.Event()

    def __enter__(self) -> Client:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; streams that are still open break. May be called twice."""
        self._stop.set()
        self._channel.close()
        watch = self._watch
        if watch is not None and watch is not threading.current_thread():
            watch.join()

    def stream(
        self,
        model: str | None = None,
        *,
        name: str = "",
        max_in_flight: int = 0,
        deadline_ms: int = 0,
        weight: int = 0,
        score_threshold: float = 0.0,
        max_detections: int = 0,
        on_result: Callable[[Result], object] | None = None,
        on_drop: Callable[[Dropped], object] | None = None,
        on_error: Callable[[FrameError], object] | None = None,
        on_notice: Callable[[Notice], object] | None = None,
    ) -> FrameStream:
        """Return a stream for one camera; it opens when its `with` statement is entered.

        Args:
            model: name of the model; None for the only one of the server.
            name: for logs and tables, at most 64 characters, need not be unique.
            max_in_flight: frames in work at one time; 0 for the server's default, 2.
            deadline_ms: milliseconds from receipt at the server to the result; 0 for none.
            weight: share in the round robin, 1 to 16; 0 means 1.
            score_threshold: only scores above this are told; 0 for the model's default.
            max_detections: detections a frame at most, the best by score; 0 for the model's default.
            on_result: called with each Result.
            on_drop: called with each Dropped; without it, drops are read by a loop or logged.
            on_error: called with each FrameError; without it, errors are read by a loop or logged.
            on_notice: called with each Notice; without it, notices are logged.

        Raises:
            ValueError: an argument is out of range.
        """
        if len(name) > 64:
            raise ValueError(f"name of {len(name)} characters: at most 64")
        request = codec.open_request(
            name=name,
            model=model,
            max_in_flight=max_in_flight,
            deadline_ms=deadline_ms,
            weight=weight,
            score_threshold=score_threshold,
            max_detections=max_detections,
        )
        return FrameStream(
            self,
            name=name,
            open_request=request,
            on_result=on_result,
            on_drop=on_drop,
            on_error=on_error,
            on_notice=on_notice,
        )

    # --- for FrameStream

    def call(self, requests: Iterator[bytes]) -> Any:
        """Start the RPC of a stream."""
        return self._stream_frames(requests)

    def watch(self, stream: FrameStream) -> None:
        """Call `stream.tick` about twice a second until `unwatch`."""
        with self._lock:
            self._watched.add(stream)
            if self._watch is None:
                self._watch = threading.Thread(target=self._watch_streams, name="headworks-watch", daemon=True)
                self._watch.start()

    def unwatch(self, stream: FrameStream) -> None:
        """Leave the stream alone from now on."""
        with self._lock:
            self._watched.discard(stream)

    def _watch_streams(self) -> None:
        while not self._stop.wait(WATCH_INTERVAL_S):
            with self._lock:
                streams = list(self._watched)
            for stream in streams:
                stream.tick()

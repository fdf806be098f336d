"""A camera's way to its servers: gRPC channels of its own and a watch over its streams. The door of this package.

Plain synchronous gRPC, not grpc.aio: all event loops of a process share one completion queue, so a loop of ours
would disturb one of the application's. It costs under 10 % more CPU a frame (bench/client_send.py). Applications that
are asynchronous themselves take `headworks.aio`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import grpc

from headworks import infer
from headworks.errors import ConnectionFailedError
from headworks.options import StreamOptions, make_plan
from headworks.outcomes import Result
from headworks.stream import FrameStream
from headworks.transport import DEFAULT_TARGET as DEFAULT_TARGET
from headworks.transport import INFER_FRAME, STREAM_FRAMES, Access, ChannelBook, Lease, TlsOptions

WATCH_INTERVAL_S = 0.5
"""How often streams look at the clock: a quarter of the time after which silence is answered with a Ping."""


class Client:
    """The way to one Headworks server, or to several that stand in for each other, for any number of streams.

    Connects when the first stream opens.

    Args:
        target: "host:port", or a list of them: a stream that loses its server goes to the next.
        tls: TLS options; None for plain text.
        token: a bearer token, or as a `Path` the file that holds it, which is read for each connection.
        insecure: send the token in plain text over a network, too.
        open_timeout_s: seconds to wait for the grant of a stream.
        close_timeout_s: seconds to wait for Closed after End.
        now_ns: the monotonic clock, in nanoseconds.

    Raises:
        ValueError: there is no target, or the token would cross a network in plain text.
        CredentialsError: a file with a certificate, a key or a token cannot be used.
    """

    def __init__(
        self,
        target: str | Sequence[str] = DEFAULT_TARGET,
        *,
        tls: TlsOptions | None = None,
        token: str | Path | None = None,
        insecure: bool = False,
        open_timeout_s: float = 10.0,
        close_timeout_s: float = 30.0,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._access = Access(target, tls=tls, token=token, insecure=insecure)
        self.targets = self._access.targets
        self.target = self.targets[0]
        self.open_timeout_s = open_timeout_s
        self.close_timeout_s = close_timeout_s
        self.now_ns = now_ns
        self._channels = ChannelBook(lambda target: self._access.channel(target, grpc))
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
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections; streams that are still open break. May be called twice."""
        self._stop.set()
        with self._lock:
            streams, channels = list(self._watched), self._channels.drain()
        for stream in streams:
            stream.abandon()
        for channel in channels:
            channel.close()
        watch = self._watch
        if watch is not None and watch is not threading.current_thread():
            watch.join()

    def stream(self, model: str | None = None, **options: Unpack[StreamOptions]) -> FrameStream:
        """Return a stream for one camera; it opens when its `with` statement is entered.

        Args:
            model: name of the model; None for the only one of the server.
            **options: each may be left out:

                - name: for logs and tables, at most 64 characters, need not be unique.
                - policy: how frames wait when they come faster than they are served. "latest" (the default): one
                  waits, a newer one replaces it. "bounded": up to `depth` wait. "every_frame", for files: nothing is
                  dropped for lack of room, `send` waits.
                - depth: of "bounded", at least 1, here and at the server.
                - drop: which frame gives way in a full "bounded" queue: "oldest" (the default) or "newest".
                - max_in_flight: frames in work at one time; 0 for the server's default.
                - max_fps: frames a second, the server drops what is beyond; 0 for no limit.
                - deadline_ms: milliseconds from receipt at the server to the result; 0 for none.
                - weight: share in the round robin, 1 to 16; 0 means 1.
                - form: of the results, "detections", "classifications" or "raw_tensors"; None for the model's own.
                - score_threshold: only scores above this are told; 0 for the model's default.
                - max_detections: detections a frame at most, the best by score; 0 for the model's default.
                - top_k: classes a classification tells; 0 for the model's default.
                - reconnect: whether a connection that broke is followed by another one; on by default.
                - open_retry_s: how long entering goes on trying where nobody answers, for cameras that start before
                  their server; `math.inf` for as long as it takes. 0, the default: each target once.
                - on_result, on_drop, on_error, on_lost: called with each outcome of that kind. Outcomes without a
                  callback can be read by a loop over the stream; drops, errors and losses are logged otherwise.
                - on_notice: called with each Notice; without it, notices are logged.
                - on_connection: called when a connection was opened or lost, and when an attempt to open one failed;
                  without it, these are logged.

        Raises:
            ValueError: an option is out of range, or does not go with another.
        """
        return FrameStream(self, *make_plan(self.targets, model, open_timeout_s=self.open_timeout_s, **options))

    def infer(
        self,
        data: Any,
        *,
        encoding: str | None = None,
        width: int = 0,
        height: int = 0,
        model: str | None = None,
        form: str | None = None,
        score_threshold: float = 0.0,
        max_detections: int = 0,
        top_k: int = 0,
        timeout: float = 30.0,
    ) -> Result:
        """Return the result for one picture, for scripts and tests; a camera takes a stream.

        A Result of this kind knows no labels: a label is its class_id in digits.

        Args:
            data: a picture, as for `FrameStream.send`; so are encoding, width and height.
            encoding: see there.
            width: see there.
            height: see there.
            model: name of the model; None for the only one of the server.
            form: as for `stream`; so are the next three.
            score_threshold: see there.
            max_detections: see there.
            top_k: see there.
            timeout: seconds to wait for the result.

        Raises:
            ConnectionFailedError: nobody answered, at any of the targets.
            InferFailedError: the server gave no result, or not in time.
            ValueError: an argument makes no sense.
        """
        request = infer.request(
            data,
            encoding=encoding,
            width=width,
            height=height,
            model=model,
            form=form,
            score_threshold=score_threshold,
            max_detections=max_detections,
            top_k=top_k,
        )
        for target in self.targets:
            lease = self._lease(target)
            start = time.monotonic()
            stale = False
            try:
                reply = lease.channel.unary_unary(INFER_FRAME)(
                    request, timeout=timeout, metadata=self._access.metadata()
                )
                return infer.result(reply, seconds=time.monotonic() - start)
            except grpc.RpcError as error:
                failure = infer.failure(target, error)
                stale = isinstance(failure, ConnectionFailedError)
            finally:
                self.release(lease, stale=stale)
            if not stale:
                break
        raise failure

    # --- for FrameStream

    def call(self, target: str, requests: Iterator[bytes]) -> tuple[Lease, Any]:
        """Start the RPC of a stream; the lease is to be given to `release` when it has ended.

        Raises:
            HeadworksError: a file is missing, or the client has been closed.
        """
        metadata = self._access.metadata()
        lease = self._lease(target)
        try:
            # Raw bytes both ways: requests are built by hand, answers are parsed on the stream's own thread.
            return lease, lease.channel.stream_stream(STREAM_FRAMES)(requests, metadata=metadata)
        except ValueError as error:  # closed between the two lines
            raise ConnectionFailedError(target, str(error)) from error

    def release(self, lease: Lease, *, stale: bool) -> None:
        """A call has ended; `stale` where the next one should have a channel of its own."""
        with self._lock:
            channel = self._channels.release(lease, stale=stale)
        if channel is not None:
            channel.close()

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

    def _lease(self, target: str) -> Lease:
        with self._lock:
            if self._stop.is_set():
                raise ConnectionFailedError(target, "the client was closed")
            return self._channels.lease(target)

    def _watch_streams(self) -> None:
        while not self._stop.wait(WATCH_INTERVAL_S):
            with self._lock:
                streams = list(self._watched)
            for stream in streams:
                stream.tick()

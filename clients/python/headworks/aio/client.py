"""The asyncio twin of `headworks.client`: channels of grpc.aio for any number of streams, all in one event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import grpc
import grpc.aio

from headworks import infer
from headworks.aio.stream import FrameStream
from headworks.errors import ConnectionFailedError
from headworks.options import StreamOptions, make_plan
from headworks.outcomes import Result
from headworks.transport import DEFAULT_TARGET, INFER_FRAME, STREAM_FRAMES, Access, ChannelBook, Lease, TlsOptions


class Client:
    """The way to one Headworks server, or to several that stand in for each other; see `headworks.Client`.

    To be made and used in one event loop.
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
        self._channels = ChannelBook(lambda target: self._access.channel(target, grpc.aio))
        self._streams: set[FrameStream] = set()
        self._closed = False

    async def __aenter__(self) -> Client:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections; streams that are still open break. May be called twice."""
        self._closed = True
        for stream in list(self._streams):
            stream.abandon()
        for channel in self._channels.drain():
            await channel.close()

    def stream(self, model: str | None = None, **options: Unpack[StreamOptions]) -> FrameStream:
        """Return a stream for one camera; it opens when its `async with` statement is entered.

        The options are those of `headworks.Client.stream`. A callback may be a coroutine function: its outcome counts
        as told when it has returned.

        Raises:
            ValueError: an option is out of range, or does not go with another.
        """
        return FrameStream(self, *make_plan(self.targets, model, open_timeout_s=self.open_timeout_s, **options))

    async def infer(
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
        """Return the result for one picture; see `headworks.Client.infer`."""
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
                call = lease.channel.unary_unary(INFER_FRAME)
                reply = await call(request, timeout=timeout, metadata=self._access.metadata())
                return infer.result(reply, seconds=time.monotonic() - start)
            except grpc.RpcError as error:
                failure = infer.failure(target, error)
                stale = isinstance(failure, ConnectionFailedError)
            finally:
                await self.release(lease, stale=stale)
            if not stale:
                break
        raise failure

    # --- for FrameStream

    def call(self, target: str) -> tuple[Lease, Any]:
        """Start the RPC of a stream; the lease is to be given to `release` when it has ended.

        Raises:
            HeadworksError: a file is missing, or the client has been closed.
        """
        metadata = self._access.metadata()
        lease = self._lease(target)
        return lease, lease.channel.stream_stream(STREAM_FRAMES)(metadata=metadata)

    async def release(self, lease: Lease, *, stale: bool) -> None:
        """A call has ended; `stale` where the next one should have a channel of its own."""
        channel = self._channels.release(lease, stale=stale)
        if channel is not None:
            await channel.close()

    def watch(self, stream: FrameStream) -> None:
        """Have the stream abandoned when the client closes, until `unwatch`."""
        self._streams.add(stream)

    def unwatch(self, stream: FrameStream) -> None:
        """Leave the stream alone from now on."""
        self._streams.discard(stream)

    def _lease(self, target: str) -> Lease:
        if self._closed:
            raise ConnectionFailedError(target, "the client was closed")
        return self._channels.lease(target)

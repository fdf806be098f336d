"""One call of StreamFrames and its two ends: gRPC's thread, which asks for requests, and the stream's, which reads.

Made by `FrameStream` for each `ClientSession` of its supervisor. The stream's lock guards the session; no gRPC call
runs under it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from headworks import failures
from headworks.errors import HeadworksError, ProtocolError
from headworks.mailbox import OutgoingFrame
from headworks.session import ClientSession
from headworks.transport import Lease

if TYPE_CHECKING:
    from headworks.client import Client


class Connection:
    """One call, from its start to its status.

    Args:
        client: whose channel is used.
        name: of the stream.
        session: what is to be said.
        lock: guards the session.
        on_message: called with each message, outside the lock; may raise ProtocolError or DecodeError.
        on_frame: called under the lock when a frame has left the mailbox.
    """

    def __init__(
        self,
        client: Client,
        *,
        name: str,
        session: ClientSession,
        lock: threading.Lock,
        on_message: Callable[[Connection, bytes], None],
        on_frame: Callable[[], None],
    ) -> None:
        self.session = session
        self._client = client
        self._name = name
        self._sendable = threading.Condition(lock)  # gRPC's thread waits here for something to write
        self._on_message, self._on_frame = on_message, on_frame
        self._call: Any = None
        self._lease: Lease | None = None
        self._failure: HeadworksError | None = None
        self._over = False

    def wake(self) -> None:
        """There may be something to write. Under the lock."""
        self._sendable.notify()

    def cancel(self, failure: HeadworksError) -> None:
        """Give the call up, which then ends with this failure. Not under the lock."""
        with self._sendable:
            if self._failure is None and not self._over:
                self._failure = failure
            call = self._call
        if call is not None:
            call.cancel()

    def spoil_channel(self) -> None:
        """The server drains: the stream's next connection needs a channel that may lead elsewhere."""
        if self._lease is not None:
            self._lease.stale = True

    def run(self) -> HeadworksError | None:
        """Call, and read to the end; return why it ended, None for a Closed and the status OK."""
        failure: HeadworksError | None = None
        try:
            self._lease, call = self._client.call(self.session.target, _Requests(self))
            with self._sendable:
                self._call, cancelled = call, self._failure is not None
            if cancelled:
                call.cancel()
            for message in call:
                self._on_message(self, message)
            failure = failures.of_ok(self._name, self.session)
        except grpc.RpcError as error:
            failure = failures.of_status(self._name, self.session, error)
        except HeadworksError as error:  # the server broke the contract, or a file for the connection is missing
            failure = error
        except DecodeError as error:
            failure = failures.of_message(error)
        if isinstance(failure, ProtocolError):
            self._call.cancel()
        with self._sendable:
            self._over = True
            failure = self._failure or failure
            self._sendable.notify_all()
        if self._lease is not None:
            self._client.release(self._lease, stale=failures.spoils_channel(failure, self.session))
        return failure

    def next_request(self) -> bytes:
        """Wait for the next request and return it; StopIteration after End. Called by gRPC's thread only."""
        with self._sendable:
            while True:
                request = self.session.poll(self._client.now_ns())
                if request is not None:
                    break
                if self.session.writing_is_over or self._over:
                    raise StopIteration
                self._sendable.wait()
            if isinstance(request, OutgoingFrame):
                self._on_frame()
        # The copy of the payload happens here, outside the lock.
        return request.to_bytes() if isinstance(request, OutgoingFrame) else request


class _Requests:
    """What gRPC iterates over."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> bytes:
        return self._connection.next_request()

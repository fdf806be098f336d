"""One call of StreamFrames on grpc.aio: a task that reads, run by the stream, and one that writes beside it.

Made by `FrameStream` for each `ClientSession` of its supervisor. The call is ended by cancelling the call, not the
tasks: a task that is cancelled while gRPC works for it leaves that work behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from headworks import failures
from headworks.errors import HeadworksError, StreamBrokenError
from headworks.mailbox import OutgoingFrame
from headworks.session import ClientSession
from headworks.transport import Lease

if TYPE_CHECKING:
    from headworks.aio.client import Client


class Connection:
    """One call, from its start to its status.

    Args:
        client: whose channel is used.
        name: of the stream.
        session: what is to be said.
        on_message: called with each message; may raise ProtocolError or DecodeError.
        on_frame: called when a frame has left the mailbox.
    """

    def __init__(
        self,
        client: Client,
        *,
        name: str,
        session: ClientSession,
        on_message: Callable[[Connection, bytes], Awaitable[None]],
        on_frame: Callable[[], None],
    ) -> None:
        self.session = session
        self._client = client
        self._name = name
        self._sendable = asyncio.Event()
        self._on_message, self._on_frame = on_message, on_frame
        self._call: Any = None
        self._lease: Lease | None = None
        self._failure: HeadworksError | None = None
        self._writing = self._over = False

    def wake(self) -> None:
        """There may be something to write."""
        self._sendable.set()

    def cancel(self, failure: HeadworksError) -> None:
        """Give the call up, which then ends with this failure."""
        self._failure = self._failure or failure
        if self._call is not None:
            self._call.cancel()

    def spoil_channel(self) -> None:
        """The server drains: the stream's next connection needs a channel that may lead elsewhere."""
        if self._lease is not None:
            self._lease.stale = True

    async def run(self) -> HeadworksError | None:
        """Call, and read to the end; return why it ended, None for a Closed and the status OK."""
        failure: HeadworksError | None = None
        try:
            self._lease, self._call = self._client.call(self.session.target)
            failure = await self._talk()
        except HeadworksError as error:  # the server broke the contract, or a file for the connection is missing
            failure = error
        except DecodeError as error:
            failure = failures.of_message(error)
        finally:
            if self._call is not None:
                self._call.cancel()  # nothing, where it has ended by itself
            failure = self._failure or failure
            if self._lease is not None:
                await self._client.release(self._lease, stale=failures.spoils_channel(failure, self.session))
        return failure

    async def _talk(self) -> HeadworksError | None:
        writer = asyncio.create_task(self._write())
        try:
            async for message in self._call:
                await self._on_message(self, message)
            return failures.of_ok(self._name, self.session)
        except grpc.RpcError as error:
            return failures.of_status(self._name, self.session, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the loop shuts down
            # The call was cancelled, not the task.
            return self._failure or StreamBrokenError(self._name, "CANCELLED", "the call was cancelled")
        finally:
            self._call.cancel()
            self._over = True
            self.wake()
            if not self._writing:
                writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self) -> None:
        session = self.session
        try:
            await self._call.wait_for_connection()
            # grpc.aio's own `write` puts INTERNAL in the place of the server's status where it comes too late
            # (grpc#36066). The one beneath it only fails.
            core = getattr(self._call, "_cython_call", None)
            write = core.send_serialized_message if core is not None else self._call.write
            while True:
                request = None if self._over else session.poll(self._client.now_ns())
                if isinstance(request, OutgoingFrame):
                    self._on_frame()
                    request = request.to_bytes()
                if request is not None:
                    self._writing = True
                    await write(request)
                    self._writing = False
                elif session.writing_is_over or self._over:
                    break
                else:
                    self._sendable.clear()
                    await self._sendable.wait()
            if not self._over:
                await self._call.done_writing()
        except (grpc.RpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            return  # the call has ended: the reader says why

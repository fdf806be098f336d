"""One camera's stream on asyncio: the twin of `headworks.stream`, around the same `StreamSupervisor`.

A task opens a connection, reads it to its end, and opens the next one; while a server drains, a second task opens the
next connection beside the old one. A third one looks at the clock. Everything happens in one event loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Sequence
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headworks import failures
from headworks.account import Account
from headworks.aio.connection import Connection
from headworks.aio.signal import Signal
from headworks.delivery import Callbacks, Delivery, say
from headworks.errors import ConnectionFailedError, HeadworksError, StreamBrokenError, StreamRefusedError
from headworks.mailbox import OutgoingFrame
from headworks.outcomes import Closed, ConnectionOpened, Opened, Outcome
from headworks.picture import as_picture
from headworks.reconnect import StreamPlan, StreamSupervisor, Told
from headworks.v1 import frame_pb2

if TYPE_CHECKING:
    from headworks.aio.client import Client

WATCH_INTERVAL_S = 0.5
"""How often a stream looks at the clock: a quarter of the time after which silence is answered with a Ping."""


class FrameStream:
    """Sends the frames of one camera and tells what became of each; see `headworks.FrameStream`.

    Entering (`async with`) opens the stream and waits for the server's grant; leaving sends End and waits for Closed.
    A task that is cancelled inside cuts the stream off. Outcomes without a callback can be read by a loop
    (`async for outcome in stream`), which ends when the stream does.
    """

    def __init__(self, client: Client, plan: StreamPlan, callbacks: Callbacks) -> None:
        self.name = plan.name
        self._client = client
        self._now_ns = client.now_ns
        self._waits = plan.policy.kind == "every_frame"
        self._supervisor = StreamSupervisor(plan)
        self._mailbox = self._supervisor.mailbox
        self._delivery = Delivery(plan.name, callbacks, lossless=self._waits)
        self._changed = Signal()  # opened, outcome, room, time to connect, finished
        self._delivering = asyncio.Lock()  # callbacks come one at a time, though two connections may be open
        self._connections: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connector: asyncio.Task[None] | None = None  # the task that opens the next connection
        self._watch: asyncio.Task[None] | None = None
        self._finished = False

    # --- the application's side

    async def __aenter__(self) -> FrameStream:
        """Open the stream and wait for the grant.

        Raises:
            ConnectionFailedError: nobody answered, or not in time.
            StreamRefusedError: the server said no.
            CredentialsError: a file with a certificate, a key or a token cannot be used.
        """
        self._client.watch(self)
        self._supervisor.begin(self._now_ns())
        self._start_connector()
        self._watch = asyncio.create_task(self._watch_clock(), name=f"headworks-{self.name}-watch")
        try:
            await self._await_opened()
        except BaseException:  # cancelled while nobody answers
            await self._abort()
            raise
        if self._supervisor.opened is None:
            await self._join()
            raise self._supervisor.failure or StreamRefusedError(self._client.target, "UNKNOWN", "no reason was given")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stream; where the body raised, cut it off instead, so that its exception is not held up."""
        if kind is None:
            await self.close()
        else:
            await self._abort()

    async def send(
        self,
        data: bytes | bytearray | memoryview | Any,
        *,
        encoding: str | None = None,
        width: int = 0,
        height: int = 0,
        frame_id: int | None = None,
        capture_time_ns: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Offer a frame and return its frame_id; see `headworks.FrameStream.send`.

        Under "latest" and "bounded" this gives other tasks a turn and waits for nothing else; under "every_frame" it
        waits for room.

        Raises:
            HeadworksError: the stream has broken; or this would wait for ever.
            TimeoutError: there was no room in time; the frame was not offered.
            ValueError: an argument makes no sense, or the stream has been ended.
        """
        opened = self._supervisor.opened
        limit = opened.max_frame_bytes if opened is not None else 0
        picture = as_picture(data, encoding=encoding, width=width, height=height, max_frame_bytes=limit)
        wall_ns, now_ns = time_ns(), self._now_ns()
        captured_ns = now_ns if capture_time_ns is None else now_ns - (wall_ns - capture_time_ns)
        await asyncio.sleep(0)
        if self._waits:
            await self._wait_for_room(timeout)
        if self._supervisor.failure is not None:
            raise self._supervisor.failure
        number = self._mailbox.next_frame_id() if frame_id is None else frame_id
        frame = OutgoingFrame(
            number,
            captured_ns,
            wall_ns if capture_time_ns is None else capture_time_ns,
            picture.encoding,
            picture.width,
            picture.height,
            picture.payload,
        )
        self._mailbox.offer(frame)
        for connection in self._connections:
            connection.wake()
        return number

    def end(self) -> None:
        """Say that no frame follows, without waiting: a loop over the stream then ends with its last outcome."""
        self._supervisor.end()
        self._wake()

    async def close(self) -> None:
        """End the stream and wait for Closed and for the last callback.

        Raises:
            HeadworksError: the stream broke, or Closed did not come in time.
        """
        if self._connector is None:
            return  # never opened
        self.end()
        if asyncio.current_task() not in self._tasks:
            limit_s = self._client.close_timeout_s
            try:
                finished = await self._changed.wait_for(lambda: self._finished, limit_s)
            except BaseException:
                await self._abort()
                raise
            if not finished:
                self._cut(StreamBrokenError(self.name, "DEADLINE_EXCEEDED", f"no Closed within {limit_s:g} s of End"))
            await self._join()
        if self._supervisor.failure is not None:
            raise self._supervisor.failure

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        """Yield the outcomes that have no callback, until the stream has ended.

        Raises:
            HeadworksError: after the last outcome, where the stream broke.
        """
        self._delivery.looping = True
        unread = self._delivery.unread
        while True:
            await self._changed.wait_for(lambda: unread or self._finished)
            if not unread:
                break
            outcome = unread.popleft()
            if self._waits:
                self._changed.notify_all()
            yield outcome
        if self._supervisor.failure is not None:
            raise self._supervisor.failure

    @property
    def opened(self) -> Opened:
        """What the server of the last connection granted; its models as the last notice told them."""
        opened = self._supervisor.opened
        if opened is None:
            raise HeadworksError(f"stream {self.name!r} has not been opened: use it in an `async with` statement")
        return opened

    @property
    def closed(self) -> Closed | None:
        """The last server's last word, once it has come."""
        return self._supervisor.closed

    @property
    def account(self) -> Account:
        """Where every frame has gone so far, over all connections."""
        return self._supervisor.account()

    def abandon(self) -> None:
        """The client has been closed: connect no more."""
        self._cut(StreamBrokenError(self.name, "CANCELLED", "the client was closed"))

    # --- the stream's own tasks

    def _start_connector(self) -> None:
        """Have a new task open the next connection."""
        task = asyncio.create_task(self._run(), name=f"headworks-{self.name}")
        self._connector = task
        self._tasks.add(task)

    async def _run(self) -> None:
        """Open connections, one after another, and read each to its end."""
        task = asyncio.current_task()
        assert task is not None
        try:
            while (connection := await self._connect()) is not None:
                failure = await connection.run()
                async with self._delivering:  # nothing of a newer connection comes between
                    self._connections.remove(connection)
                    told = self._supervisor.ended(connection.session, failure, self._now_ns())
                    self._wake()
                    await self._deliver(told)
            if self._supervisor.idle and not self._supervisor.finished:
                await self._conclude(self._supervisor.finish())
        finally:
            self._tasks.discard(task)

    async def _connect(self) -> Connection | None:
        """Wait until a connection is due and return it; None where none is, or another task is to open it."""
        supervisor = self._supervisor
        while True:
            due_ns = supervisor.next_connect_ns
            if due_ns is None or self._connector is not asyncio.current_task():
                return None
            delay_ns = due_ns - self._now_ns()
            if delay_ns <= 0:
                break
            await self._changed.wait_for(lambda: supervisor.next_connect_ns != due_ns, delay_ns / 1e9)  # noqa: B023
        connection = Connection(
            self._client,
            name=self.name,
            session=supervisor.connect(self._now_ns()),
            on_message=self._receive,
            on_frame=self._changed.notify_all if self._waits else _nothing,
        )
        self._connections.append(connection)
        self._changed.notify_all()
        return connection

    async def _receive(self, connection: Connection, message: bytes) -> None:
        told: list[Told] = []
        try:
            now_ns = self._now_ns()
            for event in frame_pb2.StreamFramesResponse.FromString(message).events:
                item = self._supervisor.receive(connection.session, event, now_ns)
                if item is not None:
                    told.append(item)
            if told and isinstance(told[0], ConnectionOpened):
                self._wake()  # a connection that drains may be left now
            elif connection.session.has_due(now_ns):
                connection.wake()
            if self._supervisor.next_connect_ns is not None and self._connector is asyncio.current_task():
                connection.spoil_channel()
                self._start_connector()  # the server drains: this task reads on
        finally:  # what was told before a ProtocolError was told all the same
            if told:
                async with self._delivering:
                    await self._deliver(told)

    async def _deliver(self, told: Sequence[Told]) -> None:
        """Hand items to their callbacks, or keep them for the loop and the log."""
        for item in told:
            callback = self._delivery.callback(item)
            if callback is None:
                say(self._delivery.keep(item, self._now_ns()))
                self._changed.notify_all()
                continue
            try:
                answer = callback(item)
                if inspect.isawaitable(answer):
                    await answer
            except Exception:
                self._delivery.failed(item)

    async def _conclude(self, told: Sequence[Told]) -> None:
        """The stream is over: tell what is left, wake everybody."""
        async with self._delivering:
            await self._deliver(told)
        self._client.unwatch(self)
        self._finished = True
        if self._watch is not None:
            self._watch.cancel()
        self._wake()
        say(self._delivery.line(self._now_ns(), last=True))

    async def _watch_clock(self) -> None:
        """Wake writers for a Ping, give up silent servers, say what is due in the log."""
        while not self._finished:
            await asyncio.sleep(WATCH_INTERVAL_S)
            now_ns = self._now_ns()
            for connection in list(self._connections):
                if connection.session.is_dead(now_ns):
                    connection.cancel(failures.of_silence(self.name, connection.session))
                elif connection.session.has_due(now_ns):
                    connection.wake()
            say(self._delivery.line(now_ns))

    def _cut(self, failure: HeadworksError) -> None:
        """Give the stream up; its tasks then finish it."""
        self._supervisor.cut(failure)
        self._wake()
        for connection in self._connections:
            connection.cancel(failure)

    async def _abort(self) -> None:
        """Cut the stream off and see its tasks end."""
        self._cut(StreamBrokenError(self.name, "CANCELLED", "the application left with an exception"))
        await self._join()

    async def _await_opened(self) -> None:
        """Wait for the first grant or the end of trying; each attempt has the client's time limit."""
        supervisor, limit_s = self._supervisor, self._client.open_timeout_s
        while supervisor.opened is None and not self._finished:
            attempt = supervisor.attempts
            settled = await self._changed.wait_for(
                lambda: supervisor.opened is not None or self._finished or supervisor.attempts != attempt,  # noqa: B023
                limit_s,
            )
            for connection in [] if settled else self._connections:
                connection.cancel(
                    ConnectionFailedError(connection.session.target, f"no answer to Open in {limit_s:g} s")
                )

    async def _wait_for_room(self, seconds: float | None) -> None:
        """Wait until the mailbox takes a frame."""
        mailbox, delivery = self._mailbox, self._delivery

        def is_settled() -> bool:
            if self._supervisor.failure is not None or self._finished or mailbox.ended:
                return True
            return delivery.is_stuck or (mailbox.has_room and not delivery.is_full)

        if not is_settled() and asyncio.current_task() in self._tasks:
            raise HeadworksError(
                f"stream {self.name!r}: send would wait for ever in a callback, which holds up the stream"
            )
        if not await self._changed.wait_for(is_settled, seconds):
            raise TimeoutError(f"stream {self.name!r}: no room for another frame within {seconds:g} s")
        if self._supervisor.failure is None:
            delivery.check_stuck()

    def _wake(self) -> None:
        """Something has changed that anybody may wait for."""
        for connection in self._connections:
            connection.wake()
        self._changed.notify_all()

    async def _join(self) -> None:
        """Wait until no task of the stream is left; not in a callback, which is run by one of them."""
        if asyncio.current_task() in self._tasks:
            return
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])


def _nothing() -> None:
    pass

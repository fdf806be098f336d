"""One camera's stream: `StreamSupervisor` and the threads around it. Made by `Client.stream`, used in a `with`.

A thread of the stream opens a connection, reads it to its end, and opens the next one; while a server drains, a
second thread opens the next connection beside the old one. `send` only touches the mailbox. One lock guards the
supervisor and its sessions; no callback and no gRPC call runs under it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headworks import failures
from headworks.account import Account
from headworks.connection import Connection
from headworks.delivery import Callbacks, Delivery, say
from headworks.errors import (
    ConnectionFailedError,
    HeadworksError,
    StreamBrokenError,
    StreamRefusedError,
)
from headworks.mailbox import OutgoingFrame
from headworks.outcomes import Closed, ConnectionOpened, Opened, Outcome
from headworks.picture import as_picture
from headworks.reconnect import StreamPlan, StreamSupervisor, Told
from headworks.v1 import frame_pb2

if TYPE_CHECKING:
    from headworks.client import Client


class FrameStream:
    """Sends the frames of one camera and tells what became of each.

    Entering opens the stream and waits for the server's grant; leaving sends End and waits for Closed. `send`
    may be called from any thread. Callbacks run on threads of the stream, one at a time: a slow one delays the next.
    A connection that breaks is followed by another one, unless `reconnect=False` was asked for.

    Outcomes without a callback can be read by a loop (`for outcome in stream`), which ends when the stream does.
    Drops, errors and losses that have neither a callback nor a loop are logged as warnings of the logger "headworks".
    """

    def __init__(self, client: Client, plan: StreamPlan, callbacks: Callbacks) -> None:
        self.name = plan.name
        self._client = client
        self._now_ns = client.now_ns
        self._waits = plan.policy.kind == "every_frame"
        self._supervisor = StreamSupervisor(plan)
        self._mailbox = self._supervisor.mailbox
        self._delivery = Delivery(plan.name, callbacks, lossless=self._waits)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # opened, outcome, time to connect, finished
        self._room = threading.Condition(self._lock)  # `send` waits here under "every_frame"
        self._delivering = threading.RLock()  # callbacks come one at a time, though two connections may be open
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._connector: threading.Thread | None = None  # the thread that opens the next connection
        self._finished = False

    # --- the application's side

    def __enter__(self) -> FrameStream:
        """Open the stream and wait for the grant.

        Raises:
            ConnectionFailedError: nobody answered, or not in time.
            StreamRefusedError: the server said no.
            CredentialsError: a file with a certificate, a key or a token cannot be used.
        """
        self._client.watch(self)
        with self._lock:
            self._supervisor.begin(self._now_ns())
            self._start_connector()
        try:
            self._await_opened()
        except BaseException:  # Ctrl-C while nobody answers
            self._cut(StreamBrokenError(self.name, "CANCELLED", "the application left with an exception"))
            raise
        if self._supervisor.opened is None:
            self._join()
            raise self._supervisor.failure or StreamRefusedError(self._client.target, "UNKNOWN", "no reason was given")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stream; where the body raised, cut it off instead, so that its exception is not held up."""
        if kind is None:
            self.close()
            return
        self._cut(StreamBrokenError(self.name, "CANCELLED", "the application left with an exception"))
        self._join()

    def send(
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
        """Offer a frame and return its frame_id.

        Under "latest" and "bounded" this never waits: where the mailbox is full, a frame gives way. Under
        "every_frame" it waits until the frame before has been written, for which the server must have room.

        Args:
            data: an encoded picture, raw pixels, or an array of uint8: [height, width, 3], [height, width], or for
                nv12 and i420 [height * 3 / 2, width]. Anything but `bytes` is copied before this returns.
            encoding: "jpeg", "png", "webp", "bgr24", "rgb24", "gray8", "nv12" or "i420". Where it is not given: for
                arrays "bgr24" or "gray8" by their shape, for all else "jpeg".
            width: pixels; needed for raw pixels that are no array. For nv12 and i420 width and height are even.
            height: pixels; the same.
            frame_id: greater than the last one; counts 1, 2, 3 where not given.
            capture_time_ns: nanoseconds since the epoch, now where not given.
            timeout: seconds to wait for room at most; None for as long as it takes.

        Raises:
            HeadworksError: the stream has broken, with the same error that leaving it raises; or, under
                "every_frame", this would wait for ever, because it is a callback or nobody reads the outcomes.
            TimeoutError: there was no room in time; the frame was not offered.
            ValueError: an argument makes no sense, or the stream has been ended.
        """
        opened = self._supervisor.opened
        limit = opened.max_frame_bytes if opened is not None else 0
        picture = as_picture(data, encoding=encoding, width=width, height=height, max_frame_bytes=limit)
        wall_ns, now_ns = time_ns(), self._now_ns()
        captured_ns = now_ns if capture_time_ns is None else now_ns - (wall_ns - capture_time_ns)
        with self._lock:
            if self._waits:
                self._wait_for_room(timeout)
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
        with self._lock:
            self._supervisor.end()
            self._wake()

    def close(self) -> None:
        """End the stream and wait for Closed and for the last callback.

        Raises:
            HeadworksError: the stream broke, or Closed did not come in time.
        """
        if self._connector is None:
            return  # never opened
        self.end()
        if threading.current_thread() not in self._threads:
            limit_s = self._client.close_timeout_s
            with self._changed:
                finished = self._changed.wait_for(lambda: self._finished, limit_s)
            if not finished:
                self._cut(StreamBrokenError(self.name, "DEADLINE_EXCEEDED", f"no Closed within {limit_s:g} s of End"))
            self._join()
        if self._supervisor.failure is not None:
            raise self._supervisor.failure

    def __iter__(self) -> Iterator[Outcome]:
        """Yield the outcomes that have no callback, until the stream has ended.

        Raises:
            HeadworksError: after the last outcome, where the stream broke.
        """
        self._delivery.looping = True
        unread = self._delivery.unread
        while True:
            with self._changed:
                self._changed.wait_for(lambda: unread or self._finished)
                if not unread:
                    break
                outcome = unread.popleft()
                self._room.notify()
            yield outcome
        if self._supervisor.failure is not None:
            raise self._supervisor.failure

    @property
    def opened(self) -> Opened:
        """What the server of the last connection granted; its models as the last notice told them."""
        opened = self._supervisor.opened
        if opened is None:
            raise HeadworksError(f"stream {self.name!r} has not been opened: use it in a `with` statement")
        return opened

    @property
    def closed(self) -> Closed | None:
        """The last server's last word, once it has come."""
        return self._supervisor.closed

    @property
    def account(self) -> Account:
        """Where every frame has gone so far, over all connections."""
        with self._lock:
            return self._supervisor.account()

    # --- the client's watch

    def tick(self) -> None:
        """Look at the clock: wake writers for a Ping, give up a silent server. Called about twice a second.

        Not the writers' own business, for they may be stuck in a write to the very peer that has died.
        """
        with self._lock:
            now_ns = self._now_ns()
            dead = [connection for connection in self._connections if connection.session.is_dead(now_ns)]
            for connection in self._connections:
                if connection.session.has_due(now_ns):
                    connection.wake()
            line = self._delivery.line(now_ns)
        say(line)
        for connection in dead:
            connection.cancel(failures.of_silence(self.name, connection.session))

    def abandon(self) -> None:
        """The client has been closed: connect no more. Its channels cut the calls."""
        self._cut(StreamBrokenError(self.name, "CANCELLED", "the client was closed"))

    # --- the stream's own threads

    def _start_connector(self) -> None:
        """Have a new thread open the next connection. Under the lock."""
        thread = threading.Thread(target=self._run, name=f"headworks-{self.name}", daemon=True)
        self._connector = thread
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        """Open connections, one after another, and read each to its end."""
        while (connection := self._connect()) is not None:
            failure = connection.run()
            with self._delivering:  # nothing of a newer connection comes between
                with self._lock:
                    self._connections.remove(connection)
                    told = self._supervisor.ended(connection.session, failure, self._now_ns())
                    self._wake()
                self._deliver(told)
        with self._lock:
            last = self._supervisor.idle and not self._supervisor.finished
            told = self._supervisor.finish() if last else []
        if last:
            self._conclude(told)
        with self._lock:
            self._threads.remove(threading.current_thread())

    def _connect(self) -> Connection | None:
        """Wait until a connection is due and return it; None where none is, or another thread is to open it."""
        with self._changed:
            while True:
                due_ns = self._supervisor.next_connect_ns
                if due_ns is None or self._connector is not threading.current_thread():
                    return None
                delay_ns = due_ns - self._now_ns()
                if delay_ns <= 0:
                    break
                self._changed.wait(delay_ns / 1e9)
            connection = Connection(
                self._client,
                name=self.name,
                session=self._supervisor.connect(self._now_ns()),
                lock=self._lock,
                on_message=self._receive,
                on_frame=self._room.notify if self._waits else _nothing,
            )
            self._connections.append(connection)
            self._changed.notify_all()
            return connection

    def _receive(self, connection: Connection, message: bytes) -> None:
        told: list[Told] = []
        supervisor = self._supervisor
        try:
            with self._lock:
                now_ns = self._now_ns()
                for event in frame_pb2.StreamFramesResponse.FromString(message).events:
                    item = supervisor.receive(connection.session, event, now_ns)
                    if item is not None:
                        told.append(item)
                if told and isinstance(told[0], ConnectionOpened):
                    self._wake()  # a connection that drains may be left now
                elif connection.session.has_due(now_ns):
                    connection.wake()
                if supervisor.next_connect_ns is not None and self._connector is threading.current_thread():
                    connection.spoil_channel()
                    self._start_connector()  # the server drains: this thread reads on
        finally:  # what was told before a ProtocolError was told all the same
            self._deliver(told)

    def _deliver(self, told: Sequence[Told]) -> None:
        """Hand items to their callbacks, or keep them for the loop and the log."""
        if not told:
            return
        with self._delivering:
            for item in told:
                callback = self._delivery.callback(item)
                if callback is None:
                    with self._changed:
                        line = self._delivery.keep(item, self._now_ns())
                        self._changed.notify_all()
                        if self._delivery.is_stuck:
                            self._room.notify_all()
                    say(line)
                    continue
                try:
                    callback(item)
                except Exception:
                    self._delivery.failed(item)

    def _conclude(self, told: Sequence[Told]) -> None:
        """The stream is over: tell what is left, wake everybody."""
        self._deliver(told)
        self._client.unwatch(self)
        with self._changed:
            self._finished = True
            self._wake()
            line = self._delivery.line(self._now_ns(), last=True)
        say(line)

    def _cut(self, failure: HeadworksError) -> None:
        """Give the stream up; its threads then finish it."""
        with self._lock:
            self._supervisor.cut(failure)
            connections = list(self._connections)
            self._wake()
        for connection in connections:
            connection.cancel(failure)

    def _await_opened(self) -> None:
        """Wait for the first grant or the end of trying; each attempt has the client's time limit."""
        supervisor, limit_s = self._supervisor, self._client.open_timeout_s
        while True:
            with self._changed:
                attempt = supervisor.attempts
                settled = self._changed.wait_for(
                    lambda: supervisor.opened is not None or self._finished or supervisor.attempts != attempt,  # noqa: B023
                    limit_s,
                )
                if supervisor.opened is not None or self._finished:
                    return
                connections = [] if settled else list(self._connections)
            for connection in connections:
                connection.cancel(
                    ConnectionFailedError(connection.session.target, f"no answer to Open in {limit_s:g} s")
                )

    def _wait_for_room(self, timeout: float | None) -> None:
        """Wait until the mailbox takes a frame. Under the lock, which is given up meanwhile."""
        mailbox, delivery = self._mailbox, self._delivery

        def is_settled() -> bool:
            if self._supervisor.failure is not None or self._finished or mailbox.ended:
                return True
            return delivery.is_stuck or (mailbox.has_room and not delivery.is_full)

        if not is_settled() and threading.current_thread() in self._threads:
            raise HeadworksError(
                f"stream {self.name!r}: send would wait for ever in a callback, which holds up the stream"
            )
        if not self._room.wait_for(is_settled, timeout):
            raise TimeoutError(f"stream {self.name!r}: no room for another frame within {timeout:g} s")
        if self._supervisor.failure is None:
            delivery.check_stuck()

    def _wake(self) -> None:
        """Something has changed that anybody may wait for. Under the lock."""
        for connection in self._connections:
            connection.wake()
        self._changed.notify_all()
        self._room.notify_all()

    def _join(self) -> None:
        """Wait until no thread of the stream is left; not in a callback, which is run by one of them."""
        while self._threads and threading.current_thread() not in self._threads:
            with self._lock:
                threads = list(self._threads)
            for thread in threads:
                thread.join()


def _nothing() -> None:
    pass

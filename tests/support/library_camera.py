"""A camera of the client library that feeds itself and records what the application is told.

Used by the fault tests and the soak. Its history holds the frames it offered, in the order of `send`, and every outcome
and every connection that a callback was told of.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import headworks
from support import laws
from support.history import History
from support.server import LogLine, Server
from support.waiting import wait_for

PAYLOAD = bytes(range(250)) * 8


class LibraryCamera:
    """A stream with a frame every `1 / fps` seconds; use it in a `with`.

    Arguments:
        target: one server, or several in the order of preference.
        name: of the stream.
        policy: "latest", "bounded", "every_frame".
        fps: frames a second; under "every_frame" `send` waits, so there may be fewer.
        tls: of `Client`.
        options: of `Client.stream`.

    Attributes:
        policy: of its stream.
        client: its own connection.
        stream: its stream.
        history: what it offered and was told.
        failure: what `send` raised, if anything.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        name: str,
        *,
        policy: str = "latest",
        fps: float = 100.0,
        tls: headworks.TlsOptions | None = None,
        **options: Any,
    ) -> None:
        self.policy = policy
        self.history = History()
        self.failure: headworks.HeadworksError | None = None
        self._period_s = 1 / fps
        self._fed_up = threading.Event()
        self._feeder = threading.Thread(target=self._feed, name="feeder", daemon=True)
        self.client = headworks.Client(target, tls=tls)
        self.stream = self.client.stream(
            name=name,
            policy=policy,
            on_result=lambda result: self.history.heard("result", first=result.frame_id, last=result.frame_id),
            on_drop=self._hear_drop,
            on_error=lambda error: self.history.heard("frame_error", first=error.frame_id, last=error.frame_id),
            on_lost=lambda lost: self.history.heard(
                "lost", first=lost.first_frame_id, last=lost.last_frame_id, total=lost.total
            ),
            on_connection=self._hear_connection,
            on_notice=lambda notice: self.history.heard("notice", kind=notice.kind),
            **options,
        )

    def __enter__(self) -> LibraryCamera:
        self.stream.__enter__()
        self._feeder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._fed_up.set()
        self.client.close()  # before the feeder, which may wait in `send`
        self._feeder.join()

    def rest(self) -> None:
        """Make no frames any more."""
        self._fed_up.set()
        self._feeder.join()

    def finish(self) -> headworks.Account:
        """End the stream; returns its account. Raises what broke it."""
        self.rest()
        self.stream.close()
        return self.stream.account

    def wait_results(self, number: int) -> None:
        """Wait for that many results in all."""
        wait_for(lambda: self.failure or self.stream.account.results >= number)
        assert self.failure is None, self.failure

    def wait_connections(self, number: int) -> None:
        """Wait until it has been connected that often."""
        wait_for(lambda: self.failure or len(laws.connections(self.history.events)) >= number)
        assert self.failure is None, self.failure

    @property
    def troubles(self) -> int:
        """How often a connection was lost, or an attempt to open one failed."""
        return sum(event.get("heard") == "trouble" for event in list(self.history.events))

    def _hear_connection(self, event: headworks.ConnectionEvent) -> None:
        if isinstance(event, headworks.ConnectionOpened):
            self.history.heard("opened", target=event.target, stream_id=event.opened.stream_id)
        else:
            self.history.heard("trouble", words=str(event))

    def _hear_drop(self, dropped: headworks.Dropped) -> None:
        drops: dict[str, int] = {}
        for count in dropped.counts:
            drops[count.reason] = drops.get(count.reason, 0) + count.count
        self.history.heard("dropped", first=dropped.first_frame_id, last=dropped.last_frame_id, drops=drops)

    def _feed(self) -> None:
        frame_id = 0
        while not self._fed_up.wait(self._period_s):
            frame_id += 1
            # Recorded first, so that no outcome can stand before its frame.
            self.history.did("frame", frame_id=frame_id)
            try:
                self.stream.send(PAYLOAD, frame_id=frame_id)
            except headworks.HeadworksError as error:
                self.history.events.pop()
                self.failure = error
                return


def wait_lines(camera: LibraryCamera, server: Server) -> list[LogLine]:
    """The server's line for each of the camera's connections, with the address by which it was reached."""
    connections = laws.connections(camera.history.events)
    return [server.wait_closed(number) | {"target": target} for target, number in connections]


def hold_to_account(camera: LibraryCamera, lines: Sequence[LogLine]) -> None:
    """Hold a camera whose stream is over to its account, its callbacks and what servers say of it."""
    account, history = camera.stream.account, camera.history.events
    assert laws.library(history, account) == []
    assert list(laws.all_accounted(account)) == []
    assert list(laws.library_agreement(history, account, lines)) == []
    if camera.policy == "every_frame":
        assert (account.results, account.lost) == (account.offered, 0), account

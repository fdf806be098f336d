"""What a stream tells its application: by callback, by a loop over the stream, or at least in the log.

Owned by the streams of both clients, which call it under their own lock or loop, and run the callbacks themselves.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headworks.errors import HeadworksError
from headworks.loud import OutcomeLog
from headworks.outcomes import (
    ConnectionEvent,
    ConnectionOpened,
    Dropped,
    FrameError,
    Lost,
    Notice,
    Outcome,
    ReconnectFailed,
    Result,
)
from headworks.reconnect import Told

UNREAD_OUTCOMES = 1024
"""Outcomes kept for a loop over the stream: half a minute of a 30 fps camera. The oldest fall out, and are logged."""

logger = logging.getLogger("headworks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """What the application wants to be called with."""

    on_result: Callable[[Result], object] | None = None
    on_drop: Callable[[Dropped], object] | None = None
    on_error: Callable[[FrameError], object] | None = None
    on_lost: Callable[[Lost], object] | None = None
    on_notice: Callable[[Notice], object] | None = None
    on_connection: Callable[[ConnectionEvent], object] | None = None


class Delivery:
    """The way of outcomes out of one stream.

    Attributes:
        unread: outcomes for a loop over the stream, oldest first.
        looping: whether there is, or has been, such a loop.

    Args:
        name: of the stream.
        callbacks: what the application gave.
        lossless: nothing falls out of `unread`: who sends has to wait, see `is_full`.
    """

    def __init__(self, name: str, callbacks: Callbacks, *, lossless: bool) -> None:
        self.unread: deque[Outcome] = deque()
        self.looping = False
        self._name = name
        self._callbacks = callbacks
        self._lossless = lossless
        self._log = OutcomeLog(name)

    @property
    def is_full(self) -> bool:
        """Whether no more frames should be sent before some outcomes are read."""
        return self._lossless and len(self.unread) >= UNREAD_OUTCOMES

    @property
    def is_stuck(self) -> bool:
        """Whether it `is_full`, and nobody will ever read."""
        return self.is_full and not self.looping

    def check_stuck(self) -> None:
        """Raise HeadworksError where it `is_stuck`."""
        if self.is_stuck:
            raise HeadworksError(
                f"stream {self._name!r}: {len(self.unread):,} outcomes are unread: give callbacks, or loop over the "
                "stream beside the sending"
            )

    def callback(self, item: Told) -> Callable[[Any], object] | None:
        """Return what is to be called with this item; None where it is to be given to `keep`."""
        callbacks = self._callbacks
        match item:
            case Result():
                return callbacks.on_result
            case Dropped():
                return callbacks.on_drop
            case FrameError():
                return callbacks.on_error
            case Lost():
                return callbacks.on_lost
            case Notice():
                return callbacks.on_notice or self._log_notice
            case _:
                return callbacks.on_connection or self._log_connection

    def failed(self, item: Told) -> None:
        """Log the exception of a callback: a stream outlives the faults of its application."""
        logger.exception("stream %r: the callback for %s failed", self._name, type(item).__name__)

    def keep(self, item: Told, now_ns: int) -> str | None:
        """Keep an outcome for the loop and the log; return a line that is due in the log."""
        assert isinstance(item, Result | Dropped | FrameError | Lost)
        if len(self.unread) >= UNREAD_OUTCOMES and not self._lossless:
            self.unread.popleft()
            self._log.add_unread()
        self.unread.append(item)
        if not self.looping:
            match item:
                case Dropped():
                    self._log.add_drop(item)
                case FrameError():
                    self._log.add_error(item)
                case Lost():
                    self._log.add_lost(item)
        return self._log.line(now_ns)

    def line(self, now_ns: int, *, last: bool = False) -> str | None:
        """Return a line that is due in the log; see `OutcomeLog.line`."""
        return self._log.line(now_ns, last=last)

    def _log_notice(self, notice: Notice) -> None:
        logger.warning("stream %r: %s", self._name, notice)

    def _log_connection(self, event: ConnectionEvent) -> None:
        level = logging.WARNING
        if isinstance(event, ReconnectFailed):
            level = logging.INFO  # the loss has been told, and a server may be away for a night
        elif isinstance(event, ConnectionOpened) and event.number == 1:
            level = logging.DEBUG
        logger.log(level, "stream %r: %s", self._name, event)


def say(line: str | None) -> None:
    """Log a line, if there is one. Not under a lock."""
    if line is not None:
        logger.warning("%s", line)

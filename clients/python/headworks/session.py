"""The state machine of a stream's client end: mailbox, credit, account and heartbeat. No I/O, no clock, no threads.

`FrameStream` calls it under its lock: frames and the server's events go in with the time (`now_ns`, monotonic),
requests to send and typed outcomes come out. `clients/CONTRACT.md` describes the same machine for every language.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum, auto

from headworks import codec
from headworks.account import Account
from headworks.errors import ProtocolError
from headworks.outcomes import Closed, Dropped, FrameError, Notice, Opened, Outcome
from headworks.v1 import frame_pb2

PING_AFTER_NS = 2_000_000_000
"""Silence in either direction after which a Ping goes out; also the least time between two."""
DEAD_AFTER_NS = 6_000_000_000
"""Silence of the server after which it is given up: three Pings unanswered."""
REMEMBERED_FRAMES = 4096
"""Frames whose times are kept until their outcome: 2 minutes of a 30 fps camera, under 1 MB."""


class Phase(Enum):
    """Where a stream is in its life."""

    NEW = auto()  # Open not sent
    OPENING = auto()  # Open sent, nothing heard
    OPEN = auto()
    CLOSED = auto()  # Closed received
    GONE = auto()  # the call has ended, with or without a Closed


# What the server may say in each phase. Anything else is a ProtocolError.
ALLOWED_EVENTS: dict[Phase, frozenset[str]] = {
    Phase.NEW: frozenset(),
    Phase.OPENING: frozenset({"opened"}),
    Phase.OPEN: frozenset({"result", "dropped", "frame_error", "credit", "notice", "pong", "closed"}),
    Phase.CLOSED: frozenset(),
    Phase.GONE: frozenset(),
}


@dataclass(frozen=True, slots=True)
class OutgoingFrame:
    """A frame on its way out.

    Attributes:
        frame_id: strictly increasing within the stream, at least 1.
        captured_ns: when it was captured, on the monotonic clock.
        capture_time_ns: the same on the wall clock, for the server to echo.
        encoding: number of the proto's Encoding.
        width: pixels, 0 where the picture itself tells.
        height: pixels, 0 where the picture itself tells.
        payload: the picture; None where `request` is already built.
        request: the whole request, where the payload's memory belongs to somebody who may change it.
    """

    frame_id: int
    captured_ns: int
    capture_time_ns: int
    encoding: int
    width: int
    height: int
    payload: bytes | None
    request: bytes | None = None

    def to_bytes(self) -> bytes:
        """Return the request; the one copy of the payload happens here unless it has happened before."""
        if self.request is not None:
            return self.request
        return codec.frame_request(
            self.payload or b"",
            frame_id=self.frame_id,
            capture_time_ns=self.capture_time_ns,
            encoding=self.encoding,
            width=self.width,
            height=self.height,
        )


class ClientSession:
    """One stream, from Open to Closed."""

    def __init__(self, open_request: bytes) -> None:
        self.phase = Phase.NEW
        self.opened: Opened | None = None
        self.closed: Closed | None = None
        self.draining = False
        self._open_request = open_request
        self._labels: tuple[tuple[str, ...], ...] = ()
        self._ending = False
        self._end_sent = False
        self._waiting: OutgoingFrame | None = None
        self._offered = self._replaced = self._sent = 0
        self._results = self._errors = 0
        self._drops: Counter[str] = Counter()
        self._told = 0
        self._frames_allowed = 0
        self._last_offered_id = self._last_sent_id = self._last_told_id = 0
        # (frame_id, captured_ns, written_ns) of frames without an outcome, in order.
        self._unanswered: deque[tuple[int, int, int]] = deque(maxlen=REMEMBERED_FRAMES)
        self._last_sent_ns = self._last_received_ns = self._last_ping_ns = 0
        self._nonce = 0

    # --- what the application does

    def next_frame_id(self) -> int:
        """Return the number of the next frame where the application gives none."""
        return self._last_offered_id + 1

    def offer(self, frame: OutgoingFrame) -> bool:
        """Put a frame into the mailbox; True where it replaced one that was waiting there.

        Raises:
            ValueError: the frame_id does not increase, or the stream has been ended.
        """
        # Between Closed and the status of the call a frame simply waits: the caller hears of the end with the status.
        if self._ending:
            raise ValueError(f"frame {frame.frame_id}: the stream has been ended, no frame may follow")
        if frame.frame_id <= self._last_offered_id:
            raise ValueError(f"frame_id {frame.frame_id}: expected more than {self._last_offered_id}")
        replaced = self._waiting is not None
        self._replaced += replaced
        # Latest wins: an answer to a stale frame is worth less than none.
        self._waiting = frame
        self._offered += 1
        self._last_offered_id = frame.frame_id
        return replaced

    def end(self) -> None:
        """No frame follows. A waiting frame is still sent when credit comes, except while the server drains."""
        self._ending = True

    # --- what the transport does

    def poll(self, now_ns: int) -> OutgoingFrame | bytes | None:
        """Return the next thing to write, or None; it counts as written. After End there is nothing more."""
        request: OutgoingFrame | bytes | None = None
        if self.phase is Phase.NEW:
            self.phase = Phase.OPENING
            # Silence is counted from here.
            self._last_received_ns = self._last_ping_ns = now_ns
            request = self._open_request
        elif self.phase is Phase.OPEN and not self._end_sent:
            if self._ping_due_ns() <= now_ns:
                request = self._ping(now_ns)
            elif self._may_send_frame():
                request = self._take_waiting(now_ns)
            elif self._may_send_end():
                self._end_sent = True
                request = codec.end_request()
        if request is not None:
            self._last_sent_ns = now_ns
        return request

    def has_due(self, now_ns: int) -> bool:
        """Tell whether `poll` has something to write now."""
        if self.phase is not Phase.OPEN or self._end_sent:
            return self.phase is Phase.NEW
        return self._ping_due_ns() <= now_ns or self._may_send_frame() or self._may_send_end()

    @property
    def writing_is_over(self) -> bool:
        """True where nothing will ever be written again."""
        return self._end_sent or self.phase in (Phase.CLOSED, Phase.GONE)

    def is_dead(self, now_ns: int) -> bool:
        """Tell whether the server has been silent for too long.

        Only between Opened and End: before, it may be loading a model; after, it gets no Ping to answer. The
        application's own limits cover both.
        """
        if self.phase is not Phase.OPEN or self._end_sent:
            return False
        return now_ns - self._last_received_ns >= DEAD_AFTER_NS

    def next_wakeup_ns(self) -> int | None:
        """Return when `poll` or `is_dead` may answer differently without an input, or None."""
        if self.phase is not Phase.OPEN or self._end_sent:
            return None
        return min(self._ping_due_ns(), self._last_received_ns + DEAD_AFTER_NS)

    def receive(self, event: frame_pb2.ServerEvent, now_ns: int) -> Outcome | Opened | Notice | Closed | None:
        """Take one event; return what the application is to be told, if anything.

        Raises:
            ProtocolError: the contract does not allow this event now, or it contradicts what was sent.
        """
        self._last_received_ns = now_ns
        kind = event.WhichOneof("event")
        if kind is None:
            return None  # a kind of event that only newer servers know
        if kind not in ALLOWED_EVENTS[self.phase]:
            raise ProtocolError(f"the server said {kind} while the stream was {self.phase.name.lower()}")
        match kind:
            case "result":
                return self._receive_result(event.result, now_ns)
            case "dropped":
                return self._receive_dropped(event.dropped)
            case "frame_error":
                return self._receive_frame_error(event.frame_error)
            case "credit":
                self._frames_allowed = max(self._frames_allowed, event.credit.frames_allowed)
                return None
            case "opened":
                return self._receive_opened(event.opened)
            case "notice":
                self.draining |= event.notice.kind == frame_pb2.Notice.KIND_DRAINING
                return codec.notice(event.notice)
            case "closed":
                self.phase = Phase.CLOSED
                self.closed = codec.closed(event.closed)
                return self.closed
            case _:  # pong: having been heard is all it is for
                return None

    def disconnect(self) -> None:
        """The call has ended: whatever has no outcome now never gets one."""
        self.phase = Phase.GONE

    def account(self) -> Account:
        """Return where every frame has gone so far."""
        received, lost = None, 0
        if self.closed is not None:
            received = self.closed.ledger.received
            lost = self._sent - received
        elif self.phase is Phase.GONE:
            lost = self._sent - self._told
        return Account(
            offered=self._offered,
            replaced=self._replaced,
            waiting=int(self._waiting is not None),
            sent=self._sent,
            received=received,
            lost=lost,
            results=self._results,
            drops=dict(self._drops),
            errors=self._errors,
            close_reason=self.closed.reason if self.closed is not None else None,
        )

    # --- rules

    def _may_send_frame(self) -> bool:
        return self._waiting is not None and self._sent < self._frames_allowed

    def _may_send_end(self) -> bool:
        # A draining server grants no more credit: a waiting frame would wait for ever.
        return self._ending and (self._waiting is None or self.draining)

    def _ping_due_ns(self) -> int:
        return max(min(self._last_sent_ns, self._last_received_ns), self._last_ping_ns) + PING_AFTER_NS

    def _ping(self, now_ns: int) -> bytes:
        self._last_ping_ns = now_ns
        self._nonce += 1
        return codec.ping_request(self._nonce)

    def _take_waiting(self, now_ns: int) -> OutgoingFrame:
        frame = self._waiting
        assert frame is not None
        self._waiting = None
        self._sent += 1
        self._last_sent_id = frame.frame_id
        self._unanswered.append((frame.frame_id, frame.captured_ns, now_ns))
        return frame

    def _receive_opened(self, message: frame_pb2.Opened) -> Opened:
        self.phase = Phase.OPEN
        self.opened = codec.opened(message)
        self._labels = tuple(model.labels for model in self.opened.models)
        self._frames_allowed = self.opened.frames_allowed
        return self.opened

    def _receive_result(self, message: frame_pb2.Result, now_ns: int) -> Outcome:
        captured_ns, written_ns = self._settle("result", message.frame_id, message.frame_id, 1)
        self._results += 1
        return codec.result(
            message,
            labels=self._labels,
            age_s=math.nan if captured_ns is None else (now_ns - captured_ns) / 1e9,
            round_trip_s=math.nan if written_ns is None else (now_ns - written_ns) / 1e9,
        )

    def _receive_dropped(self, message: frame_pb2.Dropped) -> Dropped:
        dropped = codec.dropped(message)
        self._settle("dropped", dropped.first_frame_id, dropped.last_frame_id, dropped.total)
        for drop in dropped.counts:
            self._drops[drop.reason] += drop.count
        return dropped

    def _receive_frame_error(self, message: frame_pb2.FrameError) -> FrameError:
        self._settle("frame_error", message.frame_id, message.frame_id, 1)
        self._errors += 1
        return codec.frame_error(message)

    def _settle(self, kind: str, first: int, last: int, count: int) -> tuple[int | None, int | None]:
        """Take frames first..last off the list of those without an outcome.

        Returns:
            (captured_ns, written_ns) of the last of them; None where they are no longer remembered.
        """
        place = f"{kind} for frames {first} to {last}"
        if not self._last_told_id < first <= last <= self._last_sent_id:
            raise ProtocolError(
                f"{place}: expected frame_ids after {self._last_told_id} and up to {self._last_sent_id}"
            )
        if not 1 <= count <= min(last - first + 1, self._sent - self._told):
            raise ProtocolError(f"{place}: counts {count}, with {self._sent - self._told} frames unanswered")
        self._last_told_id = last
        self._told += count
        times: tuple[int | None, int | None] = (None, None)
        while self._unanswered and self._unanswered[0][0] <= last:
            frame_id, captured_ns, written_ns = self._unanswered.popleft()
            if frame_id == last:
                times = captured_ns, written_ns
        return times

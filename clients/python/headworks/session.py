"""The state machine of one connection of a stream: credit, ledger and heartbeat. No I/O, no clock, no threads.

`StreamSupervisor` makes one for each connection. The transport asks it for the next request, the supervisor hands it
the server's events, both with the time (`now_ns`, monotonic). `clients/CONTRACT.md` describes the same machine for
every language.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import replace
from enum import Enum, auto

from headworks import codec
from headworks.account import Account, ConnectionAccount, total
from headworks.errors import ProtocolError
from headworks.mailbox import Mailbox, OutgoingFrame
from headworks.outcomes import Closed, Dropped, FrameError, Lost, Notice, Opened, Outcome
from headworks.v1 import frame_pb2

PING_AFTER_NS = 2_000_000_000
"""Silence in either direction after which a Ping goes out; also the least time between two."""
DEAD_AFTER_NS = 6_000_000_000
"""Silence of the server after which it is given up: three Pings unanswered."""
KEPT_LABELS = 8
"""Generations of a model whose labels are kept: results of the last but one may still be on their way."""
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


class ClientSession:
    """One connection of a stream, from Open to Closed.

    Attributes:
        target: the server's address.
        phase: where the connection is in its life.
        opened: what was granted.
        opened_ns: when.
        closed: the server's last word.
        draining: whether the server has said that it shuts down.
        holding: whether no frame is taken from the mailbox; set by the supervisor.

    Args:
        open_request: the first request.
        mailbox: where frames come from; one of its own by default.
        target: the server's address.
        keep: keep frames until their outcome, and let those that a draining server drops be sent again.
        open_timeout_ns: silence after Open after which the server is given up.
    """

    def __init__(
        self,
        open_request: bytes,
        mailbox: Mailbox | None = None,
        *,
        target: str = "",
        keep: bool = False,
        open_timeout_ns: int | None = None,
    ) -> None:
        self.target = target
        self.phase = Phase.NEW
        self.opened: Opened | None = None
        self.opened_ns = 0
        self.closed: Closed | None = None
        self.draining = self.holding = False
        self._open_request = open_request
        self._mailbox = mailbox if mailbox is not None else Mailbox()
        self._keep = keep
        self._open_timeout_ns = open_timeout_ns
        self._labels: dict[tuple[str, int], tuple[str, ...]] = {}  # by model and generation
        self._retired = self._end_sent = False
        self._sent = self._results = self._errors = self._returned = 0
        self._drops: Counter[str] = Counter()
        self._told = 0
        self._frames_allowed = 0
        self._last_sent_id = self._last_told_id = 0
        # (frame_id, captured_ns, written_ns) of frames without an outcome, in order.
        self._unanswered: deque[tuple[int, int, int]] = deque(maxlen=REMEMBERED_FRAMES)
        # The frames themselves, where they may have to be sent again. Bounded by the server's credit, at most 64.
        self._kept: dict[int, OutgoingFrame] = {}
        self._last_sent_ns = self._last_received_ns = self._last_ping_ns = 0
        self._nonce = 0

    # --- what the application does; a stream of several connections does it to its mailbox

    def next_frame_id(self) -> int:
        """Return the number of the next frame where the application gives none."""
        return self._mailbox.next_frame_id()

    def offer(self, frame: OutgoingFrame) -> bool:
        """Put a frame into the mailbox; see `Mailbox.offer`."""
        # Between Closed and the status of the call a frame simply waits: the caller hears of the end with the status.
        return self._mailbox.offer(frame)

    def end(self) -> None:
        """No frame follows. A waiting frame is still sent when credit comes, except while the server drains."""
        self._mailbox.ended = True

    def retire(self) -> None:
        """Send End at once: the stream goes on over another connection."""
        self.holding = self._retired = True

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
                request = self._take_frame(now_ns)
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
        """Tell whether the server has been silent for too long."""
        due_ns = self._dead_ns()
        return due_ns is not None and due_ns <= now_ns

    def silence(self) -> str:
        """Say what the server that `is_dead` has not done."""
        if self.phase is Phase.OPENING:
            return f"no answer to Open in {(self._open_timeout_ns or 0) / 1e9:g} s"
        return f"nothing heard from {self.target} for {DEAD_AFTER_NS / 1e9:g} s"

    def next_wakeup_ns(self) -> int | None:
        """Return when `poll` or `is_dead` may answer differently without an input, or None."""
        dead_ns = self._dead_ns()
        if dead_ns is None or self.phase is not Phase.OPEN or self._end_sent:
            return dead_ns
        return min(self._ping_due_ns(), dead_ns)

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
                return self._receive_opened(event.opened, now_ns)
            case "notice":
                return self._receive_notice(event.notice)
            case "closed":
                self.phase = Phase.CLOSED
                self.closed = codec.closed(event.closed)
                return self.closed
            case _:  # pong: having been heard is all it is for
                return None

    def disconnect(self) -> None:
        """The call has ended: whatever has no outcome now never gets one."""
        self.phase = Phase.GONE

    @property
    def told(self) -> int:
        """Frames that the server has answered."""
        return self._told

    def unfinished(self) -> tuple[OutgoingFrame, ...]:
        """Return the frames that are to be sent again once the call has ended; none unless they are kept."""
        return tuple(self._kept.values())

    def lost(self) -> Lost | None:
        """Return the frames without an outcome, once the call has ended."""
        count = self.ledger().lost
        if count <= 0:
            return None
        first = self._unanswered[0][0] if self._unanswered else self._last_sent_id
        return Lost(first, self._last_sent_id, count)

    def ledger(self) -> ConnectionAccount:
        """Return what became of the frames of this connection so far."""
        received, lost = None, 0
        if self.closed is not None:
            received = self.closed.ledger.received
            lost = self._sent - received
        elif self.phase is Phase.GONE:
            lost = self._sent - self._told
        return ConnectionAccount(
            target=self.target,
            sent=self._sent,
            received=received,
            lost=lost,
            results=self._results,
            drops=dict(self._drops),
            errors=self._errors,
            returned=self._returned,
            close_reason=self.closed.reason if self.closed is not None else None,
            ended=self.phase in (Phase.CLOSED, Phase.GONE),
        )

    def account(self) -> Account:
        """Return where every frame has gone so far, for a stream of this connection only."""
        return total(self._mailbox, (self.ledger(),), resends=False, finished=self.phase is Phase.GONE)

    # --- rules

    def _may_send_frame(self) -> bool:
        return not self.holding and self._sent < self._frames_allowed and len(self._mailbox) > 0

    def _may_send_end(self) -> bool:
        if self._retired:
            return True
        # A draining server grants no more credit: a waiting frame would wait for ever.
        return self._mailbox.ended and not self.holding and (self.draining or not len(self._mailbox))

    def _dead_ns(self) -> int | None:
        """Return when this silence has been too long, or None.

        After Open the server may be loading a model: a limit apart covers that. After End it gets no Ping to answer,
        and how long the end of a stream may take is the application's own choice. But one that drains has only the
        frames in flight to finish, and the stream's next frames wait for these.
        """
        if self.phase is Phase.OPENING and self._open_timeout_ns is not None:
            return self._last_sent_ns + self._open_timeout_ns
        if self.phase is Phase.OPEN and (self._retired or not self._end_sent):
            return self._last_received_ns + DEAD_AFTER_NS
        return None

    def _ping_due_ns(self) -> int:
        return max(min(self._last_sent_ns, self._last_received_ns), self._last_ping_ns) + PING_AFTER_NS

    def _ping(self, now_ns: int) -> bytes:
        self._last_ping_ns = now_ns
        self._nonce += 1
        return codec.ping_request(self._nonce)

    def _take_frame(self, now_ns: int) -> OutgoingFrame:
        frame = self._mailbox.take()
        assert frame is not None
        self._sent += 1
        self._last_sent_id = frame.frame_id
        self._unanswered.append((frame.frame_id, frame.captured_ns, now_ns))
        if self._keep:
            self._kept[frame.frame_id] = frame
        return frame

    def _receive_opened(self, message: frame_pb2.Opened, now_ns: int) -> Opened:
        self.phase = Phase.OPEN
        self.opened_ns = now_ns
        self.opened = codec.opened(message)
        self._labels = {(model.name, model.generation): model.labels for model in self.opened.models}
        self._frames_allowed = self.opened.frames_allowed
        return self.opened

    def _receive_notice(self, message: frame_pb2.Notice) -> Notice:
        notice = codec.notice(message)
        self.draining |= notice.kind == "DRAINING"
        if (model := notice.model_info) is not None:
            if len(self._labels) >= KEPT_LABELS:
                del self._labels[next(iter(self._labels))]
            self._labels[model.name, model.generation] = model.labels
            if self.opened is not None:
                models = tuple(model if served.name == model.name else served for served in self.opened.models)
                self.opened = replace(self.opened, models=models)
        return notice

    def _receive_result(self, message: frame_pb2.Result, now_ns: int) -> Outcome:
        captured_ns, written_ns = self._settle("result", message.frame_id, message.frame_id, 1)
        self._kept.pop(message.frame_id, None)
        self._results += 1
        return codec.result(
            message,
            labels=self._labels,
            age_s=math.nan if captured_ns is None else (now_ns - captured_ns) / 1e9,
            round_trip_s=math.nan if written_ns is None else (now_ns - written_ns) / 1e9,
        )

    def _receive_dropped(self, message: frame_pb2.Dropped) -> Dropped | None:
        dropped = codec.dropped(message)
        first, last = dropped.first_frame_id, dropped.last_frame_id
        self._settle("dropped", first, last, dropped.total)
        if self._keep:
            if any(drop.reason == "DRAINING" for drop in dropped.counts):
                # The server shuts down, the stream does not: all frames of the range stay kept, for which of them were
                # dropped for another reason is not told.
                self._returned += dropped.total
                return None
            self._kept = {number: frame for number, frame in self._kept.items() if not first <= number <= last}
        for drop in dropped.counts:
            self._drops[drop.reason] += drop.count
        return dropped

    def _receive_frame_error(self, message: frame_pb2.FrameError) -> FrameError:
        self._settle("frame_error", message.frame_id, message.frame_id, 1)
        self._kept.pop(message.frame_id, None)
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

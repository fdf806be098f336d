"""A client's eyes on a session: takes events as they are polled and holds them against the contract."""

from __future__ import annotations

from collections import Counter

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.events import (
    ClosedEvent,
    CreditEvent,
    DropOutcome,
    DroppedEvent,
    Event,
    FrameErrorEvent,
    NoticeEvent,
    OpenedEvent,
    PongEvent,
    ResultEvent,
)
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant
from headworks_server.core.limits import SessionLimits
from headworks_server.core.session import StreamSession

MS = 1_000_000


def make_frame(frame_id: int, *, size_bytes: int = 100, received_ns: int = 1) -> Frame:
    """A frame with no picture in it."""
    return Frame(frame_id, None, size_bytes, received_ns)


def open_session(
    grant: Grant | None = None, *, budget: WaitingBytes | None = None, limits: SessionLimits | None = None
) -> StreamSession:
    """A session that has told Opened."""
    session = StreamSession(7, now_ns=1, budget=budget or WaitingBytes(), limits=limits)
    session.receive_open(grant or Grant(), 1)
    (opened,) = session.poll(1)
    assert isinstance(opened, OpenedEvent)
    return session


class Told:
    """What a client was told, checked as it comes: order, runs, credit, and Closed last with a true ledger."""

    def __init__(self) -> None:
        self.opened: OpenedEvent | None = None
        self.results: list[int] = []
        self.errors: list[int] = []
        self.runs: list[DroppedEvent] = []
        self.drops: Counter[DropOutcome] = Counter()
        self.credit = 0
        self.notices: list[NoticeEvent] = []
        self.pongs: list[int] = []
        self.closed: ClosedEvent | None = None
        self._last_id = -1

    def take(self, events: list[Event]) -> None:
        for event in events:
            assert self.closed is None, "Closed is last"
            match event:
                case OpenedEvent():
                    assert self.opened is None
                    self.opened = event
                    self.credit = event.frames_allowed
                case ResultEvent():
                    self._advance(event.frame_id, event.frame_id)
                    self.results.append(event.frame_id)
                case FrameErrorEvent():
                    self._advance(event.frame_id, event.frame_id)
                    self.errors.append(event.frame_id)
                case DroppedEvent():
                    self._advance(event.first, event.last)
                    self.runs.append(event)
                    self.drops.update(event.counts)
                case CreditEvent():
                    assert event.frames_allowed > self.credit, "credit only grows"
                    self.credit = event.frames_allowed
                case NoticeEvent():
                    self.notices.append(event)
                case PongEvent():
                    self.pongs.append(event.nonce)
                case ClosedEvent():
                    self.closed = event

    def answered(self) -> int:
        """Frames whose outcome the client knows."""
        return len(self.results) + len(self.errors) + self.drops.total()

    def check_closed(self) -> None:
        """The ledger in Closed says what the client saw."""
        assert self.closed is not None
        ledger = self.closed.ledger
        assert (ledger.results, ledger.errors) == (len(self.results), len(self.errors))
        assert ledger.drops == self.drops
        assert ledger.received == self.answered()

    def check_runs(self, read: set[int]) -> None:
        """Each run counts exactly the frames that were read between its ends."""
        for run in self.runs:
            assert {run.first, run.last} <= read
            assert sum(run.counts.values()) == sum(run.first <= frame_id <= run.last for frame_id in read)

    def _advance(self, first: int, last: int) -> None:
        assert self._last_id < first <= last, "outcomes come in frame order"
        self._last_id = last

"""What a stream is told besides outcomes, credit and Closed: Opened, notices and pongs.

Owned by the stream's session. All of it is due at once, and bounded for a client that does not read: of each kind of
notice the last counts, of pongs and changes of the model the last few.
"""

from __future__ import annotations

from headworks_server.core.events import Event, NoticeEvent, NoticeKind, OpenedEvent, PongEvent

MAX_CHANGES = 8  # of the model: results of each may be on their way, and have its labels
MAX_PONGS = 8  # a client sends one Ping in 2 s: more unread ones are a flood, of which the newest are answered


class ControlQueue:
    """Control events in order.

    Attributes:
        events: what is due; at most Opened, one notice of each kind but MAX_CHANGES of the model, and MAX_PONGS pongs.
    """

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: list[Event] = []

    def append_opened(self, opened: OpenedEvent) -> None:
        """Append Opened."""
        self.events.append(opened)

    def append_notice(self, notice: NoticeEvent) -> None:
        """Append a notice in the place of an unread one of its kind, or of the oldest of those that are kept."""
        alike = [event for event in self.events if isinstance(event, NoticeEvent) and event.kind is notice.kind]
        if len(alike) == (MAX_CHANGES if notice.kind is NoticeKind.MODEL_CHANGED else 1):
            self.events.remove(alike[0])
        self.events.append(notice)

    def append_pong(self, nonce: int) -> None:
        """Append a pong; the oldest unread one goes where there are too many."""
        pongs = [event for event in self.events if isinstance(event, PongEvent)]
        if len(pongs) == MAX_PONGS:
            self.events.remove(pongs[0])
        self.events.append(PongEvent(nonce))

    def take(self) -> list[Event]:
        """Take everything out."""
        events = self.events
        self.events = []
        return events

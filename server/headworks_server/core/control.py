"""What a stream is told besides outcomes, credit and Closed: Opened, notices and pongs.

Owned by the stream's session. All of it is due at once, and bounded for a client that does not read: of each kind of
notice the last counts, and of pongs the last few.
"""

from __future__ import annotations

from headworks_server.core.events import Event, NoticeEvent, OpenedEvent, PongEvent

MAX_PONGS = 8  # a client sends one Ping in 2 s: more unread ones are a flood, of which the newest are answered


class ControlQueue:
    """Control events in order.

    Attributes:
        events: what is due; at most Opened, one notice of each kind and MAX_PONGS pongs.
    """

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: list[Event] = []

    def append_opened(self, opened: OpenedEvent) -> None:
        """Append Opened."""
        self.events.append(opened)

    def append_notice(self, notice: NoticeEvent) -> None:
        """Append a notice in the place of an unread one of its kind."""
        self.events = [
            event for event in self.events if not (isinstance(event, NoticeEvent) and event.kind is notice.kind)
        ]
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

"""Where a stream's frames wait, compressed, for their admission: one frame, which a newer one replaces (LATEST).

Owned by the stream's session, which tells every frame that leaves it what became of it.
"""

from __future__ import annotations

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.frame import Frame


class LatestMailbox:
    """One waiting frame. A detection on a stale frame is worse than none, so the newest wins.

    Attributes:
        waiting: the frame that waits, or None.
    """

    __slots__ = ("_budget", "waiting")

    def __init__(self, budget: WaitingBytes) -> None:
        self.waiting: Frame | None = None
        self._budget = budget

    def offer(self, frame: Frame) -> Frame | None:
        """Put a frame in. Returns the frame that is left without a place.

        That is None where the mailbox was empty, the older frame where it is replaced, and `frame` itself where the
        process-wide budget has no room for it, not even after the older frame's bytes are given back.
        """
        old = self.waiting
        if not self._budget.take(frame.size_bytes if old is None else frame.size_bytes - old.size_bytes):
            return frame
        self.waiting = frame
        return old

    def take(self) -> Frame | None:
        """Take the waiting frame out, if there is one."""
        frame = self.waiting
        if frame is not None:
            self.waiting = None
            self._budget.give_back(frame.size_bytes)
        return frame

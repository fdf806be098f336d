"""Where a stream's frames wait, compressed, for their admission: one kind of mailbox for each policy.

Owned by the stream's session, which tells every frame that leaves it what became of it. All kinds answer an arrival
alike, with the frame that is left without a place, so that the session asks for no policy.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant, Policy


class Mailbox(Protocol):
    """The frames of one stream that wait.

    Attributes:
        waiting: the frame that is admitted next, or None.
    """

    waiting: Frame | None

    def offer(self, frame: Frame) -> Frame | None:
        """Put a frame in. Returns the frame that is left without a place: None, an older one, or `frame` itself."""
        ...

    def take(self) -> Frame | None:
        """Take the frame that is next out, if there is one."""
        ...


def make_mailbox(grant: Grant, budget: WaitingBytes) -> Mailbox:
    """The mailbox of the granted policy."""
    if grant.policy is Policy.LATEST:
        return LatestMailbox(budget)
    if grant.policy is Policy.BOUNDED:
        return BoundedMailbox(budget, depth=grant.depth, drop_newest=grant.drop_newest)
    return EveryFrameMailbox(budget)


class LatestMailbox:
    """LATEST: one waiting frame. A detection on a stale frame is worse than none, so the newest wins."""

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


class _Queue:
    """Waiting frames in their order; `waiting` is the oldest."""

    __slots__ = ("_budget", "_frames", "waiting")

    def __init__(self, budget: WaitingBytes) -> None:
        self.waiting: Frame | None = None
        self._budget = budget
        self._frames: deque[Frame] = deque()

    def take(self) -> Frame | None:
        """Take the oldest frame out, if there is one."""
        frame = self.waiting
        if frame is not None:
            self._frames.popleft()
            self.waiting = self._frames[0] if self._frames else None
            self._budget.give_back(frame.size_bytes)
        return frame


class BoundedMailbox(_Queue):
    """BOUNDED: up to `depth` waiting frames; where there is no room, the oldest or the arriving one goes."""

    __slots__ = ("_depth", "_drop_newest")

    def __init__(self, budget: WaitingBytes, *, depth: int, drop_newest: bool) -> None:
        super().__init__(budget)
        self._depth = depth
        self._drop_newest = drop_newest

    def offer(self, frame: Frame) -> Frame | None:
        """Put a frame in. Returns the frame that is left without a place.

        That is None where there was room; else the oldest, where it is to go and its bytes make enough room in the
        process-wide budget; else `frame` itself.
        """
        oldest = None
        if len(self._frames) >= self._depth or not self._budget.take(frame.size_bytes):
            oldest = self.waiting
            if self._drop_newest or oldest is None or not self._budget.take(frame.size_bytes - oldest.size_bytes):
                return frame
            self._frames.popleft()
        self._frames.append(frame)
        self.waiting = self._frames[0]
        return oldest


class EveryFrameMailbox(_Queue):
    """EVERY_FRAME: whatever is sent within credit waits. Credit is the bound: at most the stream's window waits."""

    __slots__ = ()

    def offer(self, frame: Frame) -> None:
        """Put a frame in; it always has a place."""
        self._budget.overdraw(frame.size_bytes)
        self._frames.append(frame)
        if self.waiting is None:
            self.waiting = frame

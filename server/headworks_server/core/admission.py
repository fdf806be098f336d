"""Who is next, when, and on which lane: weighted round robin over the streams that want admission.

One pool per group of interchangeable lanes, on the event loop. The rpc room joins a stream when it opens, offers it
whenever it may want admission, and pumps on two events: a frame arrived, a lane has room. The pool commits frames
(`session.admit`) and submits them; until then they stay compressed and replaceable. A lane has room while its frames
that are not launched are fewer than its target and its slack (`LaneEstimate.slack`): one number for how far ahead.

Stride scheduling: each stream has a pass, which grows by STRIDE / weight with each frame admitted; the smallest pass
is next, the longest queued among equals. A stream that comes back keeps its pass, so leaving and coming back gains
nothing, but is at most one round behind the pool's, so silence saves up one round and no more: a stream of high weight
has but one frame waiting, and often is not in the queue at the moment its turn comes.
"""

from __future__ import annotations

import heapq
import math
from typing import Protocol

from headworks_server.core.estimate import LaneEstimate
from headworks_server.core.frame import Frame
from headworks_server.core.grant import MAX_WEIGHT
from headworks_server.core.outcomes import DropReason, DropStage
from headworks_server.core.session import StreamSession

STRIDE = math.lcm(*range(1, MAX_WEIGHT + 1))  # divides evenly by every weight, so passes are exact integers


class Lane(Protocol):
    """What admission knows of a lane."""

    target: int  # frames of the smallest batch within 5 % of the best throughput, at least 1
    decoders: int  # frames it decodes at a time

    def ahead(self) -> int:
        """Frames submitted and not launched: decoding, or decoded and waiting."""
        ...

    def submit(self, frame: Frame) -> None:
        """Take an admitted frame. It is the lane's until its ticket comes back; must not fail."""
        ...


class Share:
    """A stream's part in the round robin: made by `join`, given to `offer` and `leave`, opaque otherwise."""

    __slots__ = ("joined", "pass_", "queued", "session", "stride")

    def __init__(self, session: StreamSession, stride: int, pass_: int) -> None:
        self.session = session
        self.stride = stride
        self.pass_ = pass_
        self.queued = False
        self.joined = True


class AdmissionPool:
    """Weighted round robin onto a group of interchangeable lanes.

    Attributes:
        estimates: the measured times of each lane, in the order of the lanes; their owner feeds them.
    """

    def __init__(self, lanes: list[Lane]) -> None:
        self.estimates = [LaneEstimate() for _ in lanes]
        self._lanes = lanes
        self._heap: list[tuple[int, int, Share]] = []  # (pass, order of queueing, share)
        self._order = 0
        self._pass = 0  # the largest pass served: how far the round robin has come
        self._departed = 0  # shares in the heap whose stream has left

    @property
    def queued(self) -> int:
        """Streams in the queue; some may turn out not to want admission any more."""
        return len(self._heap) - self._departed

    def join(self, session: StreamSession) -> Share:
        """Take an opened stream in, with the weight it was granted."""
        return Share(session, STRIDE // session.grant.weight, self._pass)

    def leave(self, share: Share) -> None:
        """Let a stream go. Idempotent."""
        if not share.joined:
            return
        share.joined = False
        if share.queued:
            self._departed += 1
            # Streams may come and go for long while no lane has room: what they leave behind stays below one half.
            if self._departed * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].joined]
                heapq.heapify(self._heap)
                self._departed = 0

    def offer(self, share: Share) -> None:
        """Queue a stream if it wants admission: after a frame arrived, and after one completed."""
        if share.queued or not share.joined or not share.session.wants_admission:
            return
        share.queued = True
        # One round of a stream of weight 1: what it may be behind and still catch up.
        share.pass_ = max(share.pass_, self._pass - STRIDE)
        self._order += 1
        heapq.heappush(self._heap, (share.pass_, self._order, share))

    def pump(self, now_ns: int) -> list[Frame]:
        """Admit as many frames as the lanes have room for, and submit them.

        Returns the frames that left their mailboxes, in order: those with `admitted_ns` are in flight, the others
        were dropped DEADLINE. Their streams may have something to tell.
        """
        moved: list[Frame] = []
        if not self._heap:
            return moved
        # A lane launches meanwhile: then there is more room than counted here, and it calls again.
        ahead = [lane.ahead() for lane in self._lanes]
        while True:
            index = self._roomiest(ahead)
            if index < 0:
                return moved
            share = self._next()
            if share is None:
                return moved
            if self._too_late(share.session, index, ahead[index], now_ns):
                dropped = share.session.drop_waiting(DropReason.DEADLINE, DropStage.BEFORE_DECODE, now_ns)
                if dropped is not None:
                    moved.append(dropped)
                continue
            self._pass = max(self._pass, share.pass_)
            share.pass_ += share.stride
            frame = share.session.admit(now_ns)
            self.estimates[index].outstanding += 1
            ahead[index] += 1
            self._lanes[index].submit(frame)
            moved.append(frame)
            self.offer(share)

    def _next(self) -> Share | None:
        """Take the next stream that still wants admission out of the queue."""
        while self._heap:
            share = heapq.heappop(self._heap)[2]
            share.queued = False
            if not share.joined:
                self._departed -= 1
            elif share.session.wants_admission:
                return share
        return None

    def _roomiest(self, ahead: list[int]) -> int:
        """The index of the lane with the most room, the first of equals, or -1 where none has any."""
        best, most = -1, 0
        for index, lane in enumerate(self._lanes):
            room = lane.target + self.estimates[index].slack(lane.target, lane.decoders) - ahead[index]
            if room > most:
                best, most = index, room
        return best

    def _too_late(self, session: StreamSession, index: int, ahead: int, now_ns: int) -> bool:
        """Whether the waiting frame could not be served within its deadline even if it were admitted now."""
        waiting = session.waiting
        if waiting is None or not waiting.deadline_ns:
            return False
        done_ns = self.estimates[index].done_ns(ahead=ahead, target=self._lanes[index].target, now_ns=now_ns)
        return done_ns > waiting.deadline_ns

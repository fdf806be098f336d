"""The streams of one model that want admission, in weighted round robin. Made by `AdmissionPool.add_model`.

Stride scheduling: each stream has a pass, which grows by STRIDE / weight with each frame admitted; the smallest pass
is next, the longest queued among equals. A stream that comes back keeps its pass, so leaving and coming back gains
nothing, but is at most one round behind the queue's, so silence saves up one round and no more: a stream of high
weight has but one frame waiting, and often is not in the queue at the moment its turn comes.
"""

from __future__ import annotations

import heapq
import math

from headworks_server.core.estimate import FrameTimes
from headworks_server.core.grant import MAX_WEIGHT
from headworks_server.core.session import StreamSession

STRIDE = math.lcm(*range(1, MAX_WEIGHT + 1))  # divides evenly by every weight, so passes are exact integers


class Share:
    """A stream's part in the round robin: made by `join`, given to `offer` and `leave`, opaque otherwise."""

    __slots__ = ("joined", "pass_", "queue", "queued", "session", "stride")

    def __init__(self, queue: ModelQueue, session: StreamSession, pass_: int) -> None:
        self.queue = queue
        self.session = session
        self.stride = STRIDE // session.grant.weight
        self.pass_ = pass_
        self.queued = False
        self.joined = True


class ModelQueue:
    """A model's streams, and the model's own part in the round robin among the models of its pool.

    Attributes:
        times: what its frames take, as measured; its owner feeds them.
        burst: frames it may have in a row, so that they make one batch.
        pass_: lane time it has had, by the weight it had it with; the pool's own.
        streams: streams that have joined and not left.
        in_lanes: frames admitted whose tickets have not come back.
        weight: of the streams in the queue, together.
    """

    __slots__ = ("_departed", "_heap", "_order", "_pass", "burst", "in_lanes", "pass_", "streams", "times", "weight")

    def __init__(self, *, frame_ns: int, burst: int) -> None:
        self.times = FrameTimes(frame_ns=frame_ns)
        self.burst = burst
        self.pass_ = 0
        self.streams = 0
        self.in_lanes = 0
        self.weight = 0
        self._heap: list[tuple[int, int, Share]] = []  # (pass, order of queueing, share)
        self._order = 0
        self._pass = 0  # the largest pass served: how far the round robin has come
        self._departed = 0  # shares in the heap whose stream has left

    def __len__(self) -> int:
        """Streams in the queue; some may turn out not to want admission any more."""
        return len(self._heap) - self._departed

    def join(self, session: StreamSession) -> Share:
        """Take an opened stream in, with the weight it was granted."""
        self.streams += 1
        return Share(self, session, self._pass)

    def leave(self, share: Share) -> None:
        """Let a stream go. Idempotent."""
        if not share.joined:
            return
        share.joined = False
        self.streams -= 1
        if share.queued:
            self.weight -= share.session.grant.weight
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
        self.weight += share.session.grant.weight
        heapq.heappush(self._heap, (share.pass_, self._order, share))

    def take(self) -> Share | None:
        """Take the next stream that still wants admission out of the queue."""
        while self._heap:
            share = heapq.heappop(self._heap)[2]
            share.queued = False
            if not share.joined:
                self._departed -= 1
                continue
            self.weight -= share.session.grant.weight
            if share.session.wants_admission:
                return share
        return None

    @property
    def idle(self) -> bool:
        """Whether nobody uses the model: no stream has it, and no frame of it is in a lane."""
        return not self.streams and not self.in_lanes

    def charge(self, share: Share) -> None:
        """Count a frame that the stream was just admitted with, and queue it again if it wants another."""
        self.in_lanes += 1
        self._pass = max(self._pass, share.pass_)
        share.pass_ += share.stride
        self.offer(share)

"""Who is next, when, and on which lane: the model, by the lane time it has had, then its stream, by weighted turns.

One pool per group of interchangeable lanes, on the event loop. The rpc room joins a stream to its model's queue when it
opens, offers it whenever it may want admission, and pumps on two events: a frame arrived, a lane has room. The pool
commits frames (`session.admit`) and submits them; until then they stay compressed and replaceable. A lane has room
while its frames that are not launched are fewer than its target and its slack (`LaneEstimate.slack`): one number for
how far ahead.

Models that share lanes take turns by stride scheduling in units of measured lane time: a model's pass grows with each
frame by what such a frame takes, divided by the weight of its streams in the queue; the smallest is next. So streams
share the lanes by their weights whatever their models cost, and a dear model does not starve a cheap one. A model that
comes back is at most one round behind, as a stream is.
"""

from __future__ import annotations

from typing import Protocol

from headworks_server.core.estimate import LaneEstimate
from headworks_server.core.frame import Frame
from headworks_server.core.outcomes import DropReason, DropStage
from headworks_server.core.roundrobin import STRIDE, ModelQueue, Share


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


class AdmissionPool:
    """Fair admission onto a group of interchangeable lanes.

    Attributes:
        estimates: the measured times of each lane, in the order of the lanes; their owner feeds them.
        queues: the models that share the lanes.
    """

    def __init__(self, lanes: list[Lane]) -> None:
        self.estimates = [LaneEstimate() for _ in lanes]
        self.queues: list[ModelQueue] = []
        self._lanes = lanes
        self._pass = 0  # the largest pass of a model served: how far the turns have come
        self._turn: ModelQueue | None = None  # the model whose burst it is
        self._burst = 0  # frames left of that burst

    @property
    def queued(self) -> int:
        """Streams in the queues; some may turn out not to want admission any more."""
        return sum(len(queue) for queue in self.queues)

    def add_model(self, *, frame_ns: int = 1, burst: int = 1) -> ModelQueue:
        """Let a model share the lanes.

        Args:
            frame_ns: lane time of one frame, until it is measured.
            burst: frames it may have in a row: the size of its batches.
        """
        queue = ModelQueue(frame_ns=frame_ns, burst=burst)
        self.add_queue(queue)
        return queue

    def add_queue(self, queue: ModelQueue) -> None:
        """Let a model share the lanes from now on, again or for the first time."""
        queue.pass_ = max(queue.pass_, self._pass)
        self.queues.append(queue)

    def remove_queue(self, queue: ModelQueue) -> None:
        """Let a model have no more turns. Its streams may stay in its queue."""
        self.queues.remove(queue)
        if self._turn is queue:
            self._turn = None

    def offer(self, share: Share) -> None:
        """Queue a stream if it wants admission: after a frame arrived, and after one completed."""
        queue = share.queue
        if not queue.weight and len(self.queues) > 1:
            queue.pass_ = max(queue.pass_, self._pass - STRIDE * queue.times.frame_ns * queue.burst)
        queue.offer(share)

    def leave(self, share: Share) -> None:
        """Let a stream go. Idempotent."""
        share.queue.leave(share)

    def pump(self, now_ns: int) -> list[Frame]:
        """Admit as many frames as the lanes have room for, and submit them.

        Returns the frames that left their mailboxes, in order: those with `admitted_ns` are in flight, the others
        were dropped DEADLINE. Their streams may have something to tell.
        """
        moved: list[Frame] = []
        if not self.queued:
            return moved
        # A lane launches meanwhile: then there is more room than counted here, and it calls again.
        ahead = [lane.ahead() for lane in self._lanes]
        while (index := self._roomiest(ahead)) >= 0:
            weight, share = self._next()
            if share is None:
                break
            queue = share.queue
            if self._too_late(share, index, ahead[index], now_ns):
                dropped = share.session.drop_waiting(DropReason.DEADLINE, DropStage.BEFORE_DECODE, now_ns)
                if dropped is not None:
                    moved.append(dropped)
                self.offer(share)
                continue
            self._charge(queue, weight)
            frame = share.session.admit(now_ns)
            self.estimates[index].outstanding += 1
            ahead[index] += 1
            self._lanes[index].submit(frame)
            moved.append(frame)
            queue.charge(share)
        return moved

    def _next(self) -> tuple[int, Share | None]:
        """Take the next stream out of the queue of the model whose turn it is, with the weight the model had."""
        while True:
            queue = self._turn
            if queue is None or not self._burst or not len(queue):
                waiting = [queue for queue in self.queues if len(queue)]
                if not waiting:
                    return 0, None
                queue = self._turn = min(waiting, key=lambda queue: queue.pass_)
                self._burst = queue.burst
            weight = queue.weight
            share = queue.take()
            if share is not None:
                return weight, share

    def _charge(self, queue: ModelQueue, weight: int) -> None:
        """Count a frame of a model whose waiting streams have that weight together."""
        self._burst -= 1
        self._pass = max(self._pass, queue.pass_)
        queue.pass_ += STRIDE * queue.times.frame_ns // weight

    def _roomiest(self, ahead: list[int]) -> int:
        """The index of the lane with the most room, the first of equals, or -1 where none has any."""
        best, most = -1, 0
        for index, lane in enumerate(self._lanes):
            room = lane.target + self.estimates[index].slack(lane.target, lane.decoders) - ahead[index]
            if room > most:
                best, most = index, room
        return best

    def _too_late(self, share: Share, index: int, ahead: int, now_ns: int) -> bool:
        """Whether the waiting frame could not be served within its deadline even if it were admitted now."""
        waiting = share.session.waiting
        if waiting is None or not waiting.deadline_ns:
            return False
        target = self._lanes[index].target
        done_ns = self.estimates[index].done_ns(share.queue.times, ahead=ahead, target=target, now_ns=now_ns)
        return done_ns > waiting.deadline_ns

"""The round robin against a plain twin, while streams come, go, fall silent and change their mind.

The twin looks at every queued stream and takes the smallest pass, the longest queued among equals. The heap of the
pool must choose the same stream each time, whatever has happened to the streams in it meanwhile.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headworks_server.core.admission import AdmissionPool
from headworks_server.core.events import ResultOutcome
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant
from headworks_server.core.outcomes import DropReason, DropStage
from headworks_server.core.roundrobin import STRIDE, Share
from headworks_server.core.session import StreamSession
from support.lanes import CountingLane
from support.streams import make_frame, open_session


@dataclass(eq=False)
class Twin:
    """What the plain version knows of one stream."""

    session: StreamSession
    share: Share
    grant: Grant
    pass_: int = 0
    place: int = 0  # order of queueing, 0 while not queued
    waits: bool = False
    in_flight: list[Frame] = field(default_factory=list)
    in_flight_count: int = 0
    next_id: int = 0
    overtaken: Counter[int] = field(default_factory=Counter)

    @property
    def wants(self) -> bool:
        return self.waits and self.in_flight_count < self.grant.max_in_flight


class AdmissionMachine(RuleBasedStateMachine):
    """Streams around one pool, and the plain version of its choices."""

    @initialize(lanes=st.integers(1, 3), batch=st.integers(1, 2), decoders=st.integers(0, 2))
    def build(self, lanes: int, batch: int, decoders: int) -> None:
        self.lanes = [CountingLane(target=batch, decoders=decoders) for _ in range(lanes)]
        self.pool = AdmissionPool(list(self.lanes))
        self.queue = self.pool.add_model()
        self.streams: list[Twin] = []
        self.place = 0
        self.pass_ = 0

    # The plain version.

    def twin_offer(self, twin: Twin) -> None:
        if not twin.place and twin.wants:
            self.place += 1
            twin.place = self.place
            twin.pass_ = max(twin.pass_, self.pass_ - STRIDE)
            twin.overtaken.clear()

    def twin_next(self) -> Twin | None:
        """The stream whose turn it is; those before it that want nothing any more lose their place."""
        for twin in sorted((twin for twin in self.streams if twin.place), key=lambda twin: (twin.pass_, twin.place)):
            twin.place = 0
            if twin.wants:
                self.pass_ = max(self.pass_, twin.pass_)
                twin.pass_ += STRIDE // twin.grant.weight
                twin.waits = False
                twin.in_flight_count += 1
                return twin
        return None

    # What happens.

    @precondition(lambda self: len(self.streams) < 6)
    @rule(weight=st.sampled_from([1, 1, 1, 2, 3, 16]), in_flight=st.integers(1, 2))
    def join(self, weight: int, in_flight: int) -> None:
        granted = Grant(weight=weight, max_in_flight=in_flight, window=in_flight + 2)
        session = open_session(granted)
        self.streams.append(Twin(session, self.queue.join(session), granted, pass_=self.pass_))

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), goes_first=st.booleans())
    def leave(self, data: st.DataObject, goes_first: bool) -> None:
        twin = self.streams.pop(data.draw(st.integers(0, len(self.streams) - 1)))
        if goes_first:
            twin.session.peer_gone(1)
        self.pool.leave(twin.share)
        self.pool.leave(twin.share)
        self.pool.offer(twin.share)

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), count=st.integers(1, 4))
    def frames_arrive(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            twin = data.draw(st.sampled_from(self.streams))
            twin.next_id += 1
            frame = make_frame(twin.next_id)
            frame.stream = twin
            twin.session.receive_frame(frame, 1)
            twin.waits = True
            self.pool.offer(twin.share)
            self.twin_offer(twin)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def waiting_frame_is_dropped(self, data: st.DataObject) -> None:
        """The stream stays in the queue and wants nothing."""
        twin = data.draw(st.sampled_from(self.streams))
        twin.session.drop_waiting(DropReason.DEADLINE, DropStage.BEFORE_DECODE, 1)
        twin.waits = False

    @rule(data=st.data(), count=st.integers(1, 4))
    def lane_launches(self, data: st.DataObject, count: int) -> None:
        data.draw(st.sampled_from(self.lanes)).launch(count)

    @precondition(lambda self: any(twin.in_flight for twin in self.streams))
    @rule(data=st.data())
    def frame_completes(self, data: st.DataObject) -> None:
        twin = data.draw(st.sampled_from([twin for twin in self.streams if twin.in_flight]))
        twin.session.complete(twin.in_flight.pop(0), ResultOutcome(b""), 1)
        twin.session.poll(1)
        twin.in_flight_count -= 1
        self.pool.offer(twin.share)
        self.twin_offer(twin)

    @rule()
    def pump(self) -> None:
        room = [lane.target + lane.decoders - lane.ahead() for lane in self.lanes]
        before = [len(lane.submitted) for lane in self.lanes]
        expected: list[Twin] = []
        while len(expected) < sum(room):
            twin = self.twin_next()
            if twin is None:
                break
            expected.append(twin)
            for other in self.streams:
                if other.place and other.wants:
                    other.overtaken[id(twin)] += 1
                    assert other.overtaken[id(twin)] <= twin.grant.weight / other.grant.weight + 1, "nobody starves"
        moved = self.pool.pump(1)
        assert [frame.stream for frame in moved] == expected
        for frame in moved:
            frame.stream.in_flight.append(frame)
        for lane, count, space in zip(self.lanes, before, room, strict=True):
            assert len(lane.submitted) - count <= space, "a lane takes no more than it has room for"

    @invariant()
    def queue_is_bounded(self) -> None:
        """What departed streams leave behind is at most as much again."""
        assert self.pool.queued <= len(self.streams)
        assert len(self.queue._heap) <= 2 * len(self.streams) + 1


AdmissionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAdmissionMachine = AdmissionMachine.TestCase

"""Who is admitted next, and when: the room of a lane, the round robin, and deadlines that are checked before work.

Time stands still unless a test moves it; lanes launch when they are told to.
"""

from __future__ import annotations

from headworks_server.core.admission import AdmissionPool
from headworks_server.core.events import DropOutcome, ResultOutcome
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant
from headworks_server.core.outcomes import DropReason, DropStage
from headworks_server.core.roundrobin import ModelQueue, Share
from headworks_server.core.session import StreamSession
from support.lanes import CountingLane
from support.streams import MS, make_frame, open_session

TOO_LATE = DropOutcome(DropReason.DEADLINE, DropStage.BEFORE_DECODE)


class Camera:
    """A stream in a pool that always has a newer frame; its results come when it is told."""

    def __init__(
        self,
        pool: AdmissionPool,
        *,
        queue: ModelQueue | None = None,
        weight: int = 1,
        max_in_flight: int = 2,
        deadline_ms: int = 0,
    ) -> None:
        self.pool = pool
        self.session: StreamSession = open_session(
            Grant(weight=weight, max_in_flight=max_in_flight, deadline_ns=deadline_ms * MS)
        )
        self.share: Share = (queue or pool.queues[0]).join(self.session)
        self.sent = 0

    def send(self, now_ns: int = 1) -> Frame:
        self.sent += 1
        frame = make_frame(self.sent, received_ns=now_ns)
        frame.stream = self
        self.session.receive_frame(frame, now_ns)
        self.pool.offer(self.share)
        return frame

    def complete_all(self) -> None:
        for frame in self.session.frames_in_flight():
            self.session.complete(frame, ResultOutcome(b""), 1)
        self.session.poll(1)
        self.pool.offer(self.share)


def pool_of(*lanes: CountingLane) -> AdmissionPool:
    """A pool of one model."""
    pool = AdmissionPool(list(lanes))
    pool.add_model()
    return pool


def lane_and_pool(*, target: int = 1, decoders: int = 0) -> tuple[CountingLane, AdmissionPool]:
    lane = CountingLane(target=target, decoders=decoders)
    return lane, pool_of(lane)


def serve_one_at_a_time(lane: CountingLane, pool: AdmissionPool, cameras: list[Camera], count: int) -> list[Camera]:
    """Let every camera always have a frame waiting, and return who was served, in order."""
    served: list[Camera] = []
    while len(served) < count:
        for camera in cameras:
            camera.send()
        for frame in pool.pump(1):
            served.append(frame.stream)
            frame.stream.complete_all()
        lane.launch(1)
    return served


# Room.


def test_a_lane_takes_frames_while_fewer_than_target_and_decoders_are_ahead() -> None:
    """One batch gathers and every decoder is busy: more would only grow old decoded."""
    lane, pool = lane_and_pool(target=2, decoders=3)
    for camera in [Camera(pool) for _ in range(8)]:
        camera.send()
    assert len(pool.pump(1)) == 5
    assert pool.pump(1) == []
    lane.launch(2)
    assert len(pool.pump(1)) == 2
    assert pool.queued == 1


def test_frames_go_to_the_lane_with_the_most_room() -> None:
    """Interchangeable lanes fill evenly; the first of equals is taken."""
    lanes = [CountingLane(target=1, decoders=1), CountingLane(target=3, decoders=1)]
    pool = pool_of(*lanes)
    for camera in [Camera(pool) for _ in range(9)]:
        camera.send()
    pool.pump(1)
    # Room (2, 4), then (2, 3), (2, 2), (1, 2), (1, 1), (0, 1).
    assert (len(lanes[0].submitted), len(lanes[1].submitted)) == (2, 4)
    assert [estimate.outstanding for estimate in pool.estimates] == [2, 4]


def test_a_waiting_frame_stays_replaceable_until_there_is_room() -> None:
    """Rule 5: committing is the last moment; what is admitted then is the newest."""
    lane, pool = lane_and_pool()
    first, second = Camera(pool), Camera(pool)
    first.send()
    pool.pump(1)
    second.send()
    newest = second.send()
    assert pool.pump(1) == []
    lane.launch(1)
    assert pool.pump(1) == [newest]
    assert lane.submitted[-1] is newest
    assert newest.admitted_ns == 1


def test_a_stream_is_admitted_no_further_than_its_grant() -> None:
    """Rule 12: room in the lane is not room in flight."""
    lane, pool = lane_and_pool(target=8, decoders=8)
    camera = Camera(pool, max_in_flight=1)
    camera.send()
    pool.pump(1)
    camera.send()
    assert pool.pump(1) == []
    assert pool.queued == 0, "it is offered again when its frame comes back"
    camera.complete_all()
    assert len(pool.pump(1)) == 1
    assert len(lane.submitted) == 2


# Whose turn it is.


def test_equal_streams_take_turns() -> None:
    """Rule 12: nobody is served twice before everybody is served once."""
    lane, pool = lane_and_pool()
    cameras = [Camera(pool) for _ in range(3)]
    assert serve_one_at_a_time(lane, pool, cameras, 9) == cameras * 3


def test_weights_divide_the_lane() -> None:
    """Rule 12: a stream of weight 3 gets three turns in four beside one of weight 1."""
    lane, pool = lane_and_pool()
    heavy, light = Camera(pool, weight=3), Camera(pool)
    served = serve_one_at_a_time(lane, pool, [heavy, light], 40)
    assert (served.count(heavy), served.count(light)) == (30, 10)
    longest = max(len(turns) for turns in "".join("h" if camera is heavy else "l" for camera in served).split("l"))
    assert longest <= 4, "its turns are spread, not served in bursts"


def test_a_new_stream_starts_level() -> None:
    """Joining late is no debt of others: the newcomer takes turns from now on."""
    lane, pool = lane_and_pool()
    old = Camera(pool)
    serve_one_at_a_time(lane, pool, [old], 50)
    new = Camera(pool)
    served = serve_one_at_a_time(lane, pool, [old, new], 10)
    assert served.count(new) == 5


def test_a_stream_that_returns_is_at_most_one_round_behind() -> None:
    """Rule 12: silence saves up one round and no more, so a camera that wakes does not starve the others."""
    lane, pool = lane_and_pool()
    silent, busy = Camera(pool), Camera(pool)
    serve_one_at_a_time(lane, pool, [silent, busy], 2)
    serve_one_at_a_time(lane, pool, [busy], 100)
    served = serve_one_at_a_time(lane, pool, [silent, busy], 10)
    assert served[:4] in ([silent, busy, silent, busy], [silent, silent, busy, silent])
    assert 5 <= served.count(silent) <= 6


def test_leaving_and_coming_back_to_the_queue_gains_nothing() -> None:
    """A stream keeps its pass: who waits for each result before the next frame is not ahead of who is always queued."""
    lane, pool = lane_and_pool()
    single, double = Camera(pool, max_in_flight=1), Camera(pool, max_in_flight=2)
    served = serve_one_at_a_time(lane, pool, [single, double], 20)
    assert served.count(single) == 10


# Leaving.


def test_a_stream_that_leaves_while_queued_is_passed_over() -> None:
    """Its frame is not admitted, and the next stream has its turn in the same pump."""
    lane, pool = lane_and_pool()
    leaver, stayer = Camera(pool), Camera(pool)
    leaver.send()
    frame = stayer.send()
    pool.leave(leaver.share)
    pool.leave(leaver.share)
    assert pool.queued == 1
    assert pool.pump(1) == [frame]
    assert (pool.queued, lane.submitted) == (0, [frame])


def test_a_stream_that_left_cannot_be_offered() -> None:
    """A result that comes back late does not bring its stream into the queue again."""
    _, pool = lane_and_pool()
    camera = Camera(pool)
    pool.leave(camera.share)
    camera.send()
    assert pool.queued == 0
    assert pool.pump(1) == []


def test_a_queued_stream_whose_frame_is_gone_is_passed_over() -> None:
    """A drain or a lost peer empties the mailbox while the stream is queued."""
    _, pool = lane_and_pool()
    drained, other = Camera(pool), Camera(pool)
    drained.send()
    frame = other.send()
    drained.session.drain(1_000 * MS, 1)
    assert pool.pump(1) == [frame]


def test_many_streams_that_come_and_go_leave_nothing_behind() -> None:
    """While no lane has room, departed streams must not pile up in the queue."""
    lane, pool = lane_and_pool()
    lane.waiting = 1
    stayer = Camera(pool)
    frame = stayer.send()
    for _ in range(200):
        leaver = Camera(pool)
        leaver.send()
        pool.leave(leaver.share)
    assert pool.queued == 1
    lane.launch(1)
    assert pool.pump(1) == [frame]


# Deadlines.


def measured_pool(*, ahead: int, decode_ms: int, batch_ms: int) -> tuple[CountingLane, AdmissionPool]:
    """A lane of batches of 2 whose times are known, with `ahead` frames in it and nothing running."""
    lane, pool = lane_and_pool(target=2, decoders=8)
    lane.waiting = pool.estimates[0].outstanding = ahead
    pool.estimates[0].measured(decode_ns=decode_ms * MS, batch_ns=batch_ms * MS, size=1, now_ns=1)
    pool.queues[0].times.add(decode_ns=decode_ms * MS, batch_ns=batch_ms * MS, size=1)
    return lane, pool


def test_a_frame_that_cannot_be_in_time_is_dropped_at_admission() -> None:
    """Rule 13: now + what is ahead + its decoding + its batch. 3 ahead are one whole batch of 2: 10 + 6 + 10 ms."""
    for deadline_ms, in_time in ((26, True), (25, False)):
        lane, pool = measured_pool(ahead=3, decode_ms=6, batch_ms=10)
        camera = Camera(pool, deadline_ms=deadline_ms)
        frame = camera.send(now_ns=50 * MS)
        assert pool.pump(50 * MS) == [frame], "either way it left its mailbox"
        assert bool(lane.submitted) == bool(frame.admitted_ns) == in_time
        assert camera.session.ledger.drops == ({} if in_time else {TOO_LATE: 1})


def test_the_running_batch_counts_as_far_as_it_has_to_go() -> None:
    """Rule 13: of a batch of 10 ms that started 6 ms ago, 4 are ahead of the frame: 4 + 4 + 10 ms."""
    for deadline_ms, in_time in ((18, True), (17, False)):
        lane, pool = measured_pool(ahead=0, decode_ms=4, batch_ms=10)
        pool.estimates[0].outstanding = 2  # launched
        pool.estimates[0].measured(decode_ns=4 * MS, batch_ns=10 * MS, size=1, now_ns=44 * MS)
        Camera(pool, deadline_ms=deadline_ms).send(now_ns=50 * MS)
        pool.pump(50 * MS)
        assert bool(lane.submitted) == in_time


def test_the_time_a_frame_has_waited_is_off_its_budget() -> None:
    """Rule 9: a deadline runs from receipt, not from admission."""
    lane, pool = measured_pool(ahead=0, decode_ms=4, batch_ms=10)
    camera = Camera(pool, deadline_ms=20)
    camera.send(now_ns=50 * MS)
    pool.pump(57 * MS)
    assert camera.session.ledger.drops == {TOO_LATE: 1}
    assert lane.submitted == []


def test_a_lane_that_has_measured_nothing_drops_only_what_is_late_already() -> None:
    """Rule 13: before the first batch there is no estimate to drop by."""
    for now_ms, in_time in ((60, True), (61, False)):
        lane, pool = lane_and_pool()
        Camera(pool, deadline_ms=10).send(now_ns=50 * MS)
        pool.pump(now_ms * MS)
        assert bool(lane.submitted) == in_time


def test_the_next_stream_is_served_in_the_same_pump_as_a_drop() -> None:
    """Rule 12: a deadline only drops. It costs its stream neither a turn nor the lane its room."""
    lane, pool = lane_and_pool()
    late, other = Camera(pool, deadline_ms=10), Camera(pool)
    dropped, frame = late.send(now_ns=1), other.send(now_ns=1)
    assert pool.pump(20 * MS) == [dropped, frame]
    assert lane.submitted == [frame]
    lane.launch(1)
    fresh = late.send(now_ns=20 * MS)
    other.send(now_ns=20 * MS)
    assert pool.pump(20 * MS) == [fresh], "the turn it did not take is still its own"


def test_a_stream_without_a_deadline_waits_as_long_as_it_takes() -> None:
    """Rule 9: the default is none."""
    lane, pool = measured_pool(ahead=0, decode_ms=400, batch_ms=1_000)
    frame = Camera(pool).send(now_ns=1)
    assert pool.pump(60_000 * MS) == [frame]
    assert lane.submitted == [frame]

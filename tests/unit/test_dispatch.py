"""The loop's side of the lanes: tickets to their streams, each batch to health and estimate once, then the pump."""

from __future__ import annotations

import asyncio

from headworks_native.lane import CANCELLED, FAILED, CompletionRing, Ticket
from headworks_server.core.events import NoticeKind, ResultOutcome
from headworks_server.core.frame import Frame
from headworks_server.core.model import ServedModel
from headworks_server.core.outcomes import FrameErrorCode
from headworks_server.errors import EngineError, FrameRejectedError
from headworks_server.runtime.dispatch import Dispatcher
from headworks_server.runtime.seat import Seat
from headworks_server.runtime.ticket import ticket_of
from support.lanes import CountingLane
from support.seats import (
    ExecutorThatFails,
    PaintingPreparer,
    PlainPicture,
    PreparerThatRaises,
    admitted_frame,
    make_seat,
)
from support.served import served_model
from support.streams import make_frame, open_session


class RecordingStream:
    """A stream in a pool that writes down what the dispatcher tells it, into a diary shared by all streams."""

    score_threshold, max_detections, form = 0.25, 9, 1

    def __init__(self, model: ServedModel, name: str, diary: list[tuple[str, str]]) -> None:
        self.model = model
        self.model_name = model.facts.name
        self.name, self.diary = name, diary
        self.session = open_session()
        self.share = model.queue.join(self.session)

    def ticket_done(self, ticket: Ticket, now_ns: int) -> None:
        self.diary.append((self.name, "done"))
        frame = ticket.frame
        assert isinstance(frame, Frame)
        if frame in self.session.frames_in_flight():
            self.session.complete(frame, ResultOutcome(b""), now_ns)
        self.model.pool.offer(self.share)

    def wake_if_due(self, now_ns: int) -> None:
        assert now_ns > 0
        self.diary.append((self.name, "woken"))

    def send(self, frame_id: int) -> Frame:
        frame = make_frame(frame_id)
        frame.stream = self
        self.session.receive_frame(frame, 1)
        self.model.pool.offer(self.share)
        return frame


class RecordingListener:
    """Writes down changes of health."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, NoticeKind]] = []

    def health_changed(self, model: ServedModel, kind: NoticeKind, now_ns: int) -> None:
        assert now_ns > 0
        self.changes.append((model.facts.name, kind))


class Rig:
    """A model whose batches are run in a seat here and now, and the dispatcher that takes them back."""

    def __init__(self) -> None:
        self.lane = CountingLane(target=1, decoders=1)
        self.model = served_model("players", lane=self.lane)
        self.completions = CompletionRing(100)
        self.dispatcher = Dispatcher(self.completions, [self.model.pool])
        self.diary: list[tuple[str, str]] = []
        self.streams = [RecordingStream(self.model, name, self.diary) for name in ("first", "second")]
        self.estimate = self.model.pool.estimates[0]

    def run_batch(self, seat: Seat, payloads: list[bytes]) -> list[Ticket]:
        """Run a batch of frames, of the streams in turn, and push its tickets; the loop has not drained yet."""
        tickets = [
            ticket_of(admitted_frame(payload, stream=self.streams[place % 2])) for place, payload in enumerate(payloads)
        ]
        self.estimate.outstanding += len(tickets)
        seat.serve(tickets)
        for ticket in tickets:
            self.completions.push(ticket)
        return tickets


def watch_health(rig: Rig) -> RecordingListener:
    """Attach a listener, and drain by hand."""
    listener = RecordingListener()

    async def attach() -> None:
        rig.dispatcher.attach(asyncio.get_running_loop(), listener)
        rig.dispatcher.detach()

    asyncio.run(attach())
    return listener


# Outcomes and wakes.


def test_every_ticket_reaches_its_stream_and_every_stream_is_woken_once() -> None:
    """A batch gives outcomes first; the writers are woken behind it, so that each writes once."""
    rig = Rig()
    rig.run_batch(make_seat(), [b"1", b"2", b"3", b"4"])
    rig.dispatcher.drain()
    assert rig.diary == [
        ("first", "done"),
        ("second", "done"),
        ("first", "done"),
        ("second", "done"),
        ("first", "woken"),
        ("second", "woken"),
    ]


def test_admission_fills_the_room_before_the_writers_are_woken() -> None:
    """An outcome and the credit of the frame admitted in its place leave in one write."""
    rig = Rig()
    first = rig.streams[0]
    for frame_id in (1, 2, 3):
        first.send(frame_id)
        rig.model.pool.pump(1)
    assert first.session.waiting is not None
    frame = first.session.frames_in_flight()[0]
    frame.payload = admitted_frame(b"1").payload
    ticket = ticket_of(frame)
    make_seat().serve([ticket])
    rig.completions.push(ticket)
    rig.lane.launch(2)
    rig.dispatcher.drain()
    assert rig.diary == [("first", "done"), ("first", "woken")]
    assert first.session.waiting is None, "admitted in between"
    assert len(rig.lane.submitted) == 3


def test_a_launch_without_tickets_pumps_too() -> None:
    """Room has appeared: whoever is admitted is woken, for it has more credit."""
    rig = Rig()
    rig.lane.waiting = 2
    frame = rig.streams[1].send(1)
    rig.dispatcher.pump(rig.model.pool, 1, rig.streams[1])
    assert rig.lane.submitted == []
    rig.lane.launch(2)
    rig.completions.post_launch()
    rig.dispatcher.drain()
    assert rig.lane.submitted == [frame]
    assert rig.diary == [("second", "woken")]


def test_pump_wakes_the_streams_whose_frames_moved_but_the_one_that_asks() -> None:
    """On a frame's arrival: its own stream looks for itself, others have more credit to tell."""
    rig = Rig()
    asking, other = rig.streams
    frames = [other.send(1), asking.send(1)]
    rig.dispatcher.pump(rig.model.pool, 1, asking)
    assert rig.lane.submitted == frames
    assert rig.diary == [("second", "woken")]


def test_an_empty_drain_tells_nobody() -> None:
    """A wake-up that another drain has already served does no harm."""
    rig = Rig()
    rig.dispatcher.drain()
    assert rig.diary == []


# Accounts of the lane.


def test_a_batch_is_measured_once() -> None:
    """The estimate is fed by the first ticket of a batch, and counts every ticket that came back."""
    rig = Rig()
    leader, follower, *_ = rig.run_batch(make_seat(), [b"1", b"2", b"3", b"4"])
    assert rig.estimate.outstanding == 4
    rig.dispatcher.drain()
    assert rig.estimate.outstanding == 0
    assert rig.estimate.decode_ns == leader.decoded_ns - leader.decode_started_ns
    assert rig.estimate.batch_ns == leader.executed_ns - leader.launched_ns
    assert (leader.leads_batch, follower.leads_batch) == (True, False)


def test_a_ticket_without_a_batch_is_counted_and_not_measured() -> None:
    """A damaged picture says nothing of the engine: neither a time nor its health."""
    error = FrameRejectedError(FrameErrorCode.UNDECODABLE, "damaged")
    rig = Rig()
    for _ in range(2):
        rig.run_batch(make_seat(executor=ExecutorThatFails(EngineError("x"))), [b"1"])
    rig.run_batch(make_seat(preparer=PreparerThatRaises(b"!", error)), [b"!"])
    rig.dispatcher.drain()
    assert rig.estimate.outstanding == 0
    assert (rig.estimate.decode_ns, rig.estimate.batch_ns) == (0, 0)
    assert rig.model.health.batch_failed("a third in a row") is NoticeKind.DEGRADED


def test_a_failed_batch_is_not_measured() -> None:
    """How fast an engine fails is not how fast it serves."""
    rig = Rig()
    rig.run_batch(make_seat(executor=ExecutorThatFails(EngineError("x"))), [b"1"])
    rig.dispatcher.drain()
    assert rig.estimate.outstanding == 0
    assert rig.estimate.batch_ns == 0


def test_health_counts_batches_not_frames() -> None:
    """Rule 14: three failed batches in a row, however many frames were in each; told once."""
    rig = Rig()
    listener = watch_health(rig)
    seat = make_seat(executor=ExecutorThatFails(EngineError("out of memory"), times=4))
    for failures in range(1, 5):
        rig.run_batch(seat, [b"1", b"2", b"3", b"4"])
        rig.dispatcher.drain()
        assert rig.model.health.serving == (failures < 3)
    assert listener.changes == [("players", NoticeKind.DEGRADED)]
    assert rig.model.health.detail == "out of memory"
    rig.run_batch(seat, [b"1", b"2"])
    rig.dispatcher.drain()
    assert listener.changes == [("players", NoticeKind.DEGRADED), ("players", NoticeKind.RESTORED)]


def test_a_failed_batch_that_a_cancelled_frame_leads_has_failed_all_the_same() -> None:
    """The batch is judged by a frame that somebody still waits for."""
    rig = Rig()
    tickets: list[Ticket] = []

    class PreparerThatCancelsTheFirst(PaintingPreparer):
        def prepare(self, data: memoryview, *, encoding: int, width: int, height: int) -> PlainPicture:
            tickets[0].cancelled = bytes(data) == b"2"
            return super().prepare(data, encoding=encoding, width=width, height=height)

    seat = make_seat(preparer=PreparerThatCancelsTheFirst(), executor=ExecutorThatFails(EngineError("x"), times=3))
    for _ in range(3):
        tickets[:] = [ticket_of(admitted_frame(payload, stream=rig.streams[0])) for payload in (b"1", b"2")]
        rig.estimate.outstanding += 2
        seat.serve(tickets)
        assert [ticket.status for ticket in tickets] == [CANCELLED, FAILED]
        for ticket in tickets:
            rig.completions.push(ticket)
        rig.dispatcher.drain()
    assert not rig.model.health.serving


# The loop.


def test_the_loop_drains_when_a_lane_pushes() -> None:
    """The completion ring's descriptor wakes the loop; after detaching it does not any more."""
    rig = Rig()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        rig.streams[0].wake_if_due = lambda now_ns: woken.set_result(now_ns)  # type: ignore[method-assign]
        rig.dispatcher.attach(loop, RecordingListener())
        await loop.run_in_executor(None, rig.run_batch, make_seat(), [b"1"])
        assert await asyncio.wait_for(woken, 30) > 0
        rig.dispatcher.detach()
        rig.dispatcher.detach()
        assert not loop.remove_reader(rig.completions.fileno())

    asyncio.run(serve())
    assert rig.diary == [("first", "done")]

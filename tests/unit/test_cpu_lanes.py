"""The CPU lanes as admission and the loop see them: every ticket comes back exactly once, whatever its seat does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import structlog

from headworks_native.lane import CANCELLED, DEADLINE, DONE, FAILED, CompletionRing, Ticket
from headworks_server.core.frame import Frame
from headworks_server.core.outcomes import DropStage, FrameErrorCode
from headworks_server.errors import EngineError
from headworks_server.runtime.cpu import CpuLanes
from headworks_server.runtime.seat import Seat
from headworks_server.runtime.ticket import ticket_of
from support.seats import (
    CopyingExecutor,
    ExecutorThatFails,
    HeadThatRaises,
    PaintingPreparer,
    PreparerThatMisfits,
    PreparerThatRaises,
    PreparerThatWaits,
    admitted_frame,
    make_seat,
)
from support.tickets import drain

COLOURS = [bytes([colour]) for colour in range(1, 201)]


class Group:
    """Lanes that serve the models they are given, and their completion ring."""

    def __init__(self, count: int) -> None:
        self.completions = CompletionRing(1_000)
        self.lanes = CpuLanes(count, self.completions)

    def submit(self, payloads: list[bytes], *, model: str = "a", deadline_ns: int = 0) -> list[Frame]:
        frames = [admitted_frame(payload, model=model, deadline_ns=deadline_ns) for payload in payloads]
        for frame in frames:
            self.lanes.submit(frame)
        return frames

    def back(self, frames: list[Frame]) -> list[Ticket]:
        """Wait for all frames' tickets, each exactly once; in the order of the frames."""
        tickets = drain(self.completions, len(frames))
        assert len({id(ticket) for ticket in tickets}) == len(tickets) == len(frames)
        assert {id(ticket.frame) for ticket in tickets} == {id(frame) for frame in frames}
        return [frame.ticket for frame in frames]


@contextmanager
def lanes_with(*seats: Seat, target: int = 4) -> Iterator[Group]:
    """One running lane for each seat, all of one model."""
    group, left = Group(len(seats)), list(seats)
    group.lanes.add_model("a", target, group.lanes.make_seats(left.pop))
    group.lanes.start()
    try:
        yield group
    finally:
        group.lanes.close()


@pytest.mark.parametrize("count", [1, 3])
def test_every_ticket_comes_back_once_with_its_own_result(count: int) -> None:
    """Whichever lane takes it, in whichever batch."""
    with lanes_with(*[make_seat() for _ in range(count)]) as group:
        tickets = group.back(group.submit(COLOURS))
        assert [ticket.detections for ticket in tickets] == COLOURS
        assert {ticket.status for ticket in tickets} == {DONE}
        assert all(1 <= ticket.batch_size <= 4 for ticket in tickets)
    sizes = group.lanes.batch_sizes["a"]
    assert sum(size * batches for size, batches in sizes.items()) == len(COLOURS)
    assert group.lanes.ahead() == 0


def test_the_room_of_the_group_is_that_of_its_lanes() -> None:
    """Admission sees one lane: a batch of the largest target for each thread, and each thread decodes one frame."""
    lanes = CpuLanes(3, CompletionRing(8))
    assert (lanes.target, lanes.decoders) == (3, 3)
    lanes.add_model("small", 2, lanes.make_seats(make_seat))
    lanes.add_model("large", 4, lanes.make_seats(make_seat))
    assert (lanes.target, lanes.decoders) == (12, 3)


def test_a_lane_takes_no_more_than_the_target_of_the_model() -> None:
    """The queue is long, the batches are not; a model of a smaller target runs in parts."""
    executors = {"small": CopyingExecutor(), "large": CopyingExecutor()}
    group = Group(1)
    for model, target in (("small", 2), ("large", 4)):
        group.lanes.add_model(
            model, target, group.lanes.make_seats(lambda model=model: make_seat(executor=executors[model]))
        )
    small = group.submit([b"1", b"2", b"3", b"4", b"5"], model="small")
    large = group.submit([b"6", b"7", b"8", b"9", b"0"], model="large")
    group.lanes.start()
    group.back(small + large)
    group.lanes.close()
    assert executors["small"].batches == [b"12", b"34", b"5"]
    assert executors["large"].batches == [b"6789", b"0"]
    assert {name: dict(sizes) for name, sizes in group.lanes.batch_sizes.items()} == {
        "small": {2: 2, 1: 1},
        "large": {4: 1, 1: 1},
    }


def test_tickets_of_two_models_never_share_a_batch() -> None:
    """Each runs in its own model's seat, however they are mixed in the queue."""
    executors = {"a": [CopyingExecutor() for _ in range(2)], "b": [CopyingExecutor() for _ in range(2)]}
    group = Group(2)
    for model, of_lanes in executors.items():
        left = list(of_lanes)
        group.lanes.add_model(model, 4, group.lanes.make_seats(lambda left=left: make_seat(executor=left.pop())))
    frames: list[Frame] = []
    sent: dict[str, bytes] = {"a": b"", "b": b""}
    for number, payload in enumerate(COLOURS):
        model = "ab"[number * number % 3 % 2]
        frames += group.submit([payload], model=model)
        sent[model] += payload
    group.lanes.start()
    tickets = group.back(frames)
    group.lanes.close()
    assert [ticket.detections for ticket in tickets] == COLOURS
    for model, of_lanes in executors.items():
        ran = b"".join(batch for executor in of_lanes for batch in executor.batches)
        assert sorted(ran) == sorted(sent[model])


def test_a_decoder_that_raises_costs_one_frame() -> None:
    """Rule 14: the lane lives, and the frame's neighbours get their results."""
    with lanes_with(make_seat(preparer=PreparerThatRaises(b"!", RuntimeError("a defect")))) as group:
        tickets = group.back(group.submit([b"1", b"!", b"2"]))
        assert [ticket.status for ticket in tickets] == [DONE, FAILED, DONE]
        assert tickets[1].error_code == FrameErrorCode.UNDECODABLE
        assert group.back(group.submit([b"3"]))[0].detections == b"3"


def test_an_engine_that_fails_answers_its_batch_and_runs_the_next() -> None:
    """Rule 14: ENGINE_FAILED for each frame of the failed batches, then results again."""
    with lanes_with(
        make_seat(executor=ExecutorThatFails(EngineError("gone"), times=3), max_batch=1), target=1
    ) as group:
        tickets = group.back(group.submit([b"1", b"2", b"3", b"4"]))
        assert [ticket.status for ticket in tickets] == [FAILED, FAILED, FAILED, DONE]
        assert {(ticket.error_code, ticket.detail) for ticket in tickets[:3]} == {
            (FrameErrorCode.ENGINE_FAILED, "gone")
        }
        assert all(ticket.leads_batch for ticket in tickets), "health counts each"


@pytest.mark.parametrize(
    "make_broken",
    [
        lambda: make_seat(executor=ExecutorThatFails(ZeroDivisionError("x"))),
        lambda: make_seat(head=HeadThatRaises(ord("!"))),
        lambda: make_seat(preparer=PreparerThatMisfits(b"!")),
    ],
    ids=["executor", "head", "canvas"],
)
def test_a_defect_after_the_claim_costs_its_batch_and_not_the_lane(make_broken) -> None:
    """The thread goes on, the ring is free, every ticket is back, and the log names the model."""
    with structlog.testing.capture_logs() as logs, lanes_with(make_broken()) as group:
        tickets = group.back(group.submit([b"!"]))
        assert [ticket.status for ticket in tickets] == [FAILED]
        assert tickets[0].error_code == FrameErrorCode.ENGINE_FAILED
        assert tickets[0].detail.startswith("a defect of the server: ")
        assert group.lanes.ahead() == 0
        tickets = group.back(group.submit(COLOURS[:32]))
        assert [ticket.detections for ticket in tickets] == COLOURS[:32]
    assert [(entry["event"], entry["model"]) for entry in logs] == [("lane_defect", "a")]


def test_a_late_or_cancelled_ticket_comes_back_undecoded() -> None:
    """Rules 5 and 13: no decoder sees it."""
    preparer = PaintingPreparer()
    group = Group(1)
    group.lanes.add_model("a", 4, group.lanes.make_seats(lambda: make_seat(preparer=preparer)))
    frames = [*group.submit([b"1"], deadline_ns=1), *group.submit([b"2", b"3"])]
    frames[1].ticket.cancelled = True
    group.lanes.start()
    tickets = group.back(frames)
    group.lanes.close()
    assert [ticket.status for ticket in tickets] == [DEADLINE, CANCELLED, DONE]
    assert {ticket.stage for ticket in tickets[:2]} == {DropStage.BEFORE_DECODE}
    assert preparer.decoded == [b"3"]


def test_close_finishes_what_is_taken_and_cancels_the_rest() -> None:
    """What a lane holds is served; what nobody took comes back CANCELLED before_decode; nothing is lost."""
    preparer = PreparerThatWaits()
    group = Group(1)
    group.lanes.add_model("a", 1, group.lanes.make_seats(lambda: make_seat(preparer=preparer, max_batch=1)))
    group.lanes.start()
    taken = group.submit([b"1"])
    assert preparer.begun.wait(30)
    left = group.submit([b"2", b"3"])
    closing = threading.Thread(target=group.lanes.close)
    closing.start()
    cancelled = group.back(left)  # before the lane lets go of its own
    assert {(ticket.status, ticket.stage) for ticket in cancelled} == {(CANCELLED, DropStage.BEFORE_DECODE)}
    preparer.go_on.set()
    closing.join(30)
    assert not closing.is_alive()
    assert group.back(taken)[0].detections == b"1"
    assert preparer.decoded == [b"1"]
    assert group.lanes.ahead() == 0


def test_close_is_idempotent_and_leaves_no_thread() -> None:
    """Also on lanes that were never started, whose tickets come back, too."""
    before = threading.active_count()
    group = Group(2)
    group.lanes.add_model("a", 4, group.lanes.make_seats(make_seat))
    frames = group.submit([b"1", b"2"])
    for _ in range(2):
        group.lanes.close()
    assert {ticket.status for ticket in group.back(frames)} == {CANCELLED}
    with lanes_with(make_seat(), make_seat()) as other:
        other.lanes.close()
    assert threading.active_count() == before


def test_a_ticket_carries_what_its_frame_and_stream_say() -> None:
    """The picture is not copied: the ticket's bytes are those of the request."""
    stream = SimpleNamespace(score_threshold=0.5, max_detections=7, form=3, model_name="a")
    frame = admitted_frame(b"picture", stream=stream, deadline_ns=99)
    ticket = ticket_of(frame)
    assert ticket.data == b"picture"
    assert ticket.owner is frame.payload.message
    assert (ticket.frame, ticket.seat, frame.ticket) == (frame, "a", ticket)
    assert (ticket.score_threshold, ticket.max_detections, ticket.deadline_ns) == (0.5, 7, 99)
    assert (ticket.encoding, ticket.width, ticket.height) == (1, 0, 0)


def test_a_model_comes_and_goes_while_the_lanes_run() -> None:
    """Loading and unloading make and free seats, never threads; the others' frames go on."""
    with lanes_with(make_seat(), make_seat(), target=1) as group:
        threads = threading.active_count()
        before = group.submit(COLOURS[:20])
        group.lanes.add_model("b", 4, group.lanes.make_seats(make_seat))
        assert group.lanes.target == 8
        late = group.submit(COLOURS[20:60], model="b")
        assert [ticket.detections for ticket in group.back(before + late)] == COLOURS[:60]
        group.lanes.remove_model("b")
        assert (group.lanes.target, set(group.lanes.batch_sizes)) == (2, {"a"})
        assert [ticket.status for ticket in group.back(group.submit(COLOURS[:5]))] == [DONE] * 5
        assert threading.active_count() == threads

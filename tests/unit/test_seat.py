"""One seat of a lane: every ticket that goes in is concluded, each with its own frame's result, whatever fails."""

from __future__ import annotations

import pytest

from headworks_native.lane import CANCELLED, DEADLINE, DONE, FAILED, PENDING, Ticket
from headworks_server.core.outcomes import DropStage, FrameErrorCode
from headworks_server.errors import EngineError, FrameRejectedError
from headworks_server.runtime.seat import Seat
from support.seats import (
    HEIGHT,
    WIDTH,
    ColourHead,
    CopyingExecutor,
    ExecutorThatFails,
    HeadThatRaises,
    PaintingPreparer,
    PreparerThatMisfits,
    PreparerThatRaises,
    admitted_ticket,
    make_seat,
)

PAYLOADS = (b"r", b"g", b"b")


def tickets() -> list[Ticket]:
    return [admitted_ticket(payload) for payload in PAYLOADS]


def serve_and_recover(seat: Seat, batch: list[Ticket]) -> None:
    """Do as the lane's thread does when a seat raises."""
    with pytest.raises((ZeroDivisionError, ValueError, RuntimeError)) as raised:
        seat.serve(batch)
    seat.recover(batch, f"a defect of the server: {raised.value!r}")


def assert_serves(seat: Seat) -> None:
    """The seat is as good as new."""
    batch = [admitted_ticket(payload) for payload in (b"1", b"2", b"3", b"4")]
    assert seat.serve(batch) == 4
    assert [ticket.detections for ticket in batch] == [b"1", b"2", b"3", b"4"]


def test_each_ticket_gets_the_result_of_its_own_frame() -> None:
    """Decoded, painted, run as one batch, postprocessed; the ticket tells the source's size and the batch's."""
    executor = CopyingExecutor()
    seat, batch = make_seat(executor=executor), tickets()
    assert seat.serve(batch) == 3
    assert executor.batches == [b"rgb"]
    for ticket, payload in zip(batch, PAYLOADS, strict=True):
        assert (ticket.status, ticket.detections) == (DONE, payload)
        assert (ticket.source_width, ticket.source_height, ticket.batch_size) == (WIDTH, HEIGHT, 3)
    assert [ticket.leads_batch for ticket in batch] == [True, False, False]


def test_the_times_of_a_ticket_follow_each_other() -> None:
    """What the timings of a Result are made of."""
    seat, batch = make_seat(), tickets()
    seat.serve(batch)
    for ticket in batch:
        times = [ticket.decode_started_ns, ticket.published_ns, ticket.launched_ns, ticket.executed_ns]
        assert 0 < times[0] <= times[1] <= times[2] <= times[3]


def test_the_head_is_asked_for_what_the_stream_asked_for() -> None:
    """Score threshold and the number of detections are the stream's, not the model's."""

    class RecordingHead(ColourHead):
        asked: list[tuple[float, int]] = []  # noqa: RUF012 - one head in this test

        def postprocess(self, outputs, index, geometry, *, score_threshold, max_detections):
            self.asked.append((score_threshold, max_detections))
            options = {"score_threshold": score_threshold, "max_detections": max_detections}
            return super().postprocess(outputs, index, geometry, **options)

    head = RecordingHead()
    make_seat(head=head).serve([admitted_ticket(b"r")])
    assert head.asked == [(0.25, 9)]


def test_streams_of_different_forms_share_a_batch() -> None:
    """Each ticket is told in the form that its stream asked for: as detections, or as another form's value."""
    executor = CopyingExecutor()
    batch = [admitted_ticket(b"r"), admitted_ticket(b"g", form=3), admitted_ticket(b"b")]
    assert make_seat(executor=executor).serve(batch) == 3
    assert executor.batches == [b"rgb"]
    assert [(ticket.detections, ticket.value) for ticket in batch] == [(b"r", b""), (b"", b"g"), (b"b", b"")]


def test_a_damaged_picture_costs_its_own_frame_only() -> None:
    """Rule 14: UNDECODABLE, and the batch runs without it."""
    error = FrameRejectedError(FrameErrorCode.UNDECODABLE, "expected a JPEG, got 1 byte")
    executor = CopyingExecutor()
    seat, batch = make_seat(preparer=PreparerThatRaises(b"g", error), executor=executor), tickets()
    assert seat.serve(batch) == 2
    assert executor.batches == [b"rb"]
    assert [ticket.status for ticket in batch] == [DONE, FAILED, DONE]
    assert (batch[1].error_code, batch[1].detail) == (FrameErrorCode.UNDECODABLE, "expected a JPEG, got 1 byte")
    assert [batch[0].detections, batch[2].detections] == [b"r", b"b"]


def test_a_decoder_with_a_defect_costs_its_own_frame_only() -> None:
    """An exception that nobody foresaw is the frame's error, not its neighbours'."""
    seat, batch = make_seat(preparer=PreparerThatRaises(b"r", MemoryError("no memory"))), tickets()
    assert seat.serve(batch) == 2
    assert [ticket.status for ticket in batch] == [FAILED, DONE, DONE]
    assert batch[0].error_code == FrameErrorCode.UNDECODABLE
    assert batch[0].detail == "the decoder failed: MemoryError('no memory')"


def test_a_batch_of_damaged_pictures_does_not_run() -> None:
    """Nothing was claimed, so nothing is launched, and the seat goes on."""
    executor = CopyingExecutor()
    error = FrameRejectedError(FrameErrorCode.UNDECODABLE, "damaged")
    seat = make_seat(preparer=PreparerThatRaises(b"r", error), executor=executor)
    assert seat.serve([admitted_ticket(b"r"), admitted_ticket(b"r")]) == 0
    assert executor.batches == []
    assert_serves(seat)


def test_late_and_cancelled_tickets_are_never_decoded() -> None:
    """Rules 5 and 13: no work for a frame that nobody waits for; its stage says that none was spent."""
    preparer = PaintingPreparer()
    late, cancelled, wanted = admitted_ticket(b"r", deadline_ns=1), admitted_ticket(b"g"), admitted_ticket(b"b")
    cancelled.cancelled = True
    assert make_seat(preparer=preparer).serve([late, cancelled, wanted]) == 1
    assert preparer.decoded == [b"b"]
    assert (late.status, late.stage) == (DEADLINE, DropStage.BEFORE_DECODE)
    assert (cancelled.status, cancelled.stage) == (CANCELLED, DropStage.BEFORE_DECODE)
    assert wanted.status == DONE


def test_a_ticket_that_is_cancelled_while_it_is_decoded_takes_no_place() -> None:
    """Rule 13: looked at again before the batch; the work spent is told by the stage."""

    class PreparerThatLosesThePeer(PaintingPreparer):
        def prepare(self, data, *, encoding, width, height):
            if data == b"g":
                batch[1].cancelled = True
            return super().prepare(data, encoding=encoding, width=width, height=height)

    executor, batch = CopyingExecutor(), tickets()
    assert make_seat(preparer=PreparerThatLosesThePeer(), executor=executor).serve(batch) == 2
    assert executor.batches == [b"rb"]
    assert (batch[1].status, batch[1].stage) == (CANCELLED, DropStage.BEFORE_BATCH)


def test_a_batch_that_nobody_waits_for_any_more_is_not_run() -> None:
    """Rule 13: checked when the batch closes; the positions are free again."""

    class PreparerThatLosesThePeers(PaintingPreparer):
        def prepare(self, data, *, encoding, width, height):
            if data == b"b":
                batch[0].cancelled = batch[1].cancelled = batch[2].cancelled = True
            return super().prepare(data, encoding=encoding, width=width, height=height)

    executor, batch = CopyingExecutor(), tickets()
    seat = make_seat(preparer=PreparerThatLosesThePeers(), executor=executor)
    assert seat.serve(batch) == 0
    assert executor.batches == []
    assert {(ticket.status, ticket.stage) for ticket in batch} == {(CANCELLED, DropStage.BEFORE_BATCH)}
    assert_serves(seat)


def test_a_failed_batch_answers_its_frames_engine_failed() -> None:
    """Rule 14: with what the engine said; the next batch runs."""
    seat, batch = make_seat(executor=ExecutorThatFails(EngineError("out of memory"))), tickets()
    assert seat.serve(batch) == 3
    assert [(ticket.status, ticket.error_code, ticket.detail) for ticket in batch] == [
        (FAILED, FrameErrorCode.ENGINE_FAILED, "out of memory")
    ] * 3
    assert batch[0].leads_batch
    assert_serves(seat)


def test_an_executor_with_a_defect_costs_its_batch_and_not_the_seat() -> None:
    """Raised on to the lane, which recovers the seat: every ticket is concluded."""
    seat, batch = make_seat(executor=ExecutorThatFails(ZeroDivisionError("x"))), tickets()
    serve_and_recover(seat, batch)
    assert [ticket.detail for ticket in batch] == ["a defect of the server: ZeroDivisionError('x')"] * 3
    assert_serves(seat)


def test_a_head_with_a_defect_leaves_results_that_were_made() -> None:
    """Frames before the one it raised on keep their results; the rest of the batch fails."""
    seat, batch = make_seat(head=HeadThatRaises(ord("g"))), tickets()
    serve_and_recover(seat, batch)
    assert [ticket.status for ticket in batch] == [DONE, FAILED, FAILED]
    assert batch[0].detections == b"r"
    assert {ticket.error_code for ticket in batch[1:]} == {FrameErrorCode.ENGINE_FAILED}
    assert_serves(seat)


def test_a_picture_that_cannot_be_painted_does_not_block_the_ring() -> None:
    """Raised between claim and publish, where a lost position would make the next close wait for ever."""
    seat, batch = make_seat(preparer=PreparerThatMisfits(b"g")), tickets()
    serve_and_recover(seat, batch)
    assert PENDING not in {ticket.status for ticket in batch}
    assert_serves(seat)
    assert_serves(seat)

"""One stream's rules while it is open: order, credit, replacing, holding results back, and the bounds of what it keeps.

How a stream ends is in test_session_ends.py; any order of everything is in the property test of the session.
"""

from __future__ import annotations

import pytest

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.control import MAX_PONGS
from headworks_server.core.events import (
    IGNORE,
    OVERFLOWED,
    QUEUE_FULL,
    REPLACED,
    WAIT,
    CreditEvent,
    DropOutcome,
    DroppedEvent,
    ErrorOutcome,
    FrameErrorEvent,
    NoticeEvent,
    NoticeKind,
    OpenedEvent,
    PongEvent,
    Replace,
    ResultEvent,
    ResultOutcome,
)
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant
from headworks_server.core.limits import SessionLimits
from headworks_server.core.outcomes import CloseReason, DropReason, DropStage, FrameErrorCode
from headworks_server.core.session import StreamSession
from headworks_server.core.states import State
from support.streams import MS, Told, make_frame, open_session

LATE = DropOutcome(DropReason.DEADLINE, DropStage.BEFORE_BATCH)
ROOMY = Grant(window=40)  # so large that credit never goes out alone in a test of something else


def receive(session: StreamSession, *frame_ids: int, now_ns: int = 1) -> list[Frame]:
    frames = [make_frame(frame_id) for frame_id in frame_ids]
    for frame in frames:
        session.receive_frame(frame, now_ns)
    return frames


def admit(session: StreamSession, frame_id: int) -> Frame:
    """Receive a frame and admit it."""
    (frame,) = receive(session, frame_id)
    assert session.admit(2) is frame
    return frame


def serve(session: StreamSession, frame_id: int) -> None:
    """Receive a frame, admit it and give it its result."""
    session.complete(admit(session, frame_id), ResultOutcome(b"result"), 3)


def results(session: StreamSession, now_ns: int = 3) -> list[int]:
    return [event.frame_id for event in session.poll(now_ns) if isinstance(event, ResultEvent)]


# Opening.


def test_opened_is_told_first_with_the_grant_and_the_first_credit() -> None:
    """Open is answered by Opened before anything else, here before the pong of a Ping that came with it."""
    session = StreamSession(7, now_ns=1, budget=WaitingBytes())
    granted = Grant(max_in_flight=3, window=5)
    session.receive_open(granted, 1)
    session.receive_ping(9, 1)
    assert session.poll(1) == [OpenedEvent(granted, 5), PongEvent(9)]


# Order.


@pytest.mark.parametrize("frame_id", [5, 4, 0])
def test_a_frame_id_that_does_not_increase_ends_the_stream(frame_id: int) -> None:
    """Rule 2: INVALID_ARGUMENT, and the frame that broke the order is no frame of the stream."""
    session = open_session()
    serve(session, 5)
    assert session.receive_frame(make_frame(frame_id), 4) is IGNORE
    told = Told()
    told.take(session.poll(4))
    told.check_closed()
    assert told.closed is not None
    assert told.closed.detail == f"frame_id must increase: expected more than 5, got {frame_id}"
    assert session.ledger.received == 1
    assert session.finished is not None
    assert (session.finished.reason, session.finished.kind) == (CloseReason.PROTOCOL_ERROR, "invalid_argument")


def test_gaps_between_frame_ids_are_allowed_and_count_nowhere() -> None:
    """Rule 2: the client's own mailbox replaces frames, so numbers go missing; ranges count what was read."""
    session = open_session()
    receive(session, 0, 10, 2**64 - 1)
    (dropped,) = [event for event in session.poll(201 * MS) if isinstance(event, DroppedEvent)]
    assert (dropped.first, dropped.last, dropped.counts) == (0, 10, {REPLACED: 2})
    assert session.ledger.received == 3


def test_outcomes_are_told_in_frame_order_whatever_the_order_of_completion() -> None:
    """Rule 10: the result of a later frame waits for the earlier one, then both leave together."""
    session = open_session()
    first, second = admit(session, 1), admit(session, 2)
    session.complete(second, ResultOutcome(b"two"), 3)
    assert not session.has_due(3)
    assert session.poll(3) == []
    assert session.outbox_entries == 1
    session.complete(first, ResultOutcome(b"one"), 4)
    assert session.poll(4)[:2] == [ResultEvent(b"one", 1), ResultEvent(b"two", 2)]


def test_results_drops_and_errors_behind_a_frame_in_flight_are_all_held() -> None:
    """Rule 10 holds across kinds of outcomes, and each comes once."""
    session = open_session(ROOMY)
    first = admit(session, 1)
    serve(session, 2)
    session.receive_rejected(3, FrameErrorCode.TOO_LARGE, "too large", 3)
    receive(session, 4, 5)
    assert session.poll(3) == []
    session.complete(first, ErrorOutcome(FrameErrorCode.UNDECODABLE, "damaged"), 4)
    assert session.poll(4)[:4] == [
        FrameErrorEvent(1, FrameErrorCode.UNDECODABLE, "damaged"),
        ResultEvent(b"result", 2),
        FrameErrorEvent(3, FrameErrorCode.TOO_LARGE, "too large"),
        DroppedEvent(4, 4, {REPLACED: 1}, 1),
    ]


# Admission.


def test_at_most_the_granted_number_is_in_flight() -> None:
    """Rule 4: a frame that waits is admitted only when there is room in flight."""
    session = open_session(Grant(max_in_flight=2))
    first = admit(session, 1)
    admit(session, 2)
    receive(session, 3)
    assert not session.wants_admission
    session.complete(first, ResultOutcome(b""), 3)
    assert session.wants_admission
    assert session.admit(3).frame_id == 3
    assert [frame.frame_id for frame in session.frames_in_flight()] == [2, 3]


def test_nothing_can_be_admitted_where_nothing_waits() -> None:
    """A defect of the caller, told as one."""
    with pytest.raises(ValueError, match="stream 7 has no frame to admit"):
        open_session().admit(1)


def test_a_frame_has_one_outcome() -> None:
    """Rule 1: a second outcome is a defect, and changes nothing."""
    session = open_session()
    frame = admit(session, 1)
    session.complete(frame, ResultOutcome(b""), 3)
    with pytest.raises(ValueError, match="not in list"):
        session.complete(frame, LATE, 3)
    assert session.in_flight == 0
    assert session.ledger.drops == {}


def test_a_deadline_is_a_budget_from_receipt() -> None:
    """Rule 9: the server's clock at receipt, plus what was granted; none where none was granted."""
    granted, without = open_session(Grant(deadline_ns=50 * MS)), open_session()
    for session in (granted, without):
        session.receive_frame(make_frame(1, received_ns=7 * MS), 8 * MS)
    assert granted.admit(8 * MS).deadline_ns == 57 * MS
    assert without.admit(8 * MS).deadline_ns == 0


# Replacing.


def test_a_newer_frame_replaces_the_one_that_waits() -> None:
    """Rule 4: LATEST keeps one frame, the newest; the older one is dropped before any work is spent on it."""
    session = open_session()
    old, new = make_frame(1), make_frame(2)
    assert session.receive_frame(old, 1) is WAIT
    assert session.receive_frame(new, 1) == Replace(old)
    assert session.waiting is new
    assert session.ledger.drops == {REPLACED: 1}


def test_replaced_frames_are_told_as_one_range_with_the_next_outcome() -> None:
    """Rule 3: neighbouring drops travel as a range, ahead of the outcome that follows them."""
    session = open_session(ROOMY)
    receive(session, 1, 2, 3, 4)
    frame = session.admit(2)
    assert not session.has_due(2)
    session.complete(frame, ResultOutcome(b"four"), 3)
    assert session.poll(3)[:2] == [DroppedEvent(1, 3, {REPLACED: 3}, 1), ResultEvent(b"four", 4)]


def test_replaced_frames_are_told_after_200_ms_where_no_outcome_comes() -> None:
    """Rule 3: the age of a range is that of its first frame, and the wake-up says when."""
    session = open_session(ROOMY)
    receive(session, 1, 2, now_ns=10 * MS)
    receive(session, 3, now_ns=150 * MS)
    assert session.next_wakeup_ns() == 210 * MS
    assert session.poll(210 * MS - 1) == []
    assert session.has_due(210 * MS)
    assert session.poll(210 * MS)[0] == DroppedEvent(1, 2, {REPLACED: 2}, 10 * MS)
    assert not session.has_due(210 * MS)


def test_a_range_counts_by_reason_and_stage() -> None:
    """Rule 3: one range may hold several reasons; each keeps its count."""
    session = open_session()
    receive(session, 1, 2, 3)
    session.drop_waiting(DropReason.DEADLINE, DropStage.BEFORE_DECODE, 1)
    frame = admit(session, 4)
    session.complete(frame, LATE, 2)
    (dropped,) = [event for event in session.poll(300 * MS) if isinstance(event, DroppedEvent)]
    assert (dropped.first, dropped.last) == (1, 4)
    assert dropped.triples() == [
        (DropReason.REPLACED_BY_NEWER, DropStage.BEFORE_DECODE, 2),
        (DropReason.DEADLINE, DropStage.BEFORE_DECODE, 1),
        (DropReason.DEADLINE, DropStage.BEFORE_BATCH, 1),
    ]


def test_ranges_on_both_sides_of_a_dropped_frame_become_one() -> None:
    """Rule 3: what was held behind a frame that is dropped itself joins the range before it."""
    session = open_session()
    receive(session, 1)
    frame = admit(session, 2)
    receive(session, 3, 4)
    session.complete(frame, LATE, 2)
    assert session.outbox_entries == 1
    assert session.poll(300 * MS) == [DroppedEvent(1, 3, {REPLACED: 2, LATE: 1}, 1), CreditEvent(7)]


def test_a_full_server_turns_the_arriving_frame_away() -> None:
    """Rule 4: where the budget of waiting bytes has no room, the arriving frame is dropped QUEUE_FULL at ingress,
    and the credit grows as for any drop."""
    budget = WaitingBytes(100)
    busy, other = open_session(budget=budget), open_session(budget=budget)
    receive(busy, 1)
    assert other.receive_frame(make_frame(1, size_bytes=1), 1) == QUEUE_FULL
    assert other.waiting is None
    assert other.poll(300 * MS) == [DroppedEvent(1, 1, {QUEUE_FULL: 1}, 1), CreditEvent(5)]


def test_a_full_server_still_lets_a_stream_replace_its_own_frame() -> None:
    """Rule 4: unless replacing the stream's own waiting frame makes room."""
    session = open_session(budget=WaitingBytes(100))
    (old,) = receive(session, 1)
    assert session.receive_frame(make_frame(2, size_bytes=100), 1) == Replace(old)
    assert session.receive_frame(make_frame(3, size_bytes=101), 1) == QUEUE_FULL
    assert session.waiting is not None
    assert session.waiting.frame_id == 2


def test_a_rejected_frame_gets_its_error_and_the_stream_goes_on() -> None:
    """Rule 14: a frame over the size limit is a FrameError in its turn."""
    session = open_session()
    action = session.receive_rejected(1, FrameErrorCode.TOO_LARGE, "17 MB", 1)
    assert action == ErrorOutcome(FrameErrorCode.TOO_LARGE, "17 MB")
    assert session.poll(1) == [FrameErrorEvent(1, FrameErrorCode.TOO_LARGE, "17 MB"), CreditEvent(5)]
    assert session.state is State.OPEN


# Credit.


def test_credit_grows_when_a_frame_leaves_the_mailbox() -> None:
    """Rule 6: admitted, replaced, dropped or failed, and never delayed by the order of results."""
    session = open_session()
    held = admit(session, 1)  # 5: admitted, and its result holds all others up
    receive(session, 2, 3)  # 6: replaced
    session.drop_waiting(DropReason.DEADLINE, DropStage.BEFORE_DECODE, 1)  # 7
    session.receive_rejected(4, FrameErrorCode.TOO_LARGE, "", 1)  # 8
    assert session.poll(2) == [CreditEvent(8)]
    session.complete(held, ResultOutcome(b""), 3)
    assert CreditEvent(8) not in session.poll(3)


def test_credit_rides_with_the_next_event() -> None:
    """Rule 6: in the steady state the credit is no message of its own: the client still has half a window."""
    session = open_session()
    frame = admit(session, 1)
    assert not session.has_due(2)
    session.complete(frame, ResultOutcome(b"one"), 3)
    assert session.poll(3) == [ResultEvent(b"one", 1), CreditEvent(5)]
    receive(session, 2)
    session.admit(4)
    session.receive_ping(1, 4)
    assert session.poll(4) == [PongEvent(1), CreditEvent(6)]


def test_credit_goes_out_alone_once_less_than_half_a_window_is_left() -> None:
    """Rule 6: of a window of 4, the client must hear when it knows of 1 frame more."""
    session = open_session()
    admit(session, 1)
    receive(session, 2)
    assert not session.has_due(2), "2 of 4 are left"
    receive(session, 3)
    assert session.has_due(2), "1 of 4 is left"
    assert session.poll(2) == [CreditEvent(6)]


def test_credit_that_has_not_grown_is_not_told() -> None:
    """Rule 6: no message says what the client knows already."""
    session = open_session(Grant(max_in_flight=1, window=3))
    receive(session, 1)
    session.receive_ping(1, 1)
    assert session.poll(1) == [PongEvent(1)]


def test_a_client_that_ignores_credit_simply_works() -> None:
    """Rule 6: under LATEST an arrival always makes room, so bare stubs get replaced frames and no error."""
    session = open_session()
    receive(session, *range(1_000))
    assert session.state is State.OPEN
    assert session.ledger.drops == {REPLACED: 999}


def test_more_than_the_limit_over_credit_ends_the_stream() -> None:
    """Rule 6: RESOURCE_EXHAUSTED. A window smaller than the mailbox shows it: none is allowed, one may be over."""
    session = open_session(Grant(window=0), limits=SessionLimits(over_credit=1))
    assert session.receive_frame(make_frame(1), 1) is WAIT
    assert session.receive_frame(make_frame(2), 1) is IGNORE
    told = Told()
    told.take(session.poll(1))
    told.check_closed()
    assert told.closed is not None
    assert told.closed.detail == "2 frames over the credit of 0"
    assert session.finished is not None
    assert (session.finished.reason, session.finished.kind) == (CloseReason.PROTOCOL_ERROR, "resource_exhausted")


# Bounds towards a client that does not read.


def test_an_unread_outbox_is_merged_into_one_range_with_an_exact_ledger() -> None:
    """Rule 7: beyond the limit the oldest become OUTBOX_OVERFLOW after_infer; the newest are kept."""
    session = open_session(limits=SessionLimits(outbox_entries=10))
    for frame_id in range(100):
        serve(session, frame_id)
        assert session.outbox_entries <= 10
    events = session.poll(3)
    assert events[0] == DroppedEvent(0, 90, {OVERFLOWED: 91}, 0)
    assert [event.frame_id for event in events if isinstance(event, ResultEvent)] == list(range(91, 100))
    assert session.ledger.drops == {OVERFLOWED: 91}
    assert session.ledger.results == 9
    session.ledger.check(0)


def test_drops_that_are_merged_away_keep_their_reasons() -> None:
    """Rule 7: OUTBOX_OVERFLOW counts results and errors only."""
    session = open_session(limits=SessionLimits(outbox_entries=10))
    for frame_id in range(0, 60, 2):
        receive(session, frame_id)
        serve(session, frame_id + 1)
    session.receive_end(4)
    told = Told()
    told.take(session.poll(4))
    told.check_closed()
    told.check_runs(set(range(60)))
    assert told.drops[REPLACED] == 30
    assert told.drops[OVERFLOWED] == 30 - len(told.results) > 0


def test_a_merged_range_never_spans_a_frame_without_an_outcome() -> None:
    """Rule 7: what is held behind a frame in flight merges on its own side, so that order stays true."""
    session = open_session(Grant(max_in_flight=3), limits=SessionLimits(outbox_entries=10))
    first = admit(session, 1)
    for frame_id in range(2, 10):
        serve(session, frame_id)
    tenth = admit(session, 10)
    for frame_id in range(11, 61):
        serve(session, frame_id)
    told = Told()
    session.complete(first, ResultOutcome(b"first"), 4)
    told.take(session.poll(1_000 * MS))
    assert [(run.first, run.last) for run in told.runs] == [(1, 9)]
    session.complete(tenth, ResultOutcome(b"tenth"), 5)
    told.take(session.poll(5))
    assert told.results[0] == 10
    assert told.runs[1].first == 11
    assert told.answered() == 60


def test_a_merged_range_is_due_at_once() -> None:
    """Rule 7: what it replaced was due as soon as its turn came; 200 ms are for drops only."""
    session = open_session(ROOMY, limits=SessionLimits(outbox_entries=1))
    serve(session, 1)
    serve(session, 2)
    now_ns = 1_000 * MS  # a monotonic clock is past its first 200 ms
    assert session.has_due(now_ns)
    assert session.poll(now_ns)[0] == DroppedEvent(1, 2, {OVERFLOWED: 2}, 0)


def test_of_one_kind_of_notice_the_last_unread_counts() -> None:
    """A client that does not read must not pile up the ups and downs of its model."""
    session = open_session()
    for round_ in range(100):
        session.notice(NoticeKind.DEGRADED, 1, detail=f"failure {round_}", model="m")
        session.notice(NoticeKind.RESTORED, 1, model="m")
    assert session.poll(1) == [
        NoticeEvent(NoticeKind.DEGRADED, detail="failure 99", model="m"),
        NoticeEvent(NoticeKind.RESTORED, model="m"),
    ]


def test_a_flood_of_pings_is_answered_in_bounds() -> None:
    """Rule 16: of more unread Pings than any client has reason to send, the newest are answered."""
    session = open_session()
    for nonce in range(1_000):
        session.receive_ping(nonce, 1)
    assert session.poll(1) == [PongEvent(nonce) for nonce in range(1_000 - MAX_PONGS, 1_000)]


def test_events_are_handed_out_once() -> None:
    """What `poll` returned counts as told, and `has_due` agrees."""
    session = open_session()
    serve(session, 1)
    assert session.has_due(3)
    assert results(session) == [1]
    assert not session.has_due(3)
    assert session.poll(3) == []
    assert session.ledger.results == 1

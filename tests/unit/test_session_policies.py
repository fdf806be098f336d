"""One stream's rules under BOUNDED, EVERY_FRAME and a maximum rate: who waits, who goes, and what credit there is.

LATEST is in test_session.py; any order of everything is in the property test of the session.
"""

from __future__ import annotations

import pytest

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.events import (
    CANCELLED_WAITING,
    DRAINED_WAITING,
    IGNORE,
    OVERFLOWED,
    QUEUE_FULL,
    RATE_LIMITED,
    REPLACED,
    TURNED_AWAY,
    WAIT,
    CreditEvent,
    DroppedEvent,
    ErrorOutcome,
    FrameErrorEvent,
    OpenedEvent,
    PongEvent,
    Replace,
    ResultEvent,
    ResultOutcome,
)
from headworks_server.core.frame import Frame
from headworks_server.core.grant import MAX_DEPTH, MAX_IN_FLIGHT, Grant, Policy, grant
from headworks_server.core.limits import NS_PER_S, SessionLimits
from headworks_server.core.outcomes import CloseReason, DropReason, DropStage, FrameErrorCode
from headworks_server.core.rate import JITTER_NS
from headworks_server.core.session import StreamSession
from support.streams import MS, Told, make_frame, open_session


def granted(policy: Policy, **asked: float) -> Grant:
    given = grant(policy=policy, **asked)  # type: ignore[arg-type]
    assert isinstance(given, Grant)
    return given


def every_frame(*, budget: WaitingBytes | None = None, **asked: float) -> StreamSession:
    return open_session(granted(Policy.EVERY_FRAME, **asked), budget=budget)


def bounded(*, budget: WaitingBytes | None = None, **asked: float) -> StreamSession:
    return open_session(granted(Policy.BOUNDED, **asked), budget=budget)


def receive(session: StreamSession, *frame_ids: int, now_ns: int = 1) -> list[Frame]:
    frames = [make_frame(frame_id) for frame_id in frame_ids]
    for frame in frames:
        assert session.receive_frame(frame, now_ns) is WAIT
    return frames


def serve(session: StreamSession, now_ns: int = 3) -> int:
    """Admit the frame that is next and give it its result; return its number."""
    frame = session.admit(now_ns)
    session.complete(frame, ResultOutcome(b""), now_ns)
    return frame.frame_id


# BOUNDED.


def test_bounded_serves_its_waiting_frames_in_order() -> None:
    """Rule 4: up to `depth` wait, and none is lost while they fit."""
    session = bounded(depth=3, max_in_flight=1)
    receive(session, 1, 2, 3)
    assert [serve(session) for _ in range(3)] == [1, 2, 3]
    assert session.waiting is None


def test_a_full_queue_replaces_its_oldest() -> None:
    """Rule 3: a newer frame took its place, which is REPLACED_BY_NEWER: with a depth of 1 the same as LATEST."""
    session = bounded(depth=2)
    first, second = receive(session, 1, 2)
    assert session.receive_frame(make_frame(3), 1) == Replace(first)
    assert session.waiting is second
    assert session.ledger.drops == {REPLACED: 1}
    assert session.poll(300 * MS) == [DroppedEvent(1, 1, {REPLACED: 1}, 1), CreditEvent(6)]


def test_a_full_queue_that_drops_the_newest_turns_the_arrival_away() -> None:
    """Rule 3: there is no room, which is QUEUE_FULL at ingress; it is told behind those that wait."""
    session = bounded(depth=2, drop_newest=True)
    receive(session, 1, 2)
    assert session.receive_frame(make_frame(3), 1) == QUEUE_FULL
    assert session.poll(300 * MS) == [], "frames 1 and 2 come first"
    assert [serve(session), serve(session)] == [1, 2]
    assert session.poll(300 * MS) == [
        ResultEvent(b"", 1),
        ResultEvent(b"", 2),
        DroppedEvent(3, 3, {QUEUE_FULL: 1}, 1),
        CreditEvent(8),
    ]


def test_bounded_credit_grows_when_a_frame_leaves_the_queue() -> None:
    """Rule 6: window + received - waiting: admitted, replaced and dropped frames give credit, waiting ones do not."""
    session = bounded(depth=4, max_in_flight=1)  # a window of 6
    receive(session, 1, 2, 3, 4)
    session.receive_ping(1, 1)
    assert session.poll(1) == [PongEvent(1)]
    session.admit(1)
    receive(session, 5)
    session.receive_frame(make_frame(6), 1)
    session.drop_waiting(DropReason.DEADLINE, DropStage.BEFORE_DECODE, 1)
    assert session.poll(1) == [CreditEvent(6 + 3)]


@pytest.mark.parametrize("drop_newest", [False, True])
def test_bounded_needs_no_credit(drop_newest: bool) -> None:
    """Rule 6: an arrival always finds room or makes it, so a client that ignores credit works, as under LATEST."""
    session = bounded(depth=3, drop_newest=drop_newest)
    for frame_id in range(1_000):
        session.receive_frame(make_frame(frame_id), 1)
    assert session.ledger.drops == {QUEUE_FULL if drop_newest else REPLACED: 997}
    assert [serve(session) for _ in range(3)] == ([0, 1, 2] if drop_newest else [997, 998, 999])


def test_the_largest_queue_with_all_in_flight_stays_within_its_outbox() -> None:
    """Rule 7: with an outcome held behind every frame without one, two neighbours can still be merged."""
    session = bounded(depth=10**9, max_in_flight=10**9, drop_newest=True)
    assert (session.grant.depth, session.grant.max_in_flight) == (MAX_DEPTH, MAX_IN_FLIGHT)
    limit = SessionLimits().outbox_entries
    for frame_id in range(1_000):
        if frame_id % 3:
            session.receive_frame(make_frame(frame_id), 1)
        else:
            session.receive_rejected(frame_id, FrameErrorCode.TOO_LARGE, "too large", 1)
        if session.wants_admission:
            session.admit(1)
        assert session.outbox_entries <= limit
    session.receive_end(2)
    while session.in_flight or session.waiting:
        while session.wants_admission:
            session.admit(2)
        session.complete(session.frames_in_flight()[-1], ResultOutcome(b""), 2)
    told = Told()
    told.take(session.poll(2))
    told.check_closed()
    assert told.drops[OVERFLOWED] > 0


def test_every_waiting_frame_goes_when_a_stream_is_drained_or_lost() -> None:
    """Rules 3, 15: not only the one that is next; and their bytes are given back."""
    for end, reason in (
        (lambda session: session.drain(NS_PER_S, 2), DRAINED_WAITING),
        (lambda session: session.protocol_error("malformed", 2), CANCELLED_WAITING),
        (lambda session: session.peer_gone(2), CANCELLED_WAITING),
    ):
        budget = WaitingBytes()
        for session in (bounded(depth=4, budget=budget), every_frame(budget=budget)):
            receive(session, 1, 2, 3, 4)
            session.admit(1)
            end(session)
            assert session.ledger.drops == {reason: 3}
            assert (session.waiting, budget.used) == (None, 0)


# EVERY_FRAME.


def test_every_frame_serves_everything_that_obeys_credit() -> None:
    """Rule 4: however slow the lane, nothing is dropped; `send` waits for credit."""
    session = every_frame()
    told = Told()
    told.credit = session.grant.window
    sent = 0
    for turn in range(200):
        while sent < told.credit:
            sent += 1
            receive(session, sent)
        if session.wants_admission:
            session.admit(1)
        if turn % 3 == 0 and session.in_flight:
            session.complete(session.frames_in_flight()[-1], ResultOutcome(b""), 1)
        told.take(session.poll(1))
    assert session.ledger.drops == {}
    assert len(told.results) > 50
    assert told.results == list(range(1, len(told.results) + 1))


def test_every_frame_credit_grows_when_the_outcome_is_written() -> None:
    """Rule 6: not when a frame leaves the mailbox; and it rides with the outcome."""
    session = every_frame(max_in_flight=1)  # a window of 3
    receive(session, 1, 2)
    first = session.admit(1)
    assert session.poll(1) == []
    session.complete(first, ResultOutcome(b""), 2)
    assert session.poll(2) == [ResultEvent(b"", 1), CreditEvent(4)]
    session.receive_rejected(3, FrameErrorCode.TOO_LARGE, "too large", 2)
    assert session.poll(2) == [], "the error of frame 3 waits for frame 2"
    serve(session)
    assert session.poll(3)[-1] == CreditEvent(6)


def test_a_frame_over_credit_is_an_error_in_its_turn() -> None:
    """Rule 6: EVERY_FRAME: FrameError OVER_CREDIT. It costs nothing for good: its own outcome gives the credit back."""
    session = every_frame(max_in_flight=1)
    receive(session, 1, 2, 3)
    detail = "frame 4: expected at most 3 frames by the credit given, got 4"
    assert session.receive_frame(make_frame(4), 1) == ErrorOutcome(FrameErrorCode.OVER_CREDIT, detail)
    assert [serve(session) for _ in range(3)] == [1, 2, 3]
    events = session.poll(3)
    assert events[-2:] == [FrameErrorEvent(4, FrameErrorCode.OVER_CREDIT, detail), CreditEvent(7)]
    receive(session, 5, 6, 7)


def test_more_than_64_frames_over_credit_end_a_stream_of_every_frame() -> None:
    """Rule 6: RESOURCE_EXHAUSTED, with a true ledger in Closed: what was admitted is served, what waited cancelled."""
    session = every_frame(max_in_flight=2)  # a window of 5
    receive(session, *range(5))
    first, second = session.admit(1), session.admit(1)
    for frame_id in range(5, 69):
        assert isinstance(session.receive_frame(make_frame(frame_id), 1), ErrorOutcome)
    assert session.receive_frame(make_frame(69), 1) is IGNORE
    for frame in (first, second):
        session.complete(frame, ResultOutcome(b""), 2)
    told = Told()
    told.take(session.poll(2))
    told.check_closed()
    assert (len(told.results), len(told.errors), dict(told.drops)) == (2, 64, {CANCELLED_WAITING: 3})
    assert session.finished is not None
    assert (session.finished.reason, session.finished.kind) == (CloseReason.PROTOCOL_ERROR, "resource_exhausted")


def test_nothing_is_merged_away_under_every_frame() -> None:
    """Rules 4, 7: a client that reads nothing and uses all the credit, and 64 frames over it, is told each outcome."""
    session = every_frame()
    window = session.grant.window
    receive(session, *range(window))
    for frame_id in range(window, window + 64):
        session.receive_frame(make_frame(frame_id), 1)
    served = [serve(session) for _ in range(window)]
    assert session.outbox_entries == window + 64
    session.drain(NS_PER_S, 2)
    assert session.receive_frame(make_frame(1_000), 2) == TURNED_AWAY
    told = Told()
    told.take(session.poll(2 + 300 * MS))
    assert (told.results, len(told.errors)) == (served, 64)
    assert told.drops == {TURNED_AWAY: 1}


def test_credit_is_withheld_while_the_server_is_full_of_waiting_bytes() -> None:
    """Rule 4: the budget makes EVERY_FRAME wait: frames within credit are taken, and outcomes give none back."""
    budget = WaitingBytes(1_000)
    session = every_frame(max_in_flight=1, budget=budget)  # a window of 3
    budget.overdraw(1_000)
    receive(session, 1, 2)
    serve(session)
    assert session.poll(3) == [ResultEvent(b"", 1)]
    assert receive(session, 3), "promised before the budget was full"
    serve(session)
    assert session.poll(3) == [ResultEvent(b"", 2)]
    budget.give_back(1_000)
    serve(session)
    assert session.poll(3) == [ResultEvent(b"", 3), CreditEvent(6)], "all that was withheld"


def test_a_stream_with_nothing_in_hand_gets_one_frame_of_credit_in_a_full_server() -> None:
    """Rule 4: none of its outcomes would ever ask for credit again, so it goes on, one frame at a time."""
    budget = WaitingBytes(1_000)
    session = every_frame(max_in_flight=1, budget=budget)
    budget.overdraw(1_000)
    receive(session, 1, 2, 3)
    for _ in range(3):
        serve(session)
    assert session.poll(3)[-1] == CreditEvent(4)
    for frame_id in (4, 5, 6):
        receive(session, frame_id)
        serve(session)
        assert session.poll(3)[-1] == CreditEvent(frame_id + 1)


# The maximum rate.


@pytest.mark.parametrize("policy", [Policy.LATEST, Policy.BOUNDED])
def test_what_comes_too_fast_is_dropped_on_arrival(policy: Policy) -> None:
    """Rule 3: RATE_LIMIT at ingress, without disturbing what waits; credit grows as for any drop."""
    session = open_session(granted(policy, depth=3, max_fps=0.5))
    now_ns = NS_PER_S
    (first,) = receive(session, 1, now_ns=now_ns)
    assert session.receive_frame(make_frame(2), now_ns + 500 * MS) == RATE_LIMITED
    assert session.waiting is first
    serve(session)
    assert session.poll(now_ns + 900 * MS) == [
        ResultEvent(b"", 1),
        DroppedEvent(2, 2, {RATE_LIMITED: 1}, now_ns + 500 * MS),
        CreditEvent(session.grant.window + 2),
    ]
    receive(session, 3, now_ns=now_ns + 2 * NS_PER_S)


def test_without_a_maximum_rate_nothing_is_too_fast() -> None:
    """0 is no limit."""
    session = bounded(depth=32)
    receive(session, *range(32))
    assert session.next_wakeup_ns() == 1 + 15 * NS_PER_S, "for idleness only"


def test_every_frame_waits_for_its_rate() -> None:
    """Rule 4: the next frame is admitted when its time has come, and the wake-up says when that is."""
    session = every_frame(max_fps=2.0)
    now_ns = NS_PER_S
    receive(session, 1, 2, 3, now_ns=now_ns)
    for frame_id in (1, 2, 3):
        assert serve(session, now_ns) == frame_id
        session.poll(now_ns)
        assert not session.wants_admission
        if session.waiting is None:
            break
        wakeup = session.next_wakeup_ns()
        assert wakeup is not None
        session.tick(wakeup - 1)
        assert not session.wants_admission
        session.tick(wakeup)
        assert session.wants_admission
        now_ns = wakeup
    assert now_ns == NS_PER_S + 2 * NS_PER_S // 2 - JITTER_NS
    assert session.ledger.drops == {}
    assert session.next_wakeup_ns() == NS_PER_S + 15 * NS_PER_S, "nothing waits for its time"


def test_a_frame_that_comes_after_its_time_need_not_wait() -> None:
    """The time of the next frame passes while nothing waits."""
    session = every_frame(max_fps=2.0)
    receive(session, 1, now_ns=NS_PER_S)
    serve(session, NS_PER_S)
    receive(session, 2, now_ns=2 * NS_PER_S)
    assert session.wants_admission


def test_a_stream_that_has_ended_still_keeps_its_rate() -> None:
    """Rule 1: frames before End get their outcome, each in its time."""
    session = every_frame(max_fps=2.0)
    receive(session, 1, 2, now_ns=NS_PER_S)
    serve(session, NS_PER_S)
    session.receive_end(NS_PER_S)
    wakeup = session.next_wakeup_ns()
    assert wakeup == NS_PER_S + NS_PER_S // 2 - JITTER_NS
    session.tick(wakeup)
    assert serve(session, wakeup) == 2
    told = Told()
    told.take(session.poll(wakeup))
    told.check_closed()
    assert told.results == [1, 2]


def test_opened_tells_the_window_of_the_policy() -> None:
    """Rule 6: what the client may send before it hears anything."""
    for given, window in ((granted(Policy.BOUNDED, depth=5), 8), (granted(Policy.EVERY_FRAME), 17)):
        session = StreamSession(7, now_ns=1, budget=WaitingBytes())
        session.receive_open(given, 1)
        assert session.poll(1) == [OpenedEvent(given, window)]

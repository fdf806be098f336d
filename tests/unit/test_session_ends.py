"""How one stream ends: End, a fault, idleness, a drain, or a peer that is gone. Closed comes exactly once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.events import (
    CANCELLED_SERVED,
    CANCELLED_WAITING,
    DRAINED_WAITING,
    IGNORE,
    REPLACED,
    TURNED_AWAY,
    ClosedEvent,
    CloseStatus,
    CreditEvent,
    DropOutcome,
    NoticeEvent,
    NoticeKind,
    PongEvent,
    ResultOutcome,
)
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant
from headworks_server.core.outcomes import CloseReason, DropReason, DropStage, FrameErrorCode
from headworks_server.core.session import StreamSession
from headworks_server.core.states import TRANSITIONS, Input, State
from support.streams import MS, Told, make_frame, open_session

GRACE_NS = 3_000 * MS
IDLE_NS = 15_000 * MS
SHUTTING_DOWN = "the server is shutting down"

MESSAGES: dict[Input, Callable[[StreamSession], object]] = {
    Input.OPEN: lambda session: session.receive_open(Grant(), 5),
    Input.FRAME: lambda session: session.receive_frame(make_frame(99), 5),
    Input.REJECTED: lambda session: session.receive_rejected(99, FrameErrorCode.TOO_LARGE, "too large", 5),
    Input.PING: lambda session: session.receive_ping(1, 5),
    Input.END: lambda session: session.receive_end(5),
    Input.FAULT: lambda session: session.protocol_error("malformed", 5),
    Input.PEER_GONE: lambda session: session.peer_gone(5),
}

MISPLACED = [(state, message) for state in State for message in MESSAGES if (state, message) not in TRANSITIONS]


def session_in(state: State) -> tuple[StreamSession, Frame | None]:
    """A session in a state, and its frame in flight where it has one."""
    if state is State.AWAITING_OPEN:
        return StreamSession(7, now_ns=1, budget=WaitingBytes()), None
    session = open_session()
    session.receive_frame(make_frame(1), 2)
    frame = session.admit(2)
    if state in (State.ENDING, State.CLOSED):
        session.receive_end(3)
    if state in (State.DRAINING, State.DRAINED):
        session.drain(GRACE_NS, 3)
    if state is State.DRAINED:
        session.tick(3 + GRACE_NS)
    if state is State.CLOSING:
        session.protocol_error("malformed", 3)
    if state is State.GONE:
        session.peer_gone(3)
    if state is State.CLOSED:
        session.complete(frame, ResultOutcome(b""), 3)
        session.poll(3)
    assert session.state is state
    return session, frame


def waiting_and_in_flight() -> tuple[StreamSession, Frame]:
    """A session with frame 1 in flight, the result of frame 2 held behind it, and frame 3 waiting."""
    session = open_session()
    session.receive_frame(make_frame(1), 2)
    first = session.admit(2)
    session.receive_frame(make_frame(2), 2)
    session.complete(session.admit(2), ResultOutcome(b"two"), 2)
    session.receive_frame(make_frame(3), 2)
    session.poll(2)
    return session, first


def closed(session: StreamSession, now_ns: int) -> ClosedEvent:
    """Poll the last events, check that they are true, and return Closed."""
    told = Told()
    told.take(session.poll(now_ns))
    assert told.closed is not None
    told.check_closed()
    return told.closed


# What is out of place.


def test_the_table_knows_every_message_that_may_come() -> None:
    """The misplaced ones, by name: nothing before Open but Open, one Open, nothing but Ping after End."""
    assert MISPLACED == [
        (State.AWAITING_OPEN, Input.FRAME),
        (State.AWAITING_OPEN, Input.REJECTED),
        (State.AWAITING_OPEN, Input.PING),
        (State.AWAITING_OPEN, Input.END),
        (State.OPEN, Input.OPEN),
        (State.ENDING, Input.OPEN),
        (State.ENDING, Input.FRAME),
        (State.ENDING, Input.REJECTED),
        (State.ENDING, Input.END),
        (State.DRAINING, Input.OPEN),
        (State.DRAINED, Input.OPEN),
    ]


@pytest.mark.parametrize(("state", "message"), MISPLACED)
def test_a_misplaced_message_ends_the_stream(state: State, message: Input) -> None:
    """Closed says which message came when, INVALID_ARGUMENT follows, and an admitted frame still gets its outcome."""
    session, in_flight = session_in(state)
    assert MESSAGES[message](session) in (None, IGNORE)
    if in_flight is not None:
        assert not any(isinstance(event, ClosedEvent) for event in session.poll(5))
        session.complete(in_flight, ResultOutcome(b""), 6)
    event = closed(session, 6)
    words = {Input.OPEN: "Open ", Input.PING: "Ping ", Input.END: "End "}
    assert event.detail.startswith(words.get(message, "Frame "))
    assert event.reason is CloseReason.PROTOCOL_ERROR
    assert session.finished == CloseStatus(CloseReason.PROTOCOL_ERROR, "invalid_argument", event.detail)
    assert session.ledger.received == (in_flight is not None), "the misplaced frame counts nowhere"


@pytest.mark.parametrize(
    ("state", "message", "detail"),
    [
        (State.AWAITING_OPEN, Input.FRAME, "Frame before Open"),
        (State.OPEN, Input.OPEN, "Open on an open stream"),
        (State.ENDING, Input.FRAME, "Frame after End"),
        (State.DRAINING, Input.OPEN, "Open on a draining stream"),
    ],
)
def test_the_error_says_what_came_when(state: State, message: Input, detail: str) -> None:
    """The words a client's author reads."""
    session, in_flight = session_in(state)
    MESSAGES[message](session)
    if in_flight is not None:
        session.complete(in_flight, ResultOutcome(b""), 6)
    assert closed(session, 6).detail == detail


@pytest.mark.parametrize("state", [State.CLOSING, State.CLOSED, State.GONE])
@pytest.mark.parametrize("message", [message for message in MESSAGES if message is not Input.PEER_GONE])
def test_nothing_is_taken_once_the_stream_is_over(state: State, message: Input) -> None:
    """Late messages of a client that has not heard yet change nothing: neither the state nor the account."""
    session, _ = session_in(state)
    before = session.finished
    assert MESSAGES[message](session) in (None, IGNORE)
    assert (session.state, session.ledger.received, session.finished) == (state, 1, before)


def test_a_fault_cancels_the_waiting_frame_and_lets_the_admitted_finish() -> None:
    """Rule 1 holds for a stream that is ended for a fault, too."""
    session, first = waiting_and_in_flight()
    session.protocol_error("malformed", 4)
    assert not session.wants_admission
    assert session.poll(4) == []
    session.complete(first, ResultOutcome(b"one"), 5)
    event = closed(session, 5)
    assert (event.ledger.received, event.ledger.results, event.ledger.drops) == (3, 2, {CANCELLED_WAITING: 1})


# End.


def test_end_is_ordered_behind_the_frames() -> None:
    """Rule 1: the waiting frame is still served; Closed comes with the last outcome, and the call ends OK."""
    session, first = waiting_and_in_flight()
    session.receive_end(4)
    session.complete(first, ResultOutcome(b"one"), 5)
    assert not any(isinstance(event, ClosedEvent) for event in session.poll(5))
    assert session.wants_admission
    session.complete(session.admit(6), ResultOutcome(b"three"), 7)
    last = session.poll(7)[-1]
    assert isinstance(last, ClosedEvent)
    assert (last.ledger.received, last.ledger.results, last.reason) == (3, 3, CloseReason.END)
    assert session.finished == CloseStatus(CloseReason.END, "ok")


def test_end_of_an_idle_stream_is_answered_at_once() -> None:
    """Nothing is in hand, so Closed is due with the End."""
    session = open_session()
    session.receive_end(2)
    assert session.has_due(2)
    assert closed(session, 2).ledger.received == 0


def test_a_range_of_drops_does_not_come_of_age_before_closed() -> None:
    """The last drops leave with Closed, not 200 ms later."""
    session = open_session()
    session.receive_frame(make_frame(1), 2)
    session.receive_end(2)
    session.drop_waiting(DropReason.DEADLINE, DropStage.BEFORE_DECODE, 2)
    assert closed(session, 2).ledger.drops == {DropOutcome(DropReason.DEADLINE, DropStage.BEFORE_DECODE): 1}


def test_closed_comes_exactly_once() -> None:
    """It is the last event, whatever else happens to the session."""
    session = open_session()
    session.receive_end(2)
    closed(session, 2)
    for happening in (*MESSAGES.values(), lambda session: session.drain(GRACE_NS, 3)):
        happening(session)
    session.notice(NoticeKind.DEGRADED, 3)
    session.tick(2 * IDLE_NS)
    assert not session.has_due(2 * IDLE_NS)
    assert session.poll(2 * IDLE_NS) == []
    assert session.next_wakeup_ns() is None


def test_no_credit_is_told_after_end() -> None:
    """Who has ended sends no frames."""
    session, first = waiting_and_in_flight()
    session.receive_end(4)
    session.complete(first, ResultOutcome(b"one"), 5)
    session.admit(5)
    assert not any(isinstance(event, CreditEvent) for event in session.poll(5))


def test_a_ping_after_end_is_answered() -> None:
    """Rule 16: while the last frames are served the client may still ask whether anyone is there."""
    session, _ = session_in(State.ENDING)
    session.receive_ping(3, 4)
    assert session.poll(4) == [PongEvent(3)]


# Idleness.


def test_a_client_that_is_silent_for_15_s_is_dead() -> None:
    """Rule 16: nothing read for 15 s; anything that was read counts, also a Ping."""
    session = open_session()
    session.receive_ping(1, 5_000 * MS)
    session.poll(5_000 * MS)
    assert session.next_wakeup_ns() == 5_000 * MS + IDLE_NS
    session.tick(5_000 * MS + IDLE_NS - 1)
    assert not session.has_due(5_000 * MS + IDLE_NS - 1)
    session.tick(5_000 * MS + IDLE_NS)
    event = closed(session, 5_000 * MS + IDLE_NS)
    assert (event.reason, event.detail) == (CloseReason.IDLE_TIMEOUT, "nothing was read for 15 s")
    assert session.finished is not None
    assert session.finished.kind == "idle_timeout"


def test_a_call_that_never_opens_is_idle_too() -> None:
    """A connection must not be held by saying nothing at all."""
    session = StreamSession(7, now_ns=1, budget=WaitingBytes())
    session.tick(IDLE_NS + 1)
    assert closed(session, IDLE_NS + 1).reason is CloseReason.IDLE_TIMEOUT


def test_an_idle_stream_finishes_what_is_admitted() -> None:
    """Idleness ends the stream, not its frames: those admitted are told, the waiting one is cancelled."""
    session, first = waiting_and_in_flight()
    session.tick(IDLE_NS + 2)
    assert session.poll(IDLE_NS + 2) == []
    session.complete(first, ResultOutcome(b"one"), IDLE_NS + 3)
    assert closed(session, IDLE_NS + 3).ledger.drops == {CANCELLED_WAITING: 1}


# Drain.


def test_drain_tells_a_notice_with_the_grace_and_drops_the_waiting_frame() -> None:
    """Rule 15: in band, because GOAWAY does not reach a long stream; admitted frames finish."""
    session, first = waiting_and_in_flight()
    session.drain(GRACE_NS, 4)
    assert session.poll(4) == [NoticeEvent(NoticeKind.DRAINING, SHUTTING_DOWN, grace_ms=3_000)]
    assert session.ledger.drops == {DRAINED_WAITING: 1}
    session.complete(first, ResultOutcome(b"one"), 5)
    assert [type(event).__name__ for event in session.poll(5)] == ["ResultOutcome", "ResultOutcome", "DroppedEvent"]


def test_frames_that_come_during_a_drain_are_turned_away() -> None:
    """Rule 15: dropped DRAINING at ingress, without credit, and the limit over credit does not apply."""
    session = open_session()
    session.drain(GRACE_NS, 2)
    session.poll(2)
    for frame_id in range(1, 200):
        assert session.receive_frame(make_frame(frame_id), 3) == TURNED_AWAY
    assert session.receive_rejected(200, FrameErrorCode.TOO_LARGE, "too large", 3) == TURNED_AWAY
    (dropped,) = session.poll(300 * MS)
    assert dropped.counts == {TURNED_AWAY: 200}  # type: ignore[union-attr]


def test_a_drained_stream_ends_unavailable_when_the_grace_is_over() -> None:
    """Rule 15: Closed with the ledger, then UNAVAILABLE; the wake-up is the end of the grace."""
    session = open_session()
    session.drain(GRACE_NS, 2)
    session.poll(2)
    assert session.next_wakeup_ns() == 2 + GRACE_NS
    session.tick(1 + GRACE_NS)
    assert not session.has_due(1 + GRACE_NS)
    session.tick(2 + GRACE_NS)
    assert closed(session, 2 + GRACE_NS).reason is CloseReason.DRAINED
    assert session.finished == CloseStatus(CloseReason.DRAINED, "unavailable", SHUTTING_DOWN)


def test_an_end_during_a_drain_ends_the_stream_ok() -> None:
    """Rule 15: the client opened its new stream first, then said End: nothing went wrong."""
    session = open_session()
    session.drain(GRACE_NS, 2)
    session.receive_end(3)
    assert closed(session, 3).reason is CloseReason.END
    assert session.finished == CloseStatus(CloseReason.END, "ok")


def test_the_end_of_the_grace_waits_for_frames_in_flight() -> None:
    """Rule 15: admitted frames finish, however long they take; later ones are still turned away and counted."""
    session, first = session_in(State.DRAINED)
    assert first is not None
    assert session.receive_frame(make_frame(2), 4 + GRACE_NS) == TURNED_AWAY
    assert not any(isinstance(event, ClosedEvent) for event in session.poll(4 + GRACE_NS))
    session.complete(first, ResultOutcome(b"one"), 5 + GRACE_NS)
    assert closed(session, 5 + GRACE_NS).ledger.drops == {TURNED_AWAY: 1}


def test_a_drain_after_end_drops_what_waits_and_tells_no_notice() -> None:
    """Rule 15: who has ended needs no notice; the stream still ends OK."""
    session, first = waiting_and_in_flight()
    session.receive_end(4)
    session.drain(GRACE_NS, 4)
    session.complete(first, ResultOutcome(b"one"), 5)
    event = closed(session, 5)
    assert (event.reason, event.ledger.drops) == (CloseReason.END, {DRAINED_WAITING: 1})
    assert session.finished == CloseStatus(CloseReason.END, "ok")


def test_a_drain_before_open_closes_at_once() -> None:
    """Rule 15: there is nothing to finish."""
    session, _ = session_in(State.AWAITING_OPEN)
    session.drain(GRACE_NS, 2)
    assert closed(session, 2).reason is CloseReason.DRAINED
    assert session.finished == CloseStatus(CloseReason.DRAINED, "unavailable", SHUTTING_DOWN)


@pytest.mark.parametrize("state", [State.DRAINING, State.DRAINED, State.CLOSING, State.CLOSED, State.GONE])
def test_a_second_drain_changes_nothing(state: State) -> None:
    """Neither the grace nor the way a stream ends."""
    session, _ = session_in(state)
    wakeup_ns, finished = session.next_wakeup_ns(), session.finished
    session.poll(5)
    session.drain(9 * GRACE_NS, 6)
    assert (session.state, session.next_wakeup_ns(), session.finished) == (state, wakeup_ns, finished)
    assert session.poll(6) == []


# The peer is gone.


def test_every_frame_in_hand_is_cancelled_when_the_peer_is_gone() -> None:
    """Rule 3: waiting before_decode, held and undelivered after_infer; one in flight when it comes back."""
    session, first = waiting_and_in_flight()
    session.peer_gone(4)
    assert session.finished is None
    assert not session.wants_admission
    assert session.frames_in_flight() == [first]
    assert session.ledger.drops == {CANCELLED_SERVED: 1, CANCELLED_WAITING: 1}
    session.ledger.check(1)
    session.complete(first, ResultOutcome(b"one"), 5)
    assert session.ledger.drops == {CANCELLED_SERVED: 2, CANCELLED_WAITING: 1}
    assert session.finished == CloseStatus(CloseReason.CANCELLED, "cancelled", "the peer is gone")
    session.ledger.check(0)


def test_a_frame_that_a_lane_gave_up_is_cancelled_at_the_stage_it_reached() -> None:
    """Rule 3: the stage says which work was spent, also on a frame that nobody waits for."""
    session, first = waiting_and_in_flight()
    session.peer_gone(4)
    session.complete(first, DropOutcome(DropReason.DEADLINE, DropStage.BEFORE_BATCH), 5)
    assert session.ledger.drops[DropOutcome(DropReason.CANCELLED, DropStage.BEFORE_BATCH)] == 1


def test_drops_keep_their_reason_when_the_peer_is_gone() -> None:
    """What was decided before is not decided again, though it was never told."""
    session = open_session()
    for frame_id in (1, 2, 3):
        session.receive_frame(make_frame(frame_id), 2)
    session.peer_gone(3)
    assert session.ledger.drops == {REPLACED: 2, CANCELLED_WAITING: 1}
    assert session.finished is not None


def test_nobody_is_told_when_the_peer_is_gone() -> None:
    """No event, no timer; the waiting bytes are given back."""
    budget = WaitingBytes()
    session = open_session(budget=budget)
    session.receive_frame(make_frame(1), 2)
    session.receive_ping(1, 2)
    session.notice(NoticeKind.DEGRADED, 2)
    session.peer_gone(3)
    assert budget.used == 0
    assert not session.has_due(4 * IDLE_NS)
    assert session.poll(4 * IDLE_NS) == []
    assert session.next_wakeup_ns() is None


def test_a_peer_that_goes_while_the_stream_closes_does_not_wait_for_closed() -> None:
    """A fault, then a broken call: the session is over as soon as its frames are back."""
    session, first = session_in(State.CLOSING)
    assert first is not None
    session.peer_gone(4)
    session.complete(first, ResultOutcome(b""), 5)
    assert session.finished is not None
    assert session.finished.reason is CloseReason.CANCELLED
    assert session.ledger.drops == {CANCELLED_SERVED: 1}

"""The rules of the client's end of a stream, one by one, with time as an argument."""

from __future__ import annotations

import pytest

from headworks import codec
from headworks.errors import ProtocolError
from headworks.mailbox import Mailbox, OutgoingFrame
from headworks.outcomes import Dropped, FrameError, Lost, Result
from headworks.policy import Policy
from headworks.session import DEAD_AFTER_NS, PING_AFTER_NS, ClientSession
from headworks.v1 import frame_pb2 as pb
from support.client_events import (
    OPEN,
    S,
    closed,
    credit,
    dropped,
    failed,
    frame,
    notice,
    opened,
    result,
    sent_id,
)


def open_session(*, frames_allowed: int = 4, now_ns: int = 0) -> ClientSession:
    session = ClientSession(OPEN)
    assert session.poll(now_ns) == OPEN
    session.receive(opened(frames_allowed), now_ns)
    return session


def ping_nonce(request: OutgoingFrame | bytes | None) -> int:
    assert isinstance(request, bytes)
    return pb.StreamFramesRequest.FromString(request).ping.nonce


class TestMailbox:
    def test_newer_frame_replaces_the_waiting_one(self) -> None:
        """One frame waits at most; the one it replaced is counted and never sent."""
        session = open_session()
        assert [session.offer(frame(number)) for number in (1, 2, 3)] == [False, True, True]
        assert sent_id(session) == 3
        assert session.poll(0) is None
        account = session.account()
        assert (account.offered, account.replaced, account.sent, account.waiting) == (3, 2, 1, 0)

    def test_frame_waits_for_opened(self) -> None:
        """Nothing but Open is written before the server's grant."""
        session = ClientSession(OPEN)
        session.offer(frame(1))
        assert [session.poll(0), session.poll(0)] == [OPEN, None]
        session.receive(opened(), 0)
        assert sent_id(session) == 1

    @pytest.mark.parametrize("frame_id", [0, 4, 5])
    def test_frame_id_must_increase(self, frame_id: int) -> None:
        """A frame_id that does not increase is refused here, before the server would end the stream for it."""
        session = open_session()
        session.offer(frame(5))
        with pytest.raises(ValueError, match=f"frame_id {frame_id}: expected more than 5"):
            session.offer(frame(frame_id))
        assert session.account().offered == 1
        assert session.next_frame_id() == 6

    def test_no_frame_after_end(self) -> None:
        """End is final."""
        session = open_session()
        session.end()
        with pytest.raises(ValueError, match="no frame may follow"):
            session.offer(frame(1))

    def test_frame_after_closed_waits(self) -> None:
        """The server closed, and its status is on the way: the frame stays here, and the sums hold."""
        session = open_session()
        session.receive(closed(0, pb.CLOSE_REASON_DRAINED), 0)
        session.offer(frame(1))
        assert session.poll(0) is None
        assert session.account().waiting == 1
        assert session.account().violations() == []


class TestPolicies:
    def test_bounded_keeps_the_newest(self) -> None:
        """Up to `depth` frames wait, in order; beyond that the oldest gives way."""
        mailbox = Mailbox(Policy("bounded", 3))
        assert [mailbox.offer(frame(number)) for number in range(1, 6)] == [False, False, False, True, True]
        assert [mailbox.take() for _ in range(4)] == [frame(3), frame(4), frame(5), None]
        assert (mailbox.offered, mailbox.replaced, mailbox.sent, mailbox.waiting) == (5, 2, 3, 0)

    def test_bounded_may_keep_the_oldest(self) -> None:
        """With drop="newest" it is the arriving frame that gives way; its number is used up all the same."""
        mailbox = Mailbox(Policy("bounded", 2, "newest"))
        assert [mailbox.offer(frame(number)) for number in range(1, 5)] == [False, False, True, True]
        assert (mailbox.replaced, mailbox.next_frame_id()) == (2, 5)
        assert [mailbox.take() for _ in range(3)] == [frame(1), frame(2), None]

    def test_every_frame_has_room_for_one(self) -> None:
        """Nothing gives way: who offers asks for room first."""
        mailbox = Mailbox(Policy("every_frame"))
        assert mailbox.has_room
        mailbox.offer(frame(1))
        assert not mailbox.has_room
        mailbox.take()
        assert mailbox.has_room

    def test_frames_to_be_sent_again_come_first_and_in_order(self) -> None:
        """A frame counts as sent once, however often it goes out."""
        mailbox = Mailbox(Policy("every_frame"))
        for number in (1, 2, 3):
            mailbox.offer(frame(number))
            if number < 3:
                mailbox.take()
        mailbox.put_back([frame(2), frame(1)])
        assert not mailbox.has_room
        assert [mailbox.take() for _ in range(4)] == [frame(1), frame(2), frame(3), None]
        assert (mailbox.sent, mailbox.resent) == (3, 2)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("newest",), "policy 'newest': expected one of latest, bounded, every_frame"),
            (("bounded", 0), "expected a depth of at least 1, got 0"),
            (("bounded", 2, "middle"), "drop 'middle': expected one of oldest, newest"),
            (("latest", 2), "policy 'latest': depth and drop belong to 'bounded'"),
            (("every_frame", 1, "newest"), "depth and drop belong to 'bounded'"),
        ],
    )
    def test_policies_that_make_no_sense(self, arguments: tuple[str, int, str], words: str) -> None:
        """The application hears of it when it makes the stream."""
        with pytest.raises(ValueError, match=words):
            Policy(*arguments)


class TestCredit:
    def test_no_frame_beyond_credit(self) -> None:
        """frames_allowed counts frames in all; the next waits until it grows."""
        session = open_session(frames_allowed=2)
        for number in (1, 2):
            session.offer(frame(number))
            assert sent_id(session) == number
        session.offer(frame(3))
        assert not session.has_due(0)
        assert session.poll(0) is None
        session.receive(credit(3), 0)
        assert sent_id(session) == 3

    def test_credit_is_absolute_and_never_shrinks(self) -> None:
        """A late, smaller Credit changes nothing, and the same one twice counts once."""
        session = open_session(frames_allowed=0)
        for allowed in (1, 1, 0):
            session.receive(credit(allowed), 0)
        session.offer(frame(1))
        assert sent_id(session) == 1
        session.offer(frame(2))
        assert session.poll(0) is None


class TestEnd:
    def test_end_is_the_last_request(self) -> None:
        """After End nothing is written, not even a Ping."""
        session = open_session()
        session.end()
        assert session.poll(0) == codec.end_request()
        assert session.writing_is_over
        assert session.poll(100 * S) is None
        assert not session.has_due(100 * S)
        assert session.next_wakeup_ns() is None

    def test_waiting_frame_goes_before_end(self) -> None:
        """A frame given to send before end is still sent, when credit comes."""
        session = open_session(frames_allowed=0)
        session.offer(frame(1))
        session.end()
        assert session.poll(0) is None
        session.receive(credit(1), 0)
        assert sent_id(session) == 1
        assert session.poll(0) == codec.end_request()

    def test_draining_server_gets_end_at_once(self) -> None:
        """A draining server grants no more credit: the waiting frame stays here, and is counted so."""
        session = open_session(frames_allowed=0)
        session.offer(frame(1))
        session.end()
        session.receive(notice(pb.Notice.KIND_DRAINING), 0)
        assert session.poll(0) == codec.end_request()
        session.receive(closed(0), 0)
        assert session.account().waiting == 1
        assert session.account().violations() == []

    def test_other_notices_do_not_hurry_end(self) -> None:
        """Only DRAINING stops credit."""
        session = open_session(frames_allowed=0)
        session.offer(frame(1))
        session.end()
        session.receive(notice(pb.Notice.KIND_DEGRADED), 0)
        assert session.poll(0) is None


class TestOutcomes:
    def test_result_knows_age_round_trip_and_label(self) -> None:
        """Age runs from capture, round trip from the write, both on the client's clock; labels come from Opened."""
        session = open_session()
        session.offer(frame(1, captured_ns=1 * S))
        sent_id(session, 2 * S - 1)
        told = session.receive(result(1, 1, 7), 4 * S)
        assert isinstance(told, Result)
        assert (told.age_s, told.round_trip_s) == (3.0, pytest.approx(2.0))
        assert [(box.class_id, box.label) for box in told.detections] == [(1, "ball"), (7, "7")]

    def test_drops_are_counted_by_reason(self) -> None:
        """A range counts the frames in it that were sent, not its width."""
        session = open_session()
        for number in (2, 5, 9):
            session.offer(frame(number))
            sent_id(session)
        told = session.receive(dropped(2, 9, 3), 0)
        assert isinstance(told, Dropped)
        assert told.total == 3
        assert session.account().drops == {"DEADLINE": 3}

    def test_error_is_an_outcome(self) -> None:
        """A failed frame is told by its stable code."""
        session = open_session()
        session.offer(frame(1))
        sent_id(session)
        assert session.receive(failed(1), 0) == FrameError(1, "TOO_LARGE", "")
        assert session.account().errors == 1

    @pytest.mark.parametrize(
        "event", [result(3), dropped(1, 3, 2), dropped(1, 2, 3), dropped(1, 2, 0), dropped(2, 1, 1)]
    )
    def test_outcome_of_a_frame_never_sent_is_a_protocol_error(self, event: pb.ServerEvent) -> None:
        """What the server says must fit what was sent."""
        session = open_session()
        for number in (1, 2):
            session.offer(frame(number))
            sent_id(session)
        with pytest.raises(ProtocolError):
            session.receive(event, 0)

    def test_outcome_told_twice_is_a_protocol_error(self) -> None:
        """Each frame has exactly one outcome, in order."""
        session = open_session()
        session.offer(frame(1))
        sent_id(session)
        session.receive(result(1), 0)
        with pytest.raises(ProtocolError, match="expected frame_ids after 1"):
            session.receive(failed(1), 0)

    def test_unknown_event_is_ignored(self) -> None:
        """A newer server may say more than this client understands."""
        assert open_session().receive(pb.ServerEvent(), 0) is None

    def test_unknown_drop_reason_keeps_its_number(self) -> None:
        """A reason that is newer than this client is counted all the same."""
        session = open_session()
        session.offer(frame(1))
        sent_id(session)
        event = dropped(1, 1, 1)
        event.dropped.counts[0].reason = 9  # type: ignore[assignment]
        session.receive(event, 0)
        assert session.account().drops == {"UNKNOWN_9": 1}


class TestOrderOfEvents:
    @pytest.mark.parametrize("event", [result(1), credit(1), closed(0), notice(pb.Notice.KIND_DRAINING)])
    def test_nothing_comes_before_opened(self, event: pb.ServerEvent) -> None:
        """Opened is first."""
        session = ClientSession(OPEN)
        session.poll(0)
        with pytest.raises(ProtocolError, match="while the stream was opening"):
            session.receive(event, 0)

    def test_opened_comes_once(self) -> None:
        """A second Opened is a fault of the server."""
        with pytest.raises(ProtocolError, match="said opened while the stream was open"):
            open_session().receive(opened(), 0)

    def test_nothing_comes_after_closed(self) -> None:
        """Closed is last."""
        session = open_session()
        session.receive(closed(0), 0)
        with pytest.raises(ProtocolError, match="while the stream was closed"):
            session.receive(credit(9), 0)


class TestAccount:
    def test_frames_unread_by_a_drained_server_are_lost(self) -> None:
        """lost = sent - received, where the server closed while frames were on their way."""
        session = open_session()
        for number in (1, 2, 3):
            session.offer(frame(number))
            sent_id(session)
        session.receive(result(1), 0)
        session.receive(closed(1, pb.CLOSE_REASON_DRAINED), 0)
        account = session.account()
        assert (account.received, account.lost, account.unaccounted) == (1, 2, 0)
        account.check()

    def test_without_closed_everything_unanswered_is_lost(self) -> None:
        """A cut call has no ledger: received stays unknown, and what was not answered is lost."""
        session = open_session()
        for number in (1, 2, 3):
            session.offer(frame(number))
            sent_id(session)
        session.receive(result(1), 0)
        assert session.account().lost == 0
        session.disconnect()
        account = session.account()
        assert (account.received, account.lost, account.unaccounted) == (None, 2, None)
        account.check()

    def test_missing_message_shows(self) -> None:
        """A frame in the ledger whose outcome never came is unaccounted, and a violation."""
        session = open_session()
        session.offer(frame(1))
        sent_id(session)
        session.receive(closed(1), 0)
        assert session.account().unaccounted == 1
        assert session.account().violations() == ["received 1 is not results 0 + drops 0 + errors 0"]

    def test_loss_after_end_shows(self) -> None:
        """On a stream that ended by End nothing may be lost."""
        session = open_session()
        session.offer(frame(1))
        sent_id(session)
        session.receive(closed(0), 0)
        assert session.account().violations() == ["the stream ended by End, yet 1 frames are lost"]


class TestHeartbeat:
    def test_ping_after_two_seconds_without_sending(self) -> None:
        """A camera that sends nothing still shows that it lives, at most once in 2 s."""
        session = open_session()
        assert session.next_wakeup_ns() == PING_AFTER_NS
        assert session.poll(PING_AFTER_NS - 1) is None
        assert ping_nonce(session.poll(PING_AFTER_NS)) == 1
        assert session.poll(2 * PING_AFTER_NS - 1) is None
        assert ping_nonce(session.poll(2 * PING_AFTER_NS)) == 2

    def test_ping_when_sending_but_hearing_nothing(self) -> None:
        """Frames going out do not stand for answers coming in."""
        session = open_session()
        session.offer(frame(1))
        assert sent_id(session, PING_AFTER_NS - 1) == 1
        assert ping_nonce(session.poll(PING_AFTER_NS)) == 1

    def test_no_ping_while_both_sides_talk(self) -> None:
        """A busy stream needs no heartbeat."""
        session = open_session(frames_allowed=100)
        for number in range(1, 11):
            session.offer(frame(number))
            assert sent_id(session, number * S) == number
            session.receive(result(number), number * S)
            assert session.poll(number * S) is None

    def test_silent_for_six_seconds_is_dead(self) -> None:
        """Three Pings without an answer: the server is given up. Anything heard starts the count again."""
        session = open_session()
        assert not session.is_dead(DEAD_AFTER_NS - 1)
        assert session.is_dead(DEAD_AFTER_NS)
        session.receive(pb.ServerEvent(pong=pb.Pong(nonce=1)), DEAD_AFTER_NS - 1)
        assert not session.is_dead(2 * DEAD_AFTER_NS - 2)
        assert session.is_dead(2 * DEAD_AFTER_NS - 1)

    def test_loading_server_is_not_dead(self) -> None:
        """Before Opened the server may be loading the model: the heartbeat does not judge it."""
        session = ClientSession(OPEN)
        session.poll(0)
        assert session.poll(100 * S) is None
        assert not session.is_dead(100 * S)

    def test_no_answer_to_open_in_time_is_dead(self) -> None:
        """How long the grant may take is the client's own limit."""
        session = ClientSession(OPEN, open_timeout_ns=10 * S)
        session.poll(1 * S)
        assert session.next_wakeup_ns() == 11 * S
        assert not session.is_dead(11 * S - 1)
        assert session.is_dead(11 * S)
        assert session.silence() == "no answer to Open in 10 s"


class TestMove:
    """What a stream that moves to another connection does to the old one."""

    def test_held_session_takes_no_frame(self) -> None:
        """Frames wait for the next connection, and so does the End of the stream; Pings go on."""
        session = open_session()
        session.offer(frame(1))
        session.end()
        session.holding = True
        assert session.poll(0) is None
        assert ping_nonce(session.poll(PING_AFTER_NS)) == 1

    def test_retired_session_says_end_and_takes_no_frame(self) -> None:
        """Its last outcomes still come; a server that is silent meanwhile is dead."""
        session = open_session()
        session.offer(frame(1))
        sent_id(session)
        session.offer(frame(2))
        session.retire()
        assert session.poll(1 * S) == codec.end_request()
        assert isinstance(session.receive(result(1), 2 * S), Result)
        assert not session.is_dead(2 * S + DEAD_AFTER_NS - 1)
        assert session.is_dead(2 * S + DEAD_AFTER_NS)
        session.receive(closed(1), 2 * S)
        assert session.ledger().violations() == []

    def test_lost_is_the_range_without_an_outcome(self) -> None:
        """Known once the call has ended."""
        session = open_session()
        for number in (3, 5, 8):
            session.offer(frame(number))
            sent_id(session)
        session.receive(result(3), 0)
        assert session.lost() is None
        session.disconnect()
        assert session.lost() == Lost(5, 8, 2)

    def test_kept_frames_are_those_without_an_outcome(self) -> None:
        """A drop by a server that drains is no outcome of a stream that goes on; any other drop is."""
        session = ClientSession(OPEN, keep=True)
        session.poll(0)
        session.receive(opened(10), 0)
        for number in range(1, 8):
            session.offer(frame(number))
            sent_id(session)
        session.receive(result(1), 0)
        session.receive(failed(2), 0)
        assert session.receive(dropped(3, 3, 1), 0) is not None
        assert session.receive(dropped(4, 5, 2, pb.DROP_REASON_DRAINING), 0) is None
        session.disconnect()
        assert [kept.frame_id for kept in session.unfinished()] == [4, 5, 6, 7]
        ledger = session.ledger()
        assert (ledger.sent, ledger.told, ledger.returned, ledger.lost) == (7, 3, 2, 2)
        assert ledger.violations() == []

"""What a stream does when its server drains, and when its camera ends, rule by rule, with time as an argument."""

from __future__ import annotations

import pytest

from headworks.errors import HeadworksError, StreamBrokenError
from headworks.outcomes import ConnectionLost, Lost, ReconnectFailed
from headworks.v1 import frame_pb2 as pb
from support.client_events import S, closed, credit, dropped, frame, notice, result, sent_id
from support.supervised import AWAY, CUT, EVERY_FRAME, connect, finish, send, supervise


class TestDrain:
    def test_new_connection_opens_before_the_old_one_ends(self) -> None:
        """On the next server of the list. Then End, and the last outcomes: no frame is lost, order is kept."""
        supervisor = supervise("a:1", "b:1")
        old = connect(supervisor)
        send(supervisor, old, 1, 2)
        supervisor.receive(old, notice(pb.Notice.KIND_DRAINING), 0)
        supervisor.mailbox.offer(frame(3))
        assert old.poll(0) is None, "frames wait for the new connection, for the old server would drop them"
        new = connect(supervisor)
        assert new.target == "b:1"
        assert new.poll(0) is None, "the old connection's outcomes come first"
        assert old.has_due(0), "End"
        old.poll(0)
        supervisor.receive(old, result(1), 0)
        supervisor.receive(old, dropped(2, 2, 1, pb.DROP_REASON_DRAINING), 0)
        supervisor.receive(old, closed(2), 0)
        assert supervisor.ended(old, None, 0) == []
        assert sent_id(new) == 3
        supervisor.receive(new, result(3), 0)
        supervisor.end()
        supervisor.receive(new, closed(1), 0)
        supervisor.ended(new, None, 0)
        finish(supervisor)
        account = supervisor.account()
        account.check()
        assert (account.sent, account.received, account.lost) == (3, 3, 0)
        assert supervisor.failure is None

    def test_every_frame_sends_again_what_the_draining_server_dropped(self) -> None:
        """Such a drop is not told: the stream goes on, and so does the frame."""
        supervisor = supervise("a:1", "b:1", policy=EVERY_FRAME)
        old = connect(supervisor)
        send(supervisor, old, 1, 2, 3)
        supervisor.receive(old, notice(pb.Notice.KIND_DRAINING), 0)
        new = connect(supervisor)
        supervisor.receive(old, result(1), 0)
        assert supervisor.receive(old, dropped(2, 3, 2, pb.DROP_REASON_DRAINING), 0) is None
        supervisor.receive(old, closed(3), 0)
        supervisor.ended(old, None, 0)
        assert [sent_id(new), sent_id(new)] == [2, 3]
        for number in (2, 3):
            supervisor.receive(new, result(number), 0)
        supervisor.end()
        supervisor.receive(new, closed(2), 0)
        supervisor.ended(new, None, 0)
        finish(supervisor)
        account = supervisor.account()
        account.check()
        assert (account.results, account.drops, account.resent, account.lost) == (3, {}, 2, 0)

    def test_failed_move_ends_the_old_connection_all_the_same(self) -> None:
        """The only server drains: it is not kept waiting, and the stream comes back to it later."""
        supervisor = supervise()
        old = connect(supervisor)
        supervisor.receive(old, notice(pb.Notice.KIND_DRAINING), 0)
        (event,) = supervisor.ended(supervisor.connect(0), AWAY, 0)
        assert isinstance(event, ReconnectFailed)
        assert old.has_due(0), "End"
        old.poll(0)
        supervisor.receive(old, closed(0), 0)
        assert supervisor.ended(old, None, 0) == []
        assert not supervisor.idle
        connect(supervisor, S)

    def test_new_server_that_drains_as_well(self) -> None:
        """Each move waits for the one before; nothing is lost on the way."""
        supervisor = supervise("a:1", "b:1", policy=EVERY_FRAME)
        first = connect(supervisor)
        send(supervisor, first, 1)
        supervisor.receive(first, notice(pb.Notice.KIND_DRAINING), 0)
        second = connect(supervisor)
        supervisor.receive(second, notice(pb.Notice.KIND_DRAINING), 0)
        third = connect(supervisor)
        assert third.target == "a:1"
        supervisor.receive(second, closed(0), 0)
        supervisor.ended(second, None, 0)
        assert third.poll(0) is None
        supervisor.ended(first, CUT, 0)
        assert sent_id(third) == 1

    def test_end_during_the_move_lets_the_old_connection_finish(self) -> None:
        """A live camera that ends while no other server answers has nothing to wait for."""
        supervisor = supervise()
        old = connect(supervisor)
        supervisor.receive(old, notice(pb.Notice.KIND_DRAINING), 0)
        supervisor.ended(supervisor.connect(0), AWAY, 0)
        supervisor.end()
        assert supervisor.next_connect_ns is None
        old.poll(0)
        supervisor.receive(old, closed(0), 0)
        supervisor.ended(old, None, 0)
        finish(supervisor)
        assert supervisor.failure is None

    def test_ended_stream_does_not_move(self) -> None:
        """End goes out at once; the server finishes what it has."""
        supervisor = supervise("a:1", "b:1")
        session = connect(supervisor)
        supervisor.end()
        supervisor.receive(session, notice(pb.Notice.KIND_DRAINING), 0)
        assert supervisor.next_connect_ns is None
        assert session.has_due(0)


class TestEnd:
    def test_live_stream_does_not_connect_again_after_its_end(self) -> None:
        """An old frame is worth nothing; but what was lost is said."""
        supervisor = supervise()
        session = connect(supervisor)
        send(supervisor, session, 1)
        supervisor.end()
        assert supervisor.ended(session, CUT, 0) == [Lost(1, 1, 1)]
        finish(supervisor)
        assert supervisor.failure is CUT

    @pytest.mark.parametrize(("waits", "failure"), [(False, None), (True, CUT)])
    def test_end_while_away_is_the_end(self, waits: bool, failure: HeadworksError | None) -> None:
        """It is a failure only if a frame still waits to be sent, or the break took some along."""
        supervisor = supervise()
        supervisor.ended(connect(supervisor), CUT, 0)
        if waits:
            supervisor.mailbox.offer(frame(1))
        supervisor.end()
        finish(supervisor)
        assert supervisor.failure is failure

    def test_cut_stream_connects_no_more(self) -> None:
        """Whatever its calls say afterwards."""
        supervisor = supervise()
        session = connect(supervisor)
        left = StreamBrokenError("gate", "CANCELLED", "the application left")
        supervisor.cut(left)
        assert not supervisor.idle
        supervisor.ended(session, CUT, 0)
        finish(supervisor)
        assert supervisor.failure is left

    def test_server_that_closes_by_itself_is_opened_again(self) -> None:
        """Even with the status OK: the camera has not ended its stream."""
        supervisor = supervise()
        session = connect(supervisor)
        supervisor.receive(session, closed(0, pb.CLOSE_REASON_IDLE_TIMEOUT), 0)
        (event,) = supervisor.ended(session, None, 0)
        assert isinstance(event, ConnectionLost)
        assert "IDLE_TIMEOUT" in str(event.reason)

    def test_credit_of_one_connection_is_not_that_of_the_next(self) -> None:
        """frames_allowed counts from each Open."""
        supervisor = supervise(policy=EVERY_FRAME)
        session = connect(supervisor, frames_allowed=0)
        supervisor.receive(session, credit(50), 0)
        supervisor.ended(session, CUT, 0)
        second = connect(supervisor, S, frames_allowed=1)
        supervisor.mailbox.offer(frame(1))
        assert sent_id(second, S) == 1
        supervisor.mailbox.offer(frame(2))
        assert second.poll(S) is None

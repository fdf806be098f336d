"""What a stream does when its connection breaks or is refused, rule by rule, with time as an argument."""

from __future__ import annotations

import pytest

from headworks.errors import ConnectionFailedError, HeadworksError, ProtocolError, StreamRefusedError
from headworks.outcomes import ConnectionLost, ConnectionOpened, Lost, ReconnectFailed, Result
from headworks.policy import Policy
from headworks.reconnect import KEPT_LEDGERS, MAX_RETRY_NS, MIN_RETRY_NS, StreamPlan, StreamSupervisor
from support.client_events import OPEN, S, closed, frame, opened, result, sent_id
from support.supervised import AWAY, CUT, EVERY_FRAME, connect, finish, send, supervise


class TestBreak:
    def test_broken_connection_is_followed_by_another(self) -> None:
        """Its unanswered frames are lost, and told; numbers go on; the account is the sum over both."""
        supervisor = supervise()
        session = connect(supervisor)
        send(supervisor, session, 1, 2, 3)
        supervisor.receive(session, result(1), 0)
        lost, event = supervisor.ended(session, CUT, 0)
        assert lost == Lost(2, 3, 2)
        assert event == ConnectionLost(1, "a:1", CUT, 2, "a:1", 0.2)
        assert supervisor.mailbox.next_frame_id() == 4
        second = connect(supervisor, 1 * S)
        send(supervisor, second, 4)
        supervisor.receive(second, result(4), 1 * S)
        supervisor.end()
        supervisor.receive(second, closed(1), 1 * S)
        assert supervisor.ended(second, None, 1 * S) == []
        assert finish(supervisor) == []
        assert supervisor.failure is None
        account = supervisor.account()
        account.check()
        assert (account.sent, account.received, account.lost, account.results) == (4, 2, 2, 2)
        assert [ledger.lost for ledger in account.connections] == [2, 0]

    def test_frame_in_the_mailbox_goes_out_over_the_next_connection(self) -> None:
        """It has not been sent, so it is not lost."""
        supervisor = supervise()
        session = connect(supervisor, frames_allowed=0)
        supervisor.mailbox.offer(frame(1))
        supervisor.ended(session, CUT, 0)
        supervisor.mailbox.offer(frame(2))
        assert sent_id(connect(supervisor, S)) == 2
        assert supervisor.account().replaced == 1

    def test_reopened_stream_says_how_long_it_was_away(self) -> None:
        """From the loss, over all attempts, to the grant."""
        supervisor = supervise()
        supervisor.ended(connect(supervisor), CUT, 0)
        (event,) = supervisor.ended(supervisor.connect(1 * S), AWAY, 1 * S)
        assert isinstance(event, ReconnectFailed)
        session = supervisor.connect(3 * S)
        session.poll(3 * S)
        event = supervisor.receive(session, opened(), 3 * S)
        assert isinstance(event, ConnectionOpened)
        assert (event.number, event.away_s) == (2, 3.0)

    def test_delays_double_from_a_tenth_to_five_seconds(self) -> None:
        """Half of each is left to chance, lest all cameras of a site come at once."""
        supervisor = supervise()
        supervisor.ended(connect(supervisor), CUT, 0)
        delays = []
        for _ in range(8):
            due_ns = supervisor.next_connect_ns
            assert due_ns is not None
            supervisor.ended(supervisor.connect(due_ns), AWAY, due_ns)
            assert supervisor.next_connect_ns is not None
            delays.append((supervisor.next_connect_ns - due_ns) / S)
        assert delays == [0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0]

    def test_chance_is_kept_within_bounds(self) -> None:
        """The shortest delay that chance may choose is 0.1 s, the longest 5 s."""
        asked: list[tuple[float, float]] = []
        plan = StreamPlan(
            name="", open_request=OPEN, policy=Policy(), targets=("a:1",), reconnect=True, open_retry_ns=1 << 62,
            open_timeout_ns=S,
        )  # fmt: skip

        def uniform(shortest: float, longest: float) -> float:
            asked.append((shortest, longest))
            return shortest

        supervisor = StreamSupervisor(plan, uniform=uniform)
        supervisor.begin(0)
        for _ in range(40):
            supervisor.ended(supervisor.connect(0), AWAY, 0)
        assert min(shortest for shortest, _ in asked) == MIN_RETRY_NS
        assert max(longest for _, longest in asked) == MAX_RETRY_NS

    def test_connection_that_served_starts_the_delays_anew(self) -> None:
        """One that opens and breaks at once, again and again, does not."""
        supervisor = supervise()
        delays = []
        now_ns = 0
        for served in (False, False, False, True, False):
            now_ns += 10 * S
            session = connect(supervisor, now_ns)
            number = supervisor.mailbox.next_frame_id()
            send(supervisor, session, number)
            if served:
                supervisor.receive(session, result(number), now_ns)
            *_, event = supervisor.ended(session, CUT, now_ns)
            assert isinstance(event, ConnectionLost)
            delays.append(event.retry_in_s)
        assert delays == [0.2, 0.4, 0.8, 0.2, 0.4]

    def test_servers_of_a_list_take_turns(self) -> None:
        """Whoever loses its server goes to the next."""
        supervisor = supervise("a:1", "b:1", "c:1")
        tried = []
        for failure in (CUT, AWAY, AWAY, AWAY):
            now_ns = supervisor.next_connect_ns or 0
            session = connect(supervisor, now_ns) if failure is CUT else supervisor.connect(now_ns)
            tried.append(session.target)
            supervisor.ended(session, failure, now_ns)
        assert tried == ["a:1", "b:1", "c:1", "a:1"]

    @pytest.mark.parametrize(
        "code", ["INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"]
    )
    def test_refusal_that_will_not_change_ends_the_stream(self, code: str) -> None:
        """Asking again would be answered the same."""
        supervisor = supervise(open_retry_s=1000)
        supervisor.ended(connect(supervisor), CUT, 0)
        refused = StreamRefusedError("a:1", code, "no")
        assert supervisor.ended(supervisor.connect(S), refused, S) == []
        finish(supervisor)
        assert supervisor.failure is refused

    @pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN"])
    def test_refusal_that_may_change_is_tried_again(self, code: str) -> None:
        """A server that has no room now may have some later."""
        supervisor = supervise()
        supervisor.ended(connect(supervisor), CUT, 0)
        supervisor.ended(supervisor.connect(S), StreamRefusedError("a:1", code, "not now"), S)
        assert supervisor.next_connect_ns is not None

    def test_server_that_breaks_the_contract_is_left(self) -> None:
        """That is a defect, and has to be seen."""
        supervisor = supervise()
        broken = ProtocolError("nonsense")
        supervisor.ended(connect(supervisor), broken, 0)
        finish(supervisor)
        assert supervisor.failure is broken

    def test_without_reconnect_the_first_break_is_the_end(self) -> None:
        """The loss is in the account and in the error; nothing else is told."""
        supervisor = supervise(reconnect=False)
        session = connect(supervisor)
        send(supervisor, session, 1)
        assert supervisor.ended(session, CUT, 0) == []
        assert finish(supervisor) == []
        assert supervisor.failure is CUT
        assert supervisor.account().lost == 1

    def test_old_ledgers_become_one_sum(self) -> None:
        """A camera with a bad network for a year has a bounded account, which still adds up."""
        supervisor = supervise()
        breaks = KEPT_LEDGERS + 10
        for number in range(breaks):
            session = connect(supervisor, number * 10 * S)
            send(supervisor, session, 2 * number + 1, 2 * number + 2)
            supervisor.receive(session, result(2 * number + 1), 0)
            supervisor.ended(session, CUT, number * 10 * S)
        account = supervisor.account()
        account.check()
        assert len(account.connections) == KEPT_LEDGERS + 1
        assert (account.sent, account.results, account.lost) == (2 * breaks, breaks, breaks)


class TestFirstOpen:
    def test_each_target_is_tried_once(self) -> None:
        """At once, one after the other; then the last error is the stream's."""
        supervisor = supervise("a:1", "b:1")
        session = supervisor.connect(0)
        (event,) = supervisor.ended(session, AWAY, 0)
        assert event == ReconnectFailed("a:1", AWAY, 1, "b:1", 0.0)
        other = ConnectionFailedError("b:1", "refused")
        assert supervisor.ended(supervisor.connect(0), other, 0) == []
        finish(supervisor)
        assert supervisor.failure is other
        assert supervisor.account().connections == ()

    def test_camera_that_starts_before_its_server_may_wait(self) -> None:
        """With open_retry_s the first open is tried again until that time is over."""
        supervisor = supervise(open_retry_s=3)
        tried = []
        while (now_ns := supervisor.next_connect_ns) is not None:
            tried.append(now_ns / S)
            supervisor.ended(supervisor.connect(now_ns), AWAY, now_ns)
        assert tried == pytest.approx([0.0, 0.2, 0.6, 1.4, 3.0])
        assert supervisor.failure is AWAY

    def test_wrong_model_is_told_at_once(self) -> None:
        """No time is lost with what cannot succeed."""
        supervisor = supervise("a:1", "b:1", open_retry_s=1000)
        refused = StreamRefusedError("a:1", "NOT_FOUND", "no model")
        supervisor.ended(supervisor.connect(0), refused, 0)
        assert supervisor.idle
        assert supervisor.failure is refused


class TestEveryFrame:
    def test_unanswered_frames_are_sent_again_first(self) -> None:
        """At least once: none is lost, each is told once, and those sent again stand outside the sums."""
        supervisor = supervise(policy=EVERY_FRAME)
        session = connect(supervisor)
        send(supervisor, session, 1, 2, 3)
        supervisor.receive(session, result(1), 0)
        supervisor.mailbox.offer(frame(4))
        (event,) = supervisor.ended(session, CUT, 0)
        assert isinstance(event, ConnectionLost)
        assert event.unanswered == 2
        second = connect(supervisor, S)
        assert [sent_id(second, S) for _ in range(3)] == [2, 3, 4]
        for number in (2, 3, 4):
            assert isinstance(supervisor.receive(second, result(number), S), Result)
        supervisor.end()
        supervisor.receive(second, closed(3), S)
        supervisor.ended(second, None, S)
        assert finish(supervisor) == []
        account = supervisor.account()
        account.check()
        assert (account.sent, account.resent, account.received, account.lost, account.results) == (4, 2, 4, 0, 4)
        assert [ledger.sent for ledger in account.connections] == [3, 3]

    def test_frame_that_breaks_with_every_connection_is_sent_until_it_is_answered(self) -> None:
        """It counts as sent once."""
        supervisor = supervise(policy=EVERY_FRAME)
        send(supervisor, session := connect(supervisor), 1)
        for number in range(1, 4):
            supervisor.ended(session, CUT, number * 10 * S)
            session = connect(supervisor, number * 20 * S)
            assert sent_id(session, number * 20 * S) == 1
        assert (supervisor.account().sent, supervisor.account().resent, supervisor.account().lost) == (1, 3, 0)

    def test_ended_stream_connects_again_for_what_is_unanswered(self) -> None:
        """A file is complete, or its stream has not ended."""
        supervisor = supervise(policy=EVERY_FRAME)
        session = connect(supervisor)
        send(supervisor, session, 1)
        supervisor.end()
        supervisor.ended(session, CUT, 0)
        assert supervisor.next_connect_ns is not None

    def test_ended_stream_with_all_answers_is_over(self) -> None:
        """The connection broke before its Closed; nothing is missing, so nothing has failed."""
        supervisor = supervise(policy=EVERY_FRAME)
        session = connect(supervisor)
        send(supervisor, session, 1)
        supervisor.receive(session, result(1), 0)
        supervisor.end()
        supervisor.ended(session, CUT, 0)
        assert finish(supervisor) == []
        assert supervisor.failure is None
        assert supervisor.account().violations() == []

    def test_what_is_never_answered_is_told_as_lost(self) -> None:
        """The stream was given up: its frames do not vanish without a word."""
        supervisor = supervise(policy=EVERY_FRAME)
        session = connect(supervisor)
        send(supervisor, session, 1, 2)
        supervisor.cut(HeadworksError("given up"))
        supervisor.ended(session, CUT, 0)
        assert finish(supervisor) == [Lost(1, 2, 2)]
        account = supervisor.account()
        assert (account.sent, account.lost, account.received) == (2, 2, None)

"""The client's session against a model of a server that obeys the contract, in every interleaving Hypothesis finds.

The wire is two queues. The model server reads in order, answers in order, counts, and drains or vanishes at will.
"""

from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headworks.codec import end_request
from headworks.outcomes import Closed, Dropped, FrameError, Result
from headworks.session import DEAD_AFTER_NS, PING_AFTER_NS, ClientSession, OutgoingFrame
from headworks.v1 import frame_pb2 as pb

OPEN = b"open"


class ClientMachine(RuleBasedStateMachine):
    """Drives one ClientSession from Open to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.session = ClientSession(OPEN)
        self.now = 0
        # What the application did and was told.
        self.offered: list[int] = []
        self.written: list[int] = []
        self.told: list[int] = []  # frames, by the last of each outcome
        self.told_count = 0
        self.pings: list[int] = []
        self.ended = self.end_written = False
        # The model server.
        self.to_server: deque[OutgoingFrame | bytes] = deque()
        self.to_client: deque[pb.ServerEvent] = deque()
        self.unanswered: deque[int] = deque()
        self.ledger = pb.Ledger()
        self.granted = 0
        self.server_opened = self.server_closed = self.draining = self.saw_end = self.gone = False

    # --- time and the application

    @rule(ms=st.integers(0, 3000))
    def pass_time(self, ms: int) -> None:
        self.now += ms * 1_000_000

    @precondition(lambda self: not self.ended)
    @rule(gap=st.integers(1, 3))
    def offer(self, gap: int) -> None:
        frame_id = self.session.next_frame_id() + gap - 1
        self.session.offer(OutgoingFrame(frame_id, self.now, 0, 1, 0, 0, b"jpeg"))
        self.offered.append(frame_id)

    @rule()
    def end(self) -> None:
        self.session.end()
        self.ended = True

    # --- the client's transport

    @precondition(lambda self: not self.gone)
    @rule()
    def write(self) -> None:
        due = self.session.has_due(self.now)
        request = self.session.poll(self.now)
        assert due == (request is not None), "has_due tells the truth about poll"
        if request is None:
            return
        assert not self.end_written, "nothing follows End"
        self.to_server.append(request)
        if isinstance(request, OutgoingFrame):
            self.written.append(request.frame_id)
            assert request.frame_id == max(self.offered), "what is sent is the newest there is"
        elif request == end_request():
            self.end_written = True
        elif request != OPEN:
            assert not self.pings or self.now - self.pings[-1] >= PING_AFTER_NS, "at most one Ping in 2 s"
            self.pings.append(self.now)

    @precondition(lambda self: self.to_client and not self.gone)
    @rule()
    def read(self) -> None:
        told = self.session.receive(self.to_client.popleft(), self.now)
        match told:
            case Result() | FrameError():
                self.told.append(told.frame_id)
                self.told_count += 1
            case Dropped():
                self.told.append(told.last_frame_id)
                self.told_count += told.total
            case Closed():
                assert not self.to_client, "Closed is last"

    # --- the model server

    @precondition(lambda self: self.to_server and not self.gone and not self.server_closed)
    @rule()
    def serve(self) -> None:
        request = self.to_server.popleft()
        if isinstance(request, OutgoingFrame):
            self.unanswered.append(request.frame_id)
            self.ledger.received += 1
        elif request == OPEN:
            self.server_opened = True
            self.granted = 2
            self.to_client.append(pb.ServerEvent(opened=pb.Opened(frames_allowed=self.granted)))
        elif request == end_request():
            self.saw_end = True
        else:
            nonce = pb.StreamFramesRequest.FromString(request).ping.nonce
            self.to_client.append(pb.ServerEvent(pong=pb.Pong(nonce=nonce)))

    @precondition(lambda self: self.unanswered and not self.gone and not self.server_closed)
    @rule(count=st.integers(1, 3), how=st.sampled_from(["result", "error", "dropped"]))
    def answer(self, count: int, how: str) -> None:
        if how == "dropped":
            run = [self.unanswered.popleft() for _ in range(min(count, len(self.unanswered)))]
            drop = pb.DropCount(reason=pb.DROP_REASON_QUEUE_FULL, stage=pb.DROP_STAGE_INGRESS, count=len(run))
            self.ledger.drops.append(drop)
            event = pb.ServerEvent(dropped=pb.Dropped(first_frame_id=run[0], last_frame_id=run[-1], counts=[drop]))
        elif how == "error":
            self.ledger.errors += 1
            event = pb.ServerEvent(frame_error=pb.FrameError(frame_id=self.unanswered.popleft()))
        else:
            self.ledger.results += 1
            event = pb.ServerEvent(result=pb.Result(frame_id=self.unanswered.popleft()))
        self.to_client.append(event)

    @precondition(lambda self: self.server_opened and not self.draining and not self.server_closed)
    @rule(more=st.integers(0, 3))
    def grant(self, more: int) -> None:
        self.granted += more
        self.to_client.append(pb.ServerEvent(credit=pb.Credit(frames_allowed=self.granted)))

    @precondition(lambda self: self.server_opened and not self.draining and not self.server_closed)
    @rule()
    def drain(self) -> None:
        self.draining = True
        self.to_client.append(pb.ServerEvent(notice=pb.Notice(kind=pb.Notice.KIND_DRAINING)))

    @precondition(lambda self: (self.saw_end or self.draining) and not self.unanswered and not self.server_closed)
    @rule()
    def close(self) -> None:
        self.server_closed = True
        reason = pb.CLOSE_REASON_END if self.saw_end else pb.CLOSE_REASON_DRAINED
        self.to_client.append(pb.ServerEvent(closed=pb.Closed(ledger=self.ledger, reason=reason)))

    @precondition(lambda self: not self.gone and (self.server_opened or self.written))
    @rule()
    def vanish(self) -> None:
        self.gone = True
        self.session.disconnect()

    # --- what always holds

    @invariant()
    def the_account_is_exact(self) -> None:
        account = self.session.account()
        assert account.violations() == []
        assert account.offered == len(self.offered)
        assert account.sent == len(self.written)
        assert account.waiting in (0, 1)
        assert account.told == self.told_count
        if self.gone and account.received is None:
            assert account.lost == len(self.written) - self.told_count
        if account.close_reason == "END":
            assert account.waiting == 0 or self.draining

    @invariant()
    def credit_is_kept(self) -> None:
        assert len(self.written) <= self.granted

    @invariant()
    def order_is_kept(self) -> None:
        assert self.written == sorted(set(self.written))
        assert self.told == sorted(set(self.told))

    @invariant()
    def the_wakeup_is_never_late(self) -> None:
        """Whoever sleeps until next_wakeup_ns misses neither a Ping nor a death."""
        wakeup = self.session.next_wakeup_ns()
        if wakeup is None:
            assert not self.session.is_dead(self.now + DEAD_AFTER_NS)
        elif not self.session.has_due(self.now):
            assert wakeup > self.now or self.session.is_dead(self.now)
            assert not self.session.has_due(wakeup - 1)

    def teardown(self) -> None:
        """A stream that is ended and left to run always comes to an exact end."""
        if self.gone:
            return
        self.end()
        for _ in range(2 * len(self.offered) + 20):
            self.write()
            if self.to_server and not self.server_closed:
                self.serve()
            if self.unanswered:
                self.answer(3, "dropped")
            if self.server_opened and not self.draining and not self.server_closed:
                self.grant(1)
            if self.saw_end and not self.unanswered and not self.server_closed:
                self.close()
            while self.to_client:
                self.read()
        assert self.session.closed is not None
        account = self.session.account()
        account.check()
        assert account.unaccounted == 0


TestClientMachine = ClientMachine.TestCase

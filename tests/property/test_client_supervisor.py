"""A stream over many connections against model servers that answer, drain, break and refuse at will.

Each connection has a model server of its own, which obeys the contract until it vanishes. Hypothesis finds the
interleavings; what must hold is checked after every step, and each run is brought to its end.
"""

from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headworks.codec import end_request
from headworks.errors import ConnectionFailedError, StreamBrokenError
from headworks.mailbox import OutgoingFrame
from headworks.outcomes import Dropped, FrameError, Lost, Result
from headworks.policy import Policy
from headworks.reconnect import StreamPlan, StreamSupervisor, Told
from headworks.session import ClientSession
from headworks.v1 import frame_pb2 as pb
from support.client_events import OPEN, S

POLICIES = [Policy(), Policy("bounded", 3), Policy("bounded", 2, "newest"), Policy("every_frame")]
WINDOW = 4


class ModelServer:
    """The far end of one connection."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self.to_server: deque[OutgoingFrame | bytes] = deque()
        self.to_client: deque[pb.ServerEvent] = deque()
        self.waiting: deque[int] = deque()
        self.written: list[int] = []
        self.ledger = pb.Ledger()
        self.opened = self.closed = self.draining = self.ended = False

    def read(self) -> None:
        """Take one request."""
        request = self.to_server.popleft()
        if isinstance(request, OutgoingFrame):
            self.ledger.received += 1
            self.waiting.append(request.frame_id)
        elif request == OPEN:
            self.opened = True
            self.say(opened=pb.Opened(frames_allowed=WINDOW))
        elif request == end_request():
            self.ended = True
        else:
            self.say(pong=pb.Pong(nonce=pb.StreamFramesRequest.FromString(request).ping.nonce))

    def answer(self, how: str) -> None:
        """Give the oldest frame its outcome; one that drains drops it."""
        number = self.waiting.popleft()
        if self.draining or how == "dropped":
            reason = pb.DROP_REASON_DRAINING if self.draining else pb.DROP_REASON_DEADLINE
            count = pb.DropCount(reason=reason, stage=pb.DROP_STAGE_INGRESS, count=1)
            self.ledger.drops.append(count)
            self.say(dropped=pb.Dropped(first_frame_id=number, last_frame_id=number, counts=[count]))
        elif how == "error":
            self.ledger.errors += 1
            self.say(frame_error=pb.FrameError(frame_id=number))
        else:
            self.ledger.results += 1
            self.say(result=pb.Result(frame_id=number))
        if not self.draining:
            self.say(credit=pb.Credit(frames_allowed=WINDOW + self.ledger.received - len(self.waiting)))

    def close(self) -> None:
        """Say the last word."""
        self.closed = True
        reason = pb.CLOSE_REASON_END if self.ended else pb.CLOSE_REASON_DRAINED
        self.say(closed=pb.Closed(ledger=self.ledger, reason=reason))

    def say(self, **event: object) -> None:
        """Put an event on its way."""
        self.to_client.append(pb.ServerEvent(**event))  # type: ignore[arg-type]

    @property
    def may_close(self) -> bool:
        """Whether Closed is due."""
        return self.opened and not self.closed and (self.ended or self.draining) and not self.waiting


class SupervisorMachine(RuleBasedStateMachine):
    """Drives one stream from its first Open to its end."""

    @initialize(policy=st.sampled_from(POLICIES), servers=st.sampled_from([("a",), ("a", "b")]))
    def open_stream(self, policy: Policy, servers: tuple[str, ...]) -> None:
        plan = StreamPlan(
            name="gate", open_request=OPEN, policy=policy, targets=servers, reconnect=True, open_retry_ns=1 << 62,
            open_timeout_ns=10 * S,
        )  # fmt: skip
        self.policy = policy
        self.supervisor = StreamSupervisor(plan, uniform=lambda shortest, _: shortest)
        self.supervisor.begin(0)
        self.now = 0
        self.live: list[ModelServer] = []
        self.past: list[ModelServer] = []
        self.offered: list[int] = []
        self.outcomes: list[Result | Dropped | FrameError | Lost] = []
        self.ended = False

    # --- time and the application

    @rule(ms=st.integers(0, 3000))
    def pass_time(self, ms: int) -> None:
        self.now += ms * 1_000_000

    @precondition(lambda self: not self.ended and self.supervisor.mailbox.has_room)
    @rule(gap=st.integers(1, 3))
    def offer(self, gap: int) -> None:
        frame_id = self.supervisor.mailbox.next_frame_id() + gap - 1
        self.supervisor.mailbox.offer(OutgoingFrame(frame_id, self.now, 0, 1, 0, 0, b"jpeg"))
        self.offered.append(frame_id)

    @precondition(lambda self: not self.ended and self.supervisor.opened is not None)
    @rule()
    def end(self) -> None:
        self.supervisor.end()
        self.ended = True

    # --- the transport

    @precondition(lambda self: self.supervisor.next_connect_ns is not None)
    @rule()
    def connect(self) -> None:
        assert self.supervisor.next_connect_ns is not None
        self.now = max(self.now, self.supervisor.next_connect_ns)
        self.live.append(ModelServer(self.supervisor.connect(self.now)))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        self.write_to(data.draw(st.sampled_from(self.live)))

    def write_to(self, server: ModelServer) -> bool:
        request = server.session.poll(self.now)
        if request is None:
            return False
        if isinstance(request, OutgoingFrame):
            assert request.frame_id > max(server.written, default=0), "frame_id increases within a connection"
            assert not server.draining or server.to_client, "no frame for a server known to drain"
            server.written.append(request.frame_id)
        server.to_server.append(request)
        return True

    @precondition(lambda self: any(server.to_client for server in self.live))
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.read_from(data.draw(st.sampled_from([server for server in self.live if server.to_client])))

    def read_from(self, server: ModelServer) -> None:
        told = self.supervisor.receive(server.session, server.to_client.popleft(), self.now)
        self.note([told] if told is not None else [])
        if server.closed and not server.to_client:
            status = None if server.ended else StreamBrokenError("gate", "UNAVAILABLE", "drained")
            self.hang_up(server, status)

    def hang_up(self, server: ModelServer, failure: StreamBrokenError | ConnectionFailedError | None) -> None:
        self.live.remove(server)
        self.past.append(server)
        self.note(self.supervisor.ended(server.session, failure, self.now))

    def note(self, told: list[Told]) -> None:
        self.outcomes += [item for item in told if isinstance(item, Result | Dropped | FrameError | Lost)]

    # --- the servers

    @precondition(lambda self: any(server.to_server and not server.closed for server in self.live))
    @rule(data=st.data())
    def serve(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([one for one in self.live if one.to_server and not one.closed])).read()

    @precondition(lambda self: any(server.waiting for server in self.live))
    @rule(data=st.data(), how=st.sampled_from(["result", "error", "dropped"]))
    def answer(self, data: st.DataObject, how: str) -> None:
        data.draw(st.sampled_from([server for server in self.live if server.waiting])).answer(how)

    @precondition(lambda self: any(server.opened and not server.closed for server in self.live))
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        server = data.draw(st.sampled_from([one for one in self.live if one.opened and not one.closed]))
        if not server.draining:
            server.draining = True
            server.say(notice=pb.Notice(kind=pb.Notice.KIND_DRAINING))

    @precondition(lambda self: any(server.may_close for server in self.live))
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([server for server in self.live if server.may_close])).close()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        server = data.draw(st.sampled_from(self.live))
        if server.session.opened is None:
            self.hang_up(server, ConnectionFailedError("a", "refused"))
        else:
            self.hang_up(server, StreamBrokenError("gate", "UNAVAILABLE", "cut"))

    # --- what always holds

    @invariant()
    def the_account_is_exact(self) -> None:
        account = self.supervisor.account()
        assert account.violations() == []
        assert account.offered == len(self.offered)
        lost = sum(outcome.total for outcome in self.outcomes if isinstance(outcome, Lost))
        assert account.lost == lost
        told = sum(
            outcome.total if isinstance(outcome, Dropped) else 1
            for outcome in self.outcomes
            if not isinstance(outcome, Lost)
        )
        assert account.told == told
        if self.policy.kind == "every_frame":
            assert account.replaced == 0

    @invariant()
    def outcomes_come_in_order_and_once(self) -> None:
        last = 0
        for outcome in self.outcomes:
            first = outcome.frame_id if isinstance(outcome, Result | FrameError) else outcome.first_frame_id
            assert first > last
            last = outcome.frame_id if isinstance(outcome, Result | FrameError) else outcome.last_frame_id

    @invariant()
    def it_is_idle_only_at_the_end(self) -> None:
        if self.supervisor.idle:
            assert self.ended

    def teardown(self) -> None:
        """With servers that do their part, a stream that is ended comes to an exact end."""
        if not hasattr(self, "supervisor"):
            return
        for _ in range(10_000):
            if self.supervisor.idle:
                break
            if self.supervisor.next_connect_ns is not None:
                self.connect()
            for server in list(self.live):
                self.do_its_part(server)
            if not self.ended and self.supervisor.opened is not None:
                self.end()
        assert self.supervisor.idle
        self.note(self.supervisor.finish())
        account = self.supervisor.account()
        assert account.violations() == []
        if self.policy.kind == "every_frame":
            assert self.supervisor.failure is None
            assert (account.told, account.lost, account.waiting) == (len(self.offered), 0, 0)
            assert [self.outcome_id(outcome) for outcome in self.outcomes] == self.offered
        elif self.supervisor.failure is None:
            last = account.connections[-1]
            assert last.lost == 0
        assert account.told + account.lost == account.sent

    def do_its_part(self, server: ModelServer) -> None:
        """Have one server take, answer and say all there is."""
        while self.write_to(server) or (server.to_server and not server.closed):
            while server.to_server and not server.closed:
                server.read()
        while server.waiting:
            server.answer("result")
        if server.may_close:
            server.close()
        while server in self.live and server.to_client:
            self.read_from(server)

    def outcome_id(self, outcome: Result | Dropped | FrameError | Lost) -> int:
        return outcome.frame_id if isinstance(outcome, Result | FrameError) else outcome.first_frame_id


TestSupervisorMachine = SupervisorMachine.TestCase

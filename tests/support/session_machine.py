"""One session, its peer, its server and a clock, for any order of messages, admissions, outcomes, reads and time.

The model keeps what a reader of the contract would: which frames wait, which are in flight, what each was decided to
be. Peers that obey credit, ignore it, never read, break the order or vanish all drive the same session, with and
without a maximum rate, beside other streams that fill the budget of waiting bytes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.events import (
    CANCELLED_SERVED,
    CANCELLED_WAITING,
    DRAINED_WAITING,
    OVERFLOWED,
    QUEUE_FULL,
    RATE_LIMITED,
    REPLACED,
    TURNED_AWAY,
    WAIT,
    Action,
    DropOutcome,
    ErrorOutcome,
    Ignore,
    Outcome,
    Replace,
    ResultOutcome,
)
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant, Policy, grant
from headworks_server.core.limits import SessionLimits
from headworks_server.core.outcomes import CloseReason, DropReason, DropStage, FrameErrorCode
from headworks_server.core.rate import Rate
from headworks_server.core.session import StreamSession
from support.streams import MS, Told, make_frame

TOO_LATE = DropOutcome(DropReason.DEADLINE, DropStage.BEFORE_DECODE)
TOO_LATE_IN_BATCH = DropOutcome(DropReason.DEADLINE, DropStage.BEFORE_BATCH)
BUDGET = 1_000
GRACE_NS = 5_000 * MS

TRAFFIC = ["send", "send", "send", "reject", "admit", "admit", "finish", "finish", "read", "late", "others"]
outcomes = st.sampled_from(["result", "result", "result", "error", "late"])


def make_outcome(kind: str) -> Outcome:
    if kind == "result":
        return ResultOutcome(b"entry")
    if kind == "error":
        return ErrorOutcome(FrameErrorCode.ENGINE_FAILED, "the batch failed")
    return TOO_LATE_IN_BATCH


class SessionMachine(RuleBasedStateMachine):
    """A peer, a server and a clock around one session."""

    @initialize(
        peer=st.sampled_from(["obeys", "ignores_credit", "never_reads"]),
        policy=st.sampled_from(Policy),
        drop_newest=st.booleans(),
        max_fps=st.sampled_from([0.0, 0.0, 0.5, 20.0]),
        max_in_flight=st.sampled_from([1, 1, 2, 8]),
        depth=st.integers(1, 5),
        entries=st.sampled_from([64, 16]),
        patience=st.sampled_from([0, 5, 20]),
    )
    def open(self, peer: str, policy: Policy, entries: int, patience: int, **asked: Any) -> None:
        granted = grant(policy=policy, **asked)
        assert isinstance(granted, Grant)
        self.every_frame = policy is Policy.EVERY_FRAME
        self.rate = Rate(granted.max_fps) if granted.max_fps else None
        self.peer = peer
        self.patience = patience  # rules before the first that may end the stream: most runs would be too short without
        self.granted = granted
        self.budget = WaitingBytes(BUDGET)
        self.limits = SessionLimits(outbox_entries=entries)
        self.now = 1
        self.session = StreamSession(1, now_ns=self.now, budget=self.budget, limits=self.limits)
        self.session.receive_open(granted, self.now)
        self.told = Told()
        self.next_id = 0
        self.read: set[int] = set()
        self.waiting: list[Frame] = []
        self.in_flight: list[Frame] = []
        self.drops: Counter[DropOutcome] = Counter()  # decided otherwise than by overflow or a lost peer
        self.answers = 0  # results and errors that the server has made for a peer that was there
        self.grace_end = 0
        self.phase = "open"  # open, ended, draining, drained, faulted, overrun, idle, gone
        self.elsewhere = 0  # waiting bytes of other streams

    # What a stream does most of the time, in any order.

    @rule(script=st.lists(st.tuples(st.sampled_from(TRAFFIC), outcomes, st.integers(1, 900)), min_size=5, max_size=40))
    def traffic(self, script: list[tuple[str, str, int]]) -> None:
        for what, kind, number in script:
            if what == "send" and self.may_send():
                self.send(1 + number % 3, number)
            elif what == "reject" and self.may_send():
                self.send_rejected()
            elif what == "admit" and self.session.wants_admission:
                self.admit_waiting()
            elif what == "finish" and self.in_flight:
                self.finish(number % len(self.in_flight), kind)
            elif what == "late" and self.waiting and not self.every_frame:
                self.drop_too_late()
            elif what == "read":
                self.read_events()
            elif what == "others":
                self.others_wait((0, number, BUDGET)[number % 3])
            self.bounds_hold()

    # The peer.

    def listening(self) -> bool:
        return self.phase in ("open", "draining", "drained") and self.told.closed is None

    def may_end(self) -> bool:
        return self.patience <= 0 and self.session.finished is None and self.phase != "gone"

    def over_credit(self) -> int:
        """Frames that an EVERY_FRAME peer has sent beyond what it was allowed; the others are always within credit."""
        return len(self.read) - max(self.told.credit, self.granted.window) if self.every_frame else -1

    def may_send(self) -> bool:
        if not self.listening() or (self.peer == "obeys" and len(self.read) >= self.told.credit):
            return False
        return self.patience <= 0 or self.over_credit() < self.limits.over_credit

    def send(self, gap: int, size: int) -> None:
        self.next_id += gap
        frame = make_frame(self.next_id, size_bytes=size, received_ns=self.now)
        expected = self.expect(frame)
        action = self.session.receive_frame(frame, self.now)
        if expected is None:
            assert isinstance(action, Ignore)
            self.shut("overrun")
            return
        self.read.add(self.next_id)
        if isinstance(expected, FrameErrorCode):
            assert isinstance(action, ErrorOutcome)
            assert action.code is expected
            self.answers += 1
            return
        assert action == expected
        if isinstance(expected, DropOutcome):
            self.drops[expected] += 1
            return
        if isinstance(expected, Replace):
            assert self.waiting.pop(0) is expected.old
            self.drops[REPLACED] += 1
        self.waiting.append(frame)

    def expect(self, frame: Frame) -> Action | FrameErrorCode | None:
        """What becomes of an arrival; None where it ends the stream."""
        if self.phase != "open":
            return TURNED_AWAY
        if self.over_credit() >= self.limits.over_credit:
            return None
        if (turned_back := self.turned_back()) is not None:
            return turned_back
        if self.every_frame:
            return FrameErrorCode.OVER_CREDIT if self.over_credit() >= 0 else WAIT
        if self.rate is not None and not self.rate.take(self.now):
            return RATE_LIMITED
        if len(self.waiting) < self.granted.depth and self.fits(frame.size_bytes):
            return WAIT
        if self.granted.drop_newest or not self.waiting:
            return QUEUE_FULL
        oldest = self.waiting[0]
        return Replace(oldest) if self.fits(frame.size_bytes - oldest.size_bytes) else QUEUE_FULL

    def turned_back(self) -> Action | FrameErrorCode | None:
        """What an arrival is turned back with for want of an engine: here it is always ready."""
        return None

    def ready(self) -> bool:
        """Whether the engine can take frames."""
        return True

    def fits(self, size: int) -> bool:
        return size <= 0 or self.elsewhere + self.waiting_bytes() + size <= BUDGET

    def waiting_bytes(self) -> int:
        return sum(frame.size_bytes for frame in self.waiting)

    def send_rejected(self) -> None:
        self.next_id += 1
        overrun = self.phase == "open" and self.over_credit() >= self.limits.over_credit
        action = self.session.receive_rejected(self.next_id, FrameErrorCode.TOO_LARGE, "too large", self.now)
        if overrun:
            assert isinstance(action, Ignore)
            self.shut("overrun")
            return
        self.read.add(self.next_id)
        if self.phase == "open":
            assert isinstance(action, ErrorOutcome)
            self.answers += 1
        else:
            assert action == TURNED_AWAY
            self.drops[TURNED_AWAY] += 1

    @precondition(lambda self: self.phase == "open" and self.peer != "obeys")
    @rule(count=st.integers(10, 150), every=st.integers(1, 5), kind=outcomes)
    def flood(self, count: int, every: int, kind: str) -> None:
        """Many frames with no regard for credit; the lane serves one in `every`, behind whatever is in flight."""
        for turn in range(count):
            if not self.may_send():
                return
            self.send(1, 10)
            if turn % every == 0 and self.session.wants_admission:
                self.admit_waiting()
                self.finish(len(self.in_flight) - 1, kind)

    @precondition(lambda self: self.may_end() and self.phase == "open" and self.read)
    @rule(back=st.integers(0, 3))
    def send_out_of_order(self, back: int) -> None:
        before = self.session.ledger.received
        action = self.session.receive_frame(make_frame(max(self.next_id - back, 0)), self.now)
        assert isinstance(action, Ignore)
        assert self.session.ledger.received == before, "a frame that breaks the order is no frame of the stream"
        self.shut("faulted")

    @precondition(lambda self: self.may_end() and self.listening())
    @rule(half=st.booleans())
    def send_end(self, half: bool) -> None:
        self.session.receive_ping(5, self.now)
        self.session.receive_end(self.now)
        self.phase = "ended"
        if half:
            self.session.receive_ping(6, self.now)

    @precondition(lambda self: self.may_end())
    @rule()
    def vanish(self) -> None:
        overflowed = self.session.ledger.drops.get(OVERFLOWED, 0)
        undelivered = self.answers - len(self.told.results) - len(self.told.errors) - overflowed
        self.session.peer_gone(self.now)
        self.cancelled = Counter({CANCELLED_SERVED: undelivered})
        self.cancelled[CANCELLED_WAITING] += len(self.waiting)
        self.waiting.clear()
        self.phase = "gone"

    def read_events(self) -> None:
        if self.peer == "never_reads" and self.phase in ("open", "draining"):
            return
        answered, credit = self.told.answered(), max(self.told.credit, self.granted.window)  # Opened may be unread
        due = self.session.has_due(self.now)
        events = self.session.poll(self.now)
        assert due == bool(events)
        self.told.take(events)
        assert not self.session.has_due(self.now)
        if self.phase != "open":
            return
        if not self.every_frame:
            # Whoever knows less than half a window ahead is told more; the rest may ride with the next event.
            ahead = self.told.credit - len(self.read)
            assert self.told.credit == self.allowed() or ahead >= self.granted.window // 2
        elif self.told.answered() > answered:
            if not self.budget.full:
                credit = self.allowed()
            elif self.told.answered() == len(self.read):
                credit = max(credit, len(self.read) + 1)  # a full budget never stops a stream for good
            assert self.told.credit == credit

    # The server.

    def admit_waiting(self) -> None:
        frame = self.session.admit(self.now)
        assert frame is self.waiting.pop(0), "oldest first"
        self.in_flight.append(frame)
        if self.every_frame and self.rate is not None:
            assert self.rate.take(self.now), "no frame is admitted before its time"

    def finish(self, index: int, kind: str) -> None:
        frame = self.in_flight.pop(index)
        if self.every_frame and kind == "late":
            kind = "result"  # it has no deadline
        outcome = make_outcome(kind)
        self.session.complete(frame, outcome, self.now)
        if self.phase == "gone":
            stage = DropStage.BEFORE_BATCH if kind == "late" else DropStage.AFTER_INFER
            self.cancelled[DropOutcome(DropReason.CANCELLED, stage)] += 1
        elif isinstance(outcome, DropOutcome):
            self.drops[outcome] += 1
        else:
            self.answers += 1

    def drop_too_late(self) -> None:
        assert self.session.drop_waiting(*TOO_LATE, self.now) is self.waiting.pop(0)
        self.drops[TOO_LATE] += 1

    @precondition(lambda self: self.may_end() and self.phase in ("open", "ended"))
    @rule()
    def drain(self) -> None:
        self.session.drain(GRACE_NS, self.now)
        self.drops[DRAINED_WAITING] += len(self.waiting)
        self.waiting.clear()
        if self.phase == "open":
            self.phase = "draining"
            self.grace_end = self.now + GRACE_NS

    def others_wait(self, elsewhere: int) -> None:
        own = self.waiting_bytes()
        self.budget.used = own + min(elsewhere, max(BUDGET - own, 0))
        self.elsewhere = self.budget.used - own

    @rule(step_ms=st.sampled_from([0, 1, 50, 200, 5_000, 15_000]))
    def pass_time(self, step_ms: int) -> None:
        if self.patience > 0:
            step_ms = min(step_ms, 200)
        wakeup = self.session.next_wakeup_ns()
        self.now += step_ms * MS
        state = self.session.state
        due = self.session.has_due(self.now)
        self.session.tick(self.now)
        if wakeup is None or wakeup > self.now:
            assert self.session.state is state, "nothing happens before the announced time"
        elif state is self.session.state:
            assert due or self.session.wants_admission or self.phase != "open", "a wake-up has a reason"
        if self.phase == "draining" and self.now >= self.grace_end:
            self.phase = "drained"
        elif self.phase == "open" and self.session.state is not state:
            assert step_ms == 15_000 or self.now - self.grace_end >= 15_000 * MS
            self.shut("idle")

    def shut(self, phase: str) -> None:
        self.phase = phase
        self.drops[CANCELLED_WAITING] += len(self.waiting)
        self.waiting.clear()

    # What always holds.

    def allowed(self) -> int:
        """The credit that the contract gives, were the budget not full."""
        gone = self.told.answered() if self.every_frame else len(self.read) - len(self.waiting)
        return gone + self.granted.window

    @invariant()
    def patience_runs_out(self) -> None:
        self.patience -= 1

    @invariant()
    def bounds_hold(self) -> None:
        if not self.every_frame:
            assert self.session.outbox_entries <= self.limits.outbox_entries
        assert self.session.outbox_entries <= max(self.limits.outbox_entries, self.granted.window + 64 + 1)
        assert self.session.in_flight == len(self.in_flight) <= self.granted.max_in_flight
        assert self.session.waiting is (self.waiting[0] if self.waiting else None)
        timely = self.rate is None or not self.every_frame or self.now >= self.rate.ready_ns
        room = len(self.in_flight) < self.granted.max_in_flight
        assert self.session.wants_admission == (bool(self.waiting) and room and timely and self.ready())
        assert self.session.frames_in_flight() == sorted(self.in_flight, key=lambda frame: frame.frame_id)
        assert 0 <= self.budget.used == self.elsewhere + self.waiting_bytes()
        assert len(self.waiting) <= (self.granted.window if self.every_frame else self.granted.depth)
        assert len(self.told.runs) <= len(self.read)

    @invariant()
    def credit_is_absolute(self) -> None:
        assert self.told.credit <= max(self.allowed(), self.granted.window)
        if not self.every_frame:
            assert len(self.read) <= self.allowed(), "nobody is ever over credit"
        elif self.phase == "open":
            assert self.over_credit() <= self.limits.over_credit

    @invariant()
    def ledger_is_exact(self) -> None:
        ledger = self.session.ledger
        assert ledger.received == len(self.read)
        assert (ledger.results, ledger.errors) == (len(self.told.results), len(self.told.errors))
        drops = Counter(ledger.drops)
        overflowed = drops.pop(OVERFLOWED, 0)
        expected = self.drops + (self.cancelled if self.phase == "gone" else Counter())
        assert drops == +expected
        assert overflowed <= self.answers - ledger.results - ledger.errors
        if self.phase == "gone":
            ledger.check(len(self.in_flight))

    @invariant()
    def every_frame_loses_nothing_for_want_of_room(self) -> None:
        if self.every_frame:
            reasons = {drop.reason for drop in self.session.ledger.drops}
            assert reasons <= {DropReason.DRAINING, DropReason.CANCELLED}

    @invariant()
    def closed_comes_last_and_in_time(self) -> None:
        session = self.session
        if self.phase == "gone":
            assert (session.finished is not None) == (not self.in_flight)
            return
        assert (session.finished is not None) == (self.told.closed is not None)
        if self.told.closed is None:
            return
        assert not self.in_flight
        self.told.check_closed()
        self.told.check_runs(self.read)
        assert self.told.answered() == len(self.read)
        reasons = {
            "ended": (CloseReason.END, "ok"),
            "drained": (CloseReason.DRAINED, "unavailable"),
            "faulted": (CloseReason.PROTOCOL_ERROR, "invalid_argument"),
            "overrun": (CloseReason.PROTOCOL_ERROR, "resource_exhausted"),
            "idle": (CloseReason.IDLE_TIMEOUT, "idle_timeout"),
        }
        assert session.finished is not None
        assert (session.finished.reason, session.finished.kind) == reasons[self.phase]

    def teardown(self) -> None:
        """Every run ends: the frames in hand come back, the peer reads or is lost, and the account is closed."""
        if not hasattr(self, "session"):
            return
        if self.listening():
            self.send_end(half=False)
        while self.waiting or self.in_flight:
            if self.session.wants_admission:
                self.admit_waiting()
            elif not self.in_flight:
                wakeup = self.session.next_wakeup_ns()
                assert wakeup is not None, "a frame that waits for its time is not forgotten"
                self.now = max(self.now, wakeup)
                self.session.tick(self.now)
                continue
            self.finish(0, "result")
        if self.phase != "gone":
            self.told.take(self.session.poll(self.now))
        self.closed_comes_last_and_in_time()
        assert self.session.finished is not None
        self.session.ledger.check(0)
        assert self.session.poll(self.now) == []
        assert self.session.outbox_entries == 0, "the count that the bound goes by has not drifted"

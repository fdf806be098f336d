"""Any order of messages, admissions, outcomes, reads and clock steps keeps the contract of a stream.

The model keeps what a reader of the contract would: which frame waits, which are in flight, what each was decided to
be. Peers that obey credit, ignore it, never read, break the order or vanish all drive the same session.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.events import (
    CANCELLED_SERVED,
    CANCELLED_WAITING,
    DRAINED_WAITING,
    OVERFLOWED,
    QUEUE_FULL,
    REPLACED,
    TURNED_AWAY,
    WAIT,
    DropOutcome,
    ErrorOutcome,
    Ignore,
    Outcome,
    Replace,
    ResultOutcome,
)
from headworks_server.core.frame import Frame
from headworks_server.core.grant import Grant, grant
from headworks_server.core.limits import SessionLimits
from headworks_server.core.outcomes import CloseReason, DropReason, DropStage, FrameErrorCode
from headworks_server.core.session import StreamSession
from support.streams import MS, Told, make_frame

TOO_LATE = DropOutcome(DropReason.DEADLINE, DropStage.BEFORE_DECODE)
TOO_LATE_IN_BATCH = DropOutcome(DropReason.DEADLINE, DropStage.BEFORE_BATCH)
BUDGET = 1_000
GRACE_NS = 5_000 * MS

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
        max_in_flight=st.integers(1, 8),
        entries=st.sampled_from([64, 12]),
        patience=st.sampled_from([0, 10, 40]),
    )
    def open(self, peer: str, max_in_flight: int, entries: int, patience: int) -> None:
        granted = grant(max_in_flight=max_in_flight)
        assert isinstance(granted, Grant)
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
        self.waiting: Frame | None = None
        self.in_flight: list[Frame] = []
        self.drops: Counter[DropOutcome] = Counter()  # decided otherwise than by overflow or a lost peer
        self.answers = 0  # results and errors that the server has made for a peer that was there
        self.grace_end = 0
        self.phase = "open"  # open, ended, draining, drained, faulted, idle, gone
        self.elsewhere = 0  # waiting bytes of other streams

    # The peer.

    def listening(self) -> bool:
        return self.phase in ("open", "draining", "drained") and self.told.closed is None

    def may_end(self) -> bool:
        return self.patience <= 0 and self.session.finished is None and self.phase != "gone"

    def may_send(self) -> bool:
        return self.listening() and (self.peer != "obeys" or len(self.read) < self.told.credit)

    def send(self, gap: int, size: int) -> None:
        self.next_id += gap
        frame = make_frame(self.next_id, size_bytes=size, received_ns=self.now)
        action = self.session.receive_frame(frame, self.now)
        self.read.add(self.next_id)
        if self.phase != "open":
            assert action == TURNED_AWAY
            self.drops[TURNED_AWAY] += 1
            return
        used = self.elsewhere + (self.waiting.size_bytes if self.waiting else 0)
        grows = size - (self.waiting.size_bytes if self.waiting else 0)
        if grows > 0 and used + grows > BUDGET:
            assert action == QUEUE_FULL
            self.drops[QUEUE_FULL] += 1
        elif self.waiting is None:
            assert action is WAIT
            self.waiting = frame
        else:
            assert isinstance(action, Replace)
            assert action.old is self.waiting
            self.drops[REPLACED] += 1
            self.waiting = frame

    @precondition(lambda self: self.may_send())
    @rule(gap=st.integers(1, 3), size=st.sampled_from([1, 100, 400, 900]))
    def send_frame(self, gap: int, size: int) -> None:
        self.send(gap, size)

    @precondition(lambda self: self.may_send())
    @rule()
    def send_rejected(self) -> None:
        self.next_id += 1
        action = self.session.receive_rejected(self.next_id, FrameErrorCode.TOO_LARGE, "too large", self.now)
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
            self.send(1, 10)
            if turn % every == 0 and self.session.wants_admission:
                self.admit_waiting()
                self.finish(len(self.in_flight) - 1, kind)

    @precondition(lambda self: self.listening())
    @rule(
        script=st.lists(st.tuples(st.sampled_from(["send", "send", "admit", "oldest", "newest"]), outcomes), min_size=3)
    )
    def traffic(self, script: list[tuple[str, str]]) -> None:
        """Arrivals, admissions and outcomes in any order: what a stream does most of the time, in one step."""
        for what, kind in script:
            if what == "send" and self.may_send():
                self.send(1, 10)
            elif what == "admit" and self.session.wants_admission:
                self.admit_waiting()
            elif what in ("oldest", "newest") and self.in_flight:
                self.finish(0 if what == "oldest" else -1, kind)

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
        if self.waiting:
            self.cancelled[CANCELLED_WAITING] += 1
            self.waiting = None
        self.phase = "gone"

    @rule()
    def read_events(self) -> None:
        if self.peer == "never_reads" and self.phase in ("open", "draining"):
            return
        due = self.session.has_due(self.now)
        events = self.session.poll(self.now)
        assert due == bool(events)
        self.told.take(events)
        assert not self.session.has_due(self.now)
        # Whoever knows less than half a window ahead is told more; the rest may ride with the next event.
        if self.phase == "open":
            ahead = self.told.credit - len(self.read)
            assert self.told.credit == self.allowed() or ahead >= self.granted.window // 2

    # The server.

    def admit_waiting(self) -> None:
        frame = self.session.admit(self.now)
        assert frame is self.waiting
        self.in_flight.append(frame)
        self.waiting = None

    def finish(self, index: int, kind: str) -> None:
        frame = self.in_flight.pop(index)
        outcome = make_outcome(kind)
        self.session.complete(frame, outcome, self.now)
        if self.phase == "gone":
            stage = DropStage.BEFORE_BATCH if kind == "late" else DropStage.AFTER_INFER
            self.cancelled[DropOutcome(DropReason.CANCELLED, stage)] += 1
        elif isinstance(outcome, DropOutcome):
            self.drops[outcome] += 1
        else:
            self.answers += 1

    @precondition(lambda self: self.session.wants_admission)
    @rule()
    def admit(self) -> None:
        self.admit_waiting()

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), kind=outcomes)
    def complete(self, data: st.DataObject, kind: str) -> None:
        self.finish(data.draw(st.integers(0, len(self.in_flight) - 1)), kind)

    @precondition(lambda self: self.waiting is not None)
    @rule()
    def drop_too_late(self) -> None:
        assert self.session.drop_waiting(*TOO_LATE, self.now) is self.waiting
        self.waiting = None
        self.drops[TOO_LATE] += 1

    @precondition(lambda self: self.may_end() and self.phase in ("open", "ended"))
    @rule()
    def drain(self) -> None:
        self.session.drain(GRACE_NS, self.now)
        if self.waiting:
            self.drops[DRAINED_WAITING] += 1
            self.waiting = None
        if self.phase == "open":
            self.phase = "draining"
            self.grace_end = self.now + GRACE_NS

    @rule(elsewhere=st.integers(0, BUDGET))
    def others_wait(self, elsewhere: int) -> None:
        own = self.waiting.size_bytes if self.waiting else 0
        self.budget.used = own + min(elsewhere, BUDGET - own)
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
            assert due, "a wake-up has a reason"
        if self.phase == "draining" and self.now >= self.grace_end:
            self.phase = "drained"
        elif self.phase == "open" and self.session.state is not state:
            assert step_ms == 15_000 or self.now - self.grace_end >= 15_000 * MS
            self.shut("idle")

    def shut(self, phase: str) -> None:
        self.phase = phase
        if self.waiting:
            self.drops[CANCELLED_WAITING] += 1
            self.waiting = None

    # What always holds.

    def allowed(self) -> int:
        return len(self.read) - (self.waiting is not None) + self.granted.window

    @invariant()
    def patience_runs_out(self) -> None:
        self.patience -= 1

    @invariant()
    def bounds_hold(self) -> None:
        assert self.session.outbox_entries <= self.limits.outbox_entries
        assert self.session.in_flight == len(self.in_flight) <= self.granted.max_in_flight
        assert self.session.waiting is self.waiting
        assert self.session.frames_in_flight() == sorted(self.in_flight, key=lambda frame: frame.frame_id)
        assert 0 <= self.budget.used == self.elsewhere + (self.waiting.size_bytes if self.waiting else 0)
        assert len(self.told.runs) <= len(self.read)

    @invariant()
    def credit_is_absolute(self) -> None:
        assert self.told.credit <= max(self.allowed(), self.granted.window)
        assert len(self.read) <= self.allowed(), "under LATEST nobody is ever over credit"

    @invariant()
    def ledger_is_exact(self) -> None:
        ledger = self.session.ledger
        assert ledger.received == len(self.read)
        assert (ledger.results, ledger.errors) == (len(self.told.results), len(self.told.errors))
        drops = Counter(ledger.drops)
        overflowed = drops.pop(OVERFLOWED, 0)
        expected = self.drops + (self.cancelled if self.phase == "gone" else Counter())
        assert drops == expected
        assert overflowed <= self.answers - ledger.results - ledger.errors
        if self.phase == "gone":
            ledger.check(len(self.in_flight))

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
            self.finish(0, "result")
        if self.phase != "gone":
            self.told.take(self.session.poll(self.now))
        self.closed_comes_last_and_in_time()
        assert self.session.finished is not None
        self.session.ledger.check(0)
        assert self.session.poll(self.now) == []
        assert self.session.outbox_entries == 0, "the count that the bound goes by has not drifted"


SessionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestSessionMachine = SessionMachine.TestCase

"""One stream by the contract, without I/O: messages, outcomes and `now_ns` in; actions and events out.

The rpc room feeds what it reads and writes what `poll` hands out; admission takes the waiting frame; the runtime
brings outcomes back. The session owns the stream's mailbox, outbox, ledger and credit. One thread, no locks.
What a message does is told by the table in states.py; a message that is absent from it is a protocol error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.control import ControlQueue
from headworks_server.core.credit import Credit
from headworks_server.core.events import (
    CANCELLED_SERVED,
    CANCELLED_WAITING,
    DRAINED_WAITING,
    IGNORE,
    LOADING_WAITING,
    QUEUE_FULL,
    REPLACED,
    SHUT_DOWN,
    TURNED_AWAY,
    WAIT,
    Action,
    ClosedEvent,
    CloseStatus,
    CreditEvent,
    DropOutcome,
    ErrorOutcome,
    Event,
    FrameErrorEvent,
    NoticeEvent,
    NoticeKind,
    OpenedEvent,
    Outcome,
    Replace,
    ResultOutcome,
)
from headworks_server.core.facts import ModelFacts
from headworks_server.core.frame import Frame
from headworks_server.core.gate import Gate
from headworks_server.core.grant import Grant
from headworks_server.core.ledger import Ledger
from headworks_server.core.limits import NS_PER_MS, SessionLimits
from headworks_server.core.mailbox import LatestMailbox, Mailbox, make_mailbox
from headworks_server.core.outbox import Outbox, frames_of
from headworks_server.core.outcomes import CloseReason, DropReason, DropStage, FrameErrorCode
from headworks_server.core.readiness import Readiness
from headworks_server.core.states import CLOSING_STATES, TRANSITIONS, Input, State, out_of_place


class StreamSession:
    """The state of one stream.

    Attributes:
        stream_id: the server's number for the stream.
        state: where the stream stands.
        grant: what was granted; the default until Open.
        ledger: frames by outcome so far.
        in_flight: frames admitted and without an outcome.
        closing: whether Closed goes out as soon as no frame is without an outcome.
        finished: how the stream ended: set once Closed was handed out, or the peer is gone and no frame is in flight.
    """

    __slots__ = (
        "_budget",
        "_control",
        "_credit",
        "_gate",
        "_grace_end_ns",
        "_last_frame_id",
        "_last_read_ns",
        "_limits",
        "_mailbox",
        "_outbox",
        "_row",
        "_status",
        "closing",
        "finished",
        "grant",
        "in_flight",
        "ledger",
        "state",
        "stream_id",
    )

    def __init__(
        self, stream_id: int, *, now_ns: int, budget: WaitingBytes, limits: SessionLimits | None = None
    ) -> None:
        self.stream_id = stream_id
        self.grant = Grant()
        self.ledger = Ledger()
        self.in_flight = 0
        self.finished: CloseStatus | None = None
        self._limits = limits if limits is not None else SessionLimits()
        self._budget = budget
        self._mailbox: Mailbox = LatestMailbox(budget)
        self._outbox = Outbox(self.ledger, limit=self._limits.outbox_entries, drop_delay_ns=self._limits.drop_delay_ns)
        self._control, self._credit, self._gate = ControlQueue(), Credit(), Gate()
        self._status = CloseStatus(CloseReason.END, "ok")
        self._last_frame_id, self._last_read_ns, self._grace_end_ns = -1, now_ns, 0
        self._enter(State.AWAITING_OPEN)

    # What the client sends.

    def receive_open(self, grant: Grant, now_ns: int) -> None:
        """Open the stream as granted."""
        self._last_read_ns = now_ns
        self._apply(Input.OPEN, now_ns, grant)

    def receive_frame(self, frame: Frame, now_ns: int) -> Action:
        """Take a frame. The action says what became of it; whatever is to be told comes by `poll`."""
        self._last_read_ns = now_ns
        transition = self._row.get(Input.FRAME)
        if transition is None:
            return self._misplaced(Input.FRAME, now_ns)
        # No frame moves the stream by itself, so the next state needs no look.
        action: Action = transition[0](self, now_ns, frame)
        return action

    def receive_rejected(self, frame_id: int, code: FrameErrorCode, detail: str, now_ns: int) -> Action:
        """Take a frame that cannot be served as it came, such as one over the size limit."""
        self._last_read_ns = now_ns
        action: Action = self._apply(Input.REJECTED, now_ns, frame_id, ErrorOutcome(code, detail))
        return action

    def receive_ping(self, nonce: int, now_ns: int) -> None:
        """Answer a Ping at once."""
        self._last_read_ns = now_ns
        self._apply(Input.PING, now_ns, nonce)

    def receive_end(self, now_ns: int) -> None:
        """No frame follows."""
        self._last_read_ns = now_ns
        self._apply(Input.END, now_ns)

    def protocol_error(self, detail: str, now_ns: int) -> None:
        """End the stream because what was read cannot be understood."""
        self._apply(Input.FAULT, now_ns, CloseStatus(CloseReason.PROTOCOL_ERROR, "invalid_argument", detail))

    def peer_gone(self, now_ns: int) -> None:
        """The call is broken or cancelled: every frame in hand becomes CANCELLED."""
        self._apply(Input.PEER_GONE, now_ns)

    # What the server does.

    @property
    def wants_admission(self) -> bool:
        """Whether a frame waits, there is room in flight, and its time has come."""
        return self._mailbox.waiting is not None and self.in_flight < self._gate.limit

    @property
    def waiting(self) -> Frame | None:
        """The frame that is admitted next."""
        return self._mailbox.waiting

    @property
    def outbox_entries(self) -> int:
        """Outcomes in hand, told to nobody yet; a run of drops is one."""
        return self._outbox.entries

    def frames_in_flight(self) -> list[Frame]:
        """The admitted frames without an outcome, oldest first: whom to cancel when the peer is gone."""
        return [frame for frame in self._outbox.pending if frame.admitted_ns]

    def admit(self, now_ns: int) -> Frame:
        """Commit the frame that is next: from now on it is in flight. Only while `wants_admission`."""
        frame = self._mailbox.take()
        if frame is None:
            raise ValueError(f"stream {self.stream_id} has no frame to admit")
        frame.admitted_ns = now_ns
        self.in_flight += 1
        credit = self._credit
        credit.allowed += credit.per_leave
        if self._gate.guarded:
            self._gate.admitted(now_ns)
        return frame

    def drop_waiting(self, reason: DropReason, stage: DropStage, now_ns: int) -> Frame | None:
        """Drop the frame that is next and return it, if there is one."""
        return self._drop_next(DropOutcome(reason, stage), now_ns)

    def complete(self, frame: Frame, outcome: Outcome, now_ns: int) -> None:
        """Give an admitted frame its outcome. The outcome object is the session's from now on.

        Raises:
            ValueError: if the frame has its outcome already.
        """
        outbox = self._outbox
        if self.state is State.GONE:
            stage = outcome.stage if isinstance(outcome, DropOutcome) else CANCELLED_SERVED.stage
            outbox.cancel(frame, DropOutcome(DropReason.CANCELLED, stage))
            self.in_flight -= 1
            self._finish_gone()
            return
        if isinstance(outcome, ResultOutcome):
            outcome.frame_id = frame.frame_id
            outbox.answer(frame, outcome)
        elif isinstance(outcome, DropOutcome):
            outbox.drop(frame, outcome, now_ns)
        else:
            outbox.answer(frame, FrameErrorEvent(frame.frame_id, outcome.code, outcome.detail))
        self.in_flight -= 1

    def notice(self, kind: NoticeKind, now_ns: int, *, detail: str = "", model: str = "") -> None:
        """Tell the client of a change; ignored where there is nobody to tell. Of one kind the last unread counts."""
        if Input.NOTICE in self._row:
            self._apply(Input.NOTICE, now_ns, NoticeEvent(kind, detail=detail, model=model))

    def engine_changed(self, readiness: Readiness, now_ns: int, *, detail: str = "") -> None:
        """Take in that the model's engine has come or gone; `detail` says what failed. The caller offers the stream."""
        if (readiness, detail) != (self._gate.readiness, self._gate.failure) and Input.ENGINE in self._row:
            self._apply(Input.ENGINE, now_ns, readiness, detail)

    def model_changed(self, facts: ModelFacts, now_ns: int) -> None:
        """Tell the client that another model serves it, from the next frame that is admitted on."""
        first = frame.frame_id if (frame := self._mailbox.waiting) is not None else self._last_frame_id + 1
        if Input.NOTICE in self._row:
            self._apply(Input.NOTICE, now_ns, NoticeEvent(NoticeKind.MODEL_CHANGED, "", 0, facts.name, first, facts))

    def drain(self, grace_ns: int, now_ns: int) -> None:
        """Begin to shut the stream down: see State.DRAINING."""
        if Input.DRAIN in self._row:
            self._apply(Input.DRAIN, now_ns, grace_ns)

    def tick(self, now_ns: int) -> None:
        """Let time pass: idleness, the end of the grace, and the time of a frame that waits for its rate."""
        self._gate.keep_pace(now_ns)
        if Input.IDLE in self._row and now_ns - self._last_read_ns >= self._limits.idle_ns:
            self._apply(Input.IDLE, now_ns)
        elif Input.GRACE_OVER in self._row and now_ns >= self._grace_end_ns:
            self._apply(Input.GRACE_OVER, now_ns)

    # What the client is told.

    def has_due(self, now_ns: int) -> bool:
        """Whether `poll` would hand out something."""
        return (
            self._outbox.has_due(now_ns)
            or bool(self._control.events)
            or (self.state is State.OPEN and self._credit.worth_telling(self.ledger.received, rides=False))
            or (self.closing and not self._outbox.pending)
        )

    def poll(self, now_ns: int) -> list[Event]:
        """Hand out the events that are due, in order. They count as told."""
        closed = self.closing and not self._outbox.pending
        outbox, credit, received = self._outbox, self._credit, self.ledger.received
        entries = outbox.take(now_ns, flush=closed)
        events: list[Event] = [*self._control.take(), *entries] if self._control.events else entries  # type: ignore[assignment]
        # Credit stops with End, drain or fault.
        if self.state is State.OPEN:
            if not credit.per_leave and entries:
                idle = not outbox.pending
                credit.written(frames_of(entries), received=received, idle=idle, full=self._budget.full)
            if credit.worth_telling(received, rides=bool(events)):
                credit.told = credit.allowed
                events.append(CreditEvent(credit.allowed))
        if closed:
            self.ledger.check(0)
            events.append(ClosedEvent(self.ledger, self._status.reason, self._status.detail))
            self.finished = self._status
            self._enter(State.CLOSED)
        return events

    def next_wakeup_ns(self) -> int | None:
        """When to call `tick` and look at `has_due` again though nothing happened; None for never."""
        wakeup = self._outbox.run_due_ns()
        if self._mailbox.waiting is not None and (opens_ns := self._gate.opens_ns()) is not None:
            wakeup = opens_ns if wakeup is None else min(wakeup, opens_ns)
        if Input.IDLE in self._row:
            timer = self._last_read_ns + self._limits.idle_ns
        elif Input.GRACE_OVER in self._row:
            timer = self._grace_end_ns
        else:
            return wakeup
        return timer if wakeup is None or timer < wakeup else wakeup

    # Transitions. Each method is called in its next state.

    def _enter(self, state: State) -> None:
        self.state = state
        self._row = _ROWS[state]
        self.closing = state in CLOSING_STATES

    def _apply(self, what: Input, now_ns: int, *arguments: Any) -> Any:
        transition = self._row.get(what)
        if transition is None:
            return self._misplaced(what, now_ns)
        method, state = transition
        if state is not self.state:
            self._enter(state)
        return method(self, now_ns, *arguments)

    def _misplaced(self, what: Input, now_ns: int) -> Action:
        self.protocol_error(out_of_place(self.state, what), now_ns)
        return IGNORE

    def _ignore(self, _now_ns: int, *_arguments: Any) -> Action:
        return IGNORE

    def _open(self, _now_ns: int, grant: Grant) -> None:
        self.grant = grant
        self._gate.open(grant)
        self._mailbox = make_mailbox(grant, self._budget)
        if self._gate.patient:
            # Outcomes in hand are of frames received and not written: at most the window and what may come over
            # credit, and a run of frames that a drain turns away. So nothing is ever merged away.
            self._outbox.limit = max(self._outbox.limit, grant.window + self._limits.over_credit + 1)
        allowed = self._credit.open(grant.window, every_frame=self._gate.patient)
        self._control.append_opened(OpenedEvent(grant, allowed))

    def _counts(self, frame_id: int, now_ns: int) -> bool:
        """Count an arrival, unless it breaks the order or the credit: then it is no frame of this stream."""
        if frame_id <= self._last_frame_id:
            detail = f"frame_id must increase: expected more than {self._last_frame_id}, got {frame_id}"
            self.protocol_error(detail, now_ns)
            return False
        ledger = self.ledger
        # Under LATEST and BOUNDED an arrival always makes room, so that a client that ignores credit stays within it.
        if ledger.received - self._credit.allowed >= self._limits.over_credit and self.state is State.OPEN:
            detail = f"{self._limits.over_credit + 1} frames over the credit of {self._credit.allowed}"
            self._apply(Input.FAULT, now_ns, CloseStatus(CloseReason.PROTOCOL_ERROR, "resource_exhausted", detail))
            return False
        self._last_frame_id = frame_id
        ledger.received += 1
        return True

    def _accept(self, now_ns: int, frame: Frame) -> Action:
        if not self._counts(frame.frame_id, now_ns):
            return IGNORE
        if self._gate.guarded and (turned_back := self._turned_back(now_ns, frame)) is not None:
            return turned_back
        if self.grant.deadline_ns:
            frame.deadline_ns = frame.received_ns + self.grant.deadline_ns
        left = self._mailbox.offer(frame)
        if left is None:
            self._outbox.pending.append(frame)
            return WAIT
        self._credit.allowed += 1  # EVERY_FRAME leaves none without a place
        if left is frame:
            self._outbox.drop_arrival(frame.frame_id, QUEUE_FULL, now_ns)
            return QUEUE_FULL
        self._outbox.pending.append(frame)
        self._outbox.drop(left, REPLACED, now_ns)
        return Replace(left)

    def _turned_back(self, now_ns: int, frame: Frame) -> Action | None:
        """What became of an arrival that the gate turns back, or that is over credit under EVERY_FRAME; else None."""
        turned_back = self._gate.turn_back(now_ns)
        allowed, received = self._credit.allowed, self.ledger.received
        if turned_back is None:
            if not self._gate.patient or received <= allowed:
                return None
            detail = f"frame {frame.frame_id}: expected at most {allowed} frames by the credit given, got {received}"
            turned_back = ErrorOutcome(FrameErrorCode.OVER_CREDIT, detail)
        self._credit.allowed += self._credit.per_leave
        if isinstance(turned_back, ErrorOutcome):
            self._outbox.answer_arrival(FrameErrorEvent(frame.frame_id, turned_back.code, turned_back.detail))
        else:
            self._outbox.drop_arrival(frame.frame_id, turned_back, now_ns)
        return turned_back

    def _engine(self, now_ns: int, readiness: Readiness, detail: str) -> None:
        self._gate.engine_changed(readiness, detail, now_ns)
        if readiness is Readiness.FAILED:
            while (frame := self._mailbox.take()) is not None:
                self._credit.allowed += self._credit.per_leave
                self._outbox.answer(frame, FrameErrorEvent(frame.frame_id, FrameErrorCode.ENGINE_FAILED, detail))
        elif readiness is Readiness.LOADING and not self._gate.patient:
            self._drop_all(LOADING_WAITING, now_ns)

    def _reject(self, now_ns: int, frame_id: int, error: ErrorOutcome) -> Action:
        if not self._counts(frame_id, now_ns):
            return IGNORE
        self._credit.allowed += self._credit.per_leave
        self._outbox.answer_arrival(FrameErrorEvent(frame_id, error.code, error.detail))
        return error

    def _turn_away(self, now_ns: int, frame: Frame) -> Action:
        return self._turn_away_rejected(now_ns, frame.frame_id)

    def _turn_away_rejected(self, now_ns: int, frame_id: int, _error: ErrorOutcome | None = None) -> Action:
        if not self._counts(frame_id, now_ns):
            return IGNORE
        self._outbox.drop_arrival(frame_id, TURNED_AWAY, now_ns)
        return TURNED_AWAY

    def _pong(self, _now_ns: int, nonce: int) -> None:
        self._control.append_pong(nonce)

    def _end(self, _now_ns: int) -> None:
        self._status = CloseStatus(CloseReason.END, "ok")

    def _tell(self, _now_ns: int, notice: NoticeEvent) -> None:
        self._control.append_notice(notice)

    def _drain(self, now_ns: int, grace_ns: int) -> None:
        self._status = SHUT_DOWN
        self._grace_end_ns = now_ns + grace_ns
        self._tell(now_ns, NoticeEvent(NoticeKind.DRAINING, SHUT_DOWN.detail, grace_ms=grace_ns // NS_PER_MS))
        self._drop_all(DRAINED_WAITING, now_ns)

    def _drain_ending(self, now_ns: int, _grace_ns: int) -> None:
        # The client has ended already and needs no notice; only what is in flight still finishes.
        self._drop_all(DRAINED_WAITING, now_ns)

    def _drain_unopened(self, _now_ns: int, _grace_ns: int) -> None:
        self._status = SHUT_DOWN

    def _fault(self, now_ns: int, status: CloseStatus) -> None:
        self._status = status
        self._drop_all(CANCELLED_WAITING, now_ns)

    def _idle(self, now_ns: int) -> None:
        detail = f"nothing was read for {self._limits.idle_ns / 1e9:g} s"
        self._fault(now_ns, CloseStatus(CloseReason.IDLE_TIMEOUT, "idle_timeout", detail))

    def _abandon(self, _now_ns: int) -> None:
        self._status = CloseStatus(CloseReason.CANCELLED, "cancelled", "the peer is gone")
        self._outbox.abandon()
        while (waiting := self._mailbox.take()) is not None:
            self._outbox.cancel(waiting, CANCELLED_WAITING)
        self._control.take()
        self._finish_gone()

    def _finish_gone(self) -> None:
        if self.in_flight == 0:
            self.ledger.check(0)
            self.finished = self._status

    def _drop_next(self, drop: DropOutcome, now_ns: int) -> Frame | None:
        frame = self._mailbox.take()
        if frame is not None:
            self._credit.allowed += self._credit.per_leave
            self._outbox.drop(frame, drop, now_ns)
        return frame

    def _drop_all(self, drop: DropOutcome, now_ns: int) -> None:
        while self._drop_next(drop, now_ns) is not None:
            pass


_ROWS: dict[State, dict[Input, tuple[Callable[..., Any], State]]] = {state: {} for state in State}
for (_state, _what), (_method, _to) in TRANSITIONS.items():
    _ROWS[_state][_what] = (getattr(StreamSession, _method), _to)

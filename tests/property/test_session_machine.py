"""Any order of messages, admissions, outcomes, reads and clock steps keeps the contract of a stream, under each policy,
while its engine is ready, and while it comes, goes and fails."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from headworks_server.core.events import LOADING_ARRIVAL, LOADING_WAITING, Action
from headworks_server.core.outcomes import FrameErrorCode
from headworks_server.core.readiness import Readiness
from support.session_machine import SessionMachine


class EngineMachine(SessionMachine):
    """The same, with an engine that is not always there: no policy loses a frame untold, and a file's frames wait."""

    readiness = Readiness.READY

    @precondition(lambda self: self.phase in ("open", "ended") and self.session.finished is None)
    @rule(readiness=st.sampled_from(Readiness))
    def engine_changes(self, readiness: Readiness) -> None:
        changed, self.readiness = readiness is not self.readiness, readiness
        self.session.engine_changed(readiness, self.now, detail="its file is gone")
        if not changed or self.ready():
            return
        if readiness is Readiness.FAILED:
            self.answers += len(self.waiting)
        elif self.every_frame:
            return
        else:
            self.drops[LOADING_WAITING] += len(self.waiting)
        self.waiting.clear()

    def turned_back(self) -> Action | FrameErrorCode | None:
        if self.readiness is Readiness.FAILED:
            return FrameErrorCode.ENGINE_FAILED
        return LOADING_ARRIVAL if self.readiness is Readiness.LOADING and not self.every_frame else None

    def ready(self) -> bool:
        return self.readiness is Readiness.READY

    def teardown(self) -> None:
        """In the end it is loaded: what has waited for it is served."""
        if hasattr(self, "session") and self.phase in ("open", "ended") and self.session.finished is None:
            self.readiness = Readiness.READY
            self.session.engine_changed(Readiness.READY, self.now)
        super().teardown()


SessionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestSessionMachine = SessionMachine.TestCase
EngineMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestEngineMachine = EngineMachine.TestCase

"""What a stream does while its model's engine is not there, policy by policy, and when another model takes over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headworks_server.core.budget import WaitingBytes
from headworks_server.core.events import (
    LOADING_ARRIVAL,
    WAIT,
    CreditEvent,
    DroppedEvent,
    ErrorOutcome,
    FrameErrorEvent,
    NoticeEvent,
    NoticeKind,
    ResultOutcome,
)
from headworks_server.core.grant import Grant, Policy, grant
from headworks_server.core.outcomes import DropReason, DropStage, FrameErrorCode
from headworks_server.core.readiness import Readiness
from headworks_server.core.session import StreamSession
from support.served import model_facts
from support.streams import MS, make_frame


def opened(policy: Policy = Policy.LATEST, **asked: float) -> StreamSession:
    session = StreamSession(1, now_ns=0, budget=WaitingBytes(1 << 20))
    granted = grant(policy=policy, depth=3 if policy is Policy.BOUNDED else 0, **asked)  # type: ignore[arg-type]
    assert isinstance(granted, Grant)
    session.receive_open(granted, 0)
    session.poll(0)
    return session


@pytest.mark.parametrize("policy", [Policy.LATEST, Policy.BOUNDED])
def test_a_live_camera_loses_frames_while_its_model_loads_and_hears_why(policy: Policy) -> None:
    """Those that waited are dropped, those that come too; credit goes on, so that the camera need not stop."""
    session = opened(policy)
    assert session.receive_frame(make_frame(1), 0) is WAIT
    session.engine_changed(Readiness.LOADING, 0)
    assert not session.wants_admission
    assert session.receive_frame(make_frame(2), 0) == LOADING_ARRIVAL
    events = session.poll(300 * MS)
    (run,) = (event for event in events if isinstance(event, DroppedEvent))
    assert (run.first, run.last) == (1, 2)
    assert run.triples() == [
        (DropReason.MODEL_LOADING, DropStage.BEFORE_DECODE, 1),
        (DropReason.MODEL_LOADING, DropStage.INGRESS, 1),
    ]
    assert any(isinstance(event, CreditEvent) for event in events)
    session.engine_changed(Readiness.READY, 0)
    assert session.receive_frame(make_frame(3), 0) is WAIT
    assert session.wants_admission


def test_the_frames_of_a_file_wait_for_the_model_and_none_is_lost() -> None:
    """EVERY_FRAME: credit is withheld instead."""
    session = opened(Policy.EVERY_FRAME)
    session.engine_changed(Readiness.LOADING, 0)
    assert [session.receive_frame(make_frame(number), 0) for number in (1, 2)] == [WAIT, WAIT]
    assert not session.wants_admission
    assert session.poll(10_000 * MS) == []
    session.engine_changed(Readiness.READY, 0)
    assert session.wants_admission


def test_a_paced_stream_sleeps_while_its_model_loads() -> None:
    """A time that has come is no reason to wake up for a frame that cannot be served."""
    session = opened(Policy.EVERY_FRAME, max_fps=10)
    for number in (1, 2, 3):
        session.receive_frame(make_frame(number), 0)
    while session.wants_admission:
        session.admit(0)
    before_ns = session.next_wakeup_ns()
    assert before_ns is not None
    assert before_ns < 1_000 * MS
    session.engine_changed(Readiness.LOADING, 0)
    assert session.next_wakeup_ns() == 15_000 * MS
    session.engine_changed(Readiness.READY, 5_000 * MS)
    assert session.wants_admission


@pytest.mark.parametrize("policy", list(Policy))
def test_frames_of_a_model_that_failed_to_load_fail_with_the_cause(policy: Policy) -> None:
    """Each has its outcome at once, under every policy: nothing waits for what does not come."""
    session = opened(policy)
    session.receive_frame(make_frame(1), 0)
    session.engine_changed(Readiness.FAILED, 0, detail="no such file")
    action = session.receive_frame(make_frame(2), 0)
    assert action == ErrorOutcome(FrameErrorCode.ENGINE_FAILED, "no such file")
    errors = [event for event in session.poll(0) if isinstance(event, FrameErrorEvent)]
    assert [(error.frame_id, error.detail) for error in errors] == [(1, "no such file"), (2, "no such file")]
    session.receive_end(0)
    session.poll(0)
    assert session.finished is not None


def test_what_is_in_a_lane_when_the_engine_goes_is_served_all_the_same() -> None:
    """An engine leaves the lanes behind its frames."""
    session = opened()
    session.receive_frame(make_frame(1), 0)
    frame = session.admit(0)
    session.engine_changed(Readiness.LOADING, 0)
    session.complete(frame, ResultOutcome(b"entry"), 0)
    assert any(isinstance(event, ResultOutcome) for event in session.poll(0))


def test_end_waits_for_the_frames_that_wait_for_the_model() -> None:
    """Rule 1: all before End get their outcome."""
    session = opened(Policy.EVERY_FRAME)
    session.engine_changed(Readiness.LOADING, 0)
    session.receive_frame(make_frame(1), 0)
    session.receive_end(0)
    assert session.poll(0) == []
    session.engine_changed(Readiness.READY, 0)
    session.complete(session.admit(0), ResultOutcome(b"entry"), 0)
    session.poll(0)
    assert session.finished is not None


@pytest.mark.parametrize("waits", [True, False])
def test_a_change_of_the_model_names_the_first_frame_of_the_new_one(waits: bool) -> None:
    """The one that is admitted next: what is in a lane comes from the old one, whenever it comes."""
    session = opened()
    session.receive_frame(make_frame(4), 0)
    session.admit(0)
    if waits:
        session.receive_frame(make_frame(9), 0)
    session.model_changed(model_facts(), 0)
    (notice,) = (event for event in session.poll(0) if isinstance(event, NoticeEvent))
    assert notice == NoticeEvent(
        NoticeKind.MODEL_CHANGED, model="players", first_frame_id=9 if waits else 5, facts=model_facts()
    )


def test_changes_of_the_model_that_nobody_has_read_yet_are_all_told() -> None:
    """Results of each may be on their way, and are named by its labels; a client that never reads is told the last."""
    session = opened()
    for generation in range(1, 12):
        session.model_changed(replace(model_facts(), generation=generation), 0)
    told = [event.facts for event in session.poll(0) if isinstance(event, NoticeEvent)]
    assert [facts.generation for facts in told if facts is not None] == list(range(4, 12))


def test_another_cause_of_a_failure_is_told() -> None:
    """The second load of a model may fail of something else than the first."""
    session = opened()
    session.engine_changed(Readiness.FAILED, 0, detail="no such file")
    session.engine_changed(Readiness.FAILED, 0, detail="no memory")
    assert session.receive_frame(make_frame(1), 0) == ErrorOutcome(FrameErrorCode.ENGINE_FAILED, "no memory")

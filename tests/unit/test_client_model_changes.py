"""The labels of results while what serves a stream changes: each result is named by the model that made it."""

from __future__ import annotations

from headworks.outcomes import Notice, Result
from headworks.reconnect import StreamSupervisor
from headworks.session import KEPT_LABELS, ClientSession
from headworks.v1 import frame_pb2 as pb
from support.client_events import OPEN, frame, notice, sent_id
from support.supervised import CUT, supervise


def info(generation: int) -> pb.ModelInfo:
    return pb.ModelInfo(name="players", version="1", generation=generation, labels=[f"label of {generation}"])


def open_session() -> ClientSession:
    session = ClientSession(OPEN)
    session.poll(0)
    session.receive(pb.ServerEvent(opened=pb.Opened(frames_allowed=1000, models=[info(1)])), 0)
    return session


def change(session: ClientSession, generation: int, first_frame_id: int) -> Notice:
    kind = pb.Notice.KIND_MODEL_CHANGED
    told = pb.Notice(kind=kind, generation=generation, first_frame_id=first_frame_id, model_info=info(generation))
    notice = session.receive(pb.ServerEvent(notice=told), 0)
    assert isinstance(notice, Notice)
    return notice


def label(session: ClientSession, frame_id: int, generation: int) -> str:
    """Send a frame, and return the label of what a generation finds in it."""
    session.offer(frame(frame_id))
    assert sent_id(session) == frame_id
    boxes = pb.Detections(detections=[pb.Detection(class_id=0)])
    output = pb.Output(model="players", generation=generation, detections=boxes)
    outcome = session.receive(pb.ServerEvent(result=pb.Result(frame_id=frame_id, outputs=[output])), 0)
    assert isinstance(outcome, Result)
    return outcome.detections[0].label


def test_a_result_is_named_by_the_model_that_made_it() -> None:
    """The notice comes before the last results of the old model: those keep its labels."""
    session = open_session()
    assert label(session, 1, 1) == "label of 1"
    notice = change(session, 2, 3)
    assert notice.model_info is not None
    assert (notice.kind, notice.first_frame_id, notice.model_info.labels) == ("MODEL_CHANGED", 3, ("label of 2",))
    assert label(session, 2, 1) == "label of 1"
    assert label(session, 3, 2) == "label of 2"


def test_a_model_that_was_never_told_has_no_labels() -> None:
    """A wrong name would be worse than the number of the class: of several changes unread the last is told."""
    session = open_session()
    change(session, 3, 1)
    assert label(session, 1, 2) == "0"


def test_the_labels_of_the_last_generations_are_kept() -> None:
    """As many as results may still be on their way of, however often a model is swapped."""
    session = open_session()
    for generation in range(2, 100):
        change(session, generation, 1)
    assert label(session, 1, 99) == "label of 99"
    assert label(session, 2, 100 - KEPT_LABELS) == f"label of {100 - KEPT_LABELS}"
    assert label(session, 3, 99 - KEPT_LABELS) == "0"


def served(supervisor: StreamSupervisor) -> list[int]:
    assert supervisor.opened is not None
    return [model.generation for model in supervisor.opened.models]


def connect(supervisor: StreamSupervisor, generation: int) -> ClientSession:
    session = supervisor.connect(supervisor.next_connect_ns or 0)
    session.poll(0)
    supervisor.receive(session, pb.ServerEvent(opened=pb.Opened(frames_allowed=9, models=[info(generation)])), 0)
    return session


def changed(generation: int) -> pb.ServerEvent:
    return pb.ServerEvent(notice=pb.Notice(kind=pb.Notice.KIND_MODEL_CHANGED, model_info=info(generation)))


def test_opened_tells_the_models_as_they_are_now() -> None:
    """After a notice its model; after a reconnect what the new server granted, though its generation is lower."""
    supervisor = supervise("a:1")
    first = connect(supervisor, 4)
    supervisor.receive(first, changed(5), 0)
    assert served(supervisor) == [5]
    supervisor.ended(first, CUT, 0)
    connect(supervisor, 1)
    assert served(supervisor) == [1]


def test_a_draining_server_does_not_change_the_models_of_the_next_one() -> None:
    """Its last notices are about its own last results."""
    supervisor = supervise("a:1", "b:1")
    old = connect(supervisor, 4)
    supervisor.receive(old, notice(pb.Notice.KIND_DRAINING), 0)
    connect(supervisor, 1)
    supervisor.receive(old, changed(5), 0)
    assert served(supervisor) == [1]


def test_a_notice_says_itself_in_one_line() -> None:
    """What `headworks stream` prints, and what is logged where nobody asked for notices."""
    session = open_session()
    said = "the server says MODEL_CHANGED to players version 1 (generation 2) from frame 3 on"
    assert str(change(session, 2, 3)) == said
    told = session.receive(pb.ServerEvent(notice=pb.Notice(kind=pb.Notice.KIND_DEGRADED, detail="no memory")), 0)
    assert str(told) == "the server says DEGRADED: no memory"

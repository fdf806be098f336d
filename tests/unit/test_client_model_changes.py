"""The labels of results while what serves a stream changes: each result is named by the model that made it."""

from __future__ import annotations

from headworks.outcomes import Notice, Result
from headworks.session import KEPT_LABELS, ClientSession
from headworks.v1 import frame_pb2 as pb
from support.client_events import OPEN, frame, sent_id


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

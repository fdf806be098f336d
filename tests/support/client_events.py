"""What servers say, in short, for tests of the client's pure parts."""

from __future__ import annotations

from headworks.mailbox import OutgoingFrame
from headworks.session import ClientSession
from headworks.v1 import frame_pb2 as pb

S = 1_000_000_000
OPEN = b"the open request"


def frame(frame_id: int, *, captured_ns: int = 0) -> OutgoingFrame:
    return OutgoingFrame(frame_id, captured_ns, 0, pb.ENCODING_JPEG, 0, 0, b"jpeg")


def opened(frames_allowed: int = 4, labels: tuple[str, ...] = ("player", "ball")) -> pb.ServerEvent:
    return pb.ServerEvent(opened=pb.Opened(frames_allowed=frames_allowed, models=[pb.ModelInfo(labels=labels)]))


def result(frame_id: int, *class_ids: int) -> pb.ServerEvent:
    boxes = pb.Detections(detections=[pb.Detection(class_id=class_id) for class_id in class_ids])
    return pb.ServerEvent(result=pb.Result(frame_id=frame_id, outputs=[pb.Output(detections=boxes)]))


def dropped(first: int, last: int, count: int, reason: int = pb.DROP_REASON_DEADLINE) -> pb.ServerEvent:
    counts = [pb.DropCount(reason=reason, stage=pb.DROP_STAGE_BEFORE_BATCH, count=count)]  # type: ignore[arg-type]
    return pb.ServerEvent(dropped=pb.Dropped(first_frame_id=first, last_frame_id=last, counts=counts))


def failed(frame_id: int) -> pb.ServerEvent:
    return pb.ServerEvent(frame_error=pb.FrameError(frame_id=frame_id, code=pb.FRAME_ERROR_CODE_TOO_LARGE))


def credit(frames_allowed: int) -> pb.ServerEvent:
    return pb.ServerEvent(credit=pb.Credit(frames_allowed=frames_allowed))


def notice(kind: pb.Notice.Kind) -> pb.ServerEvent:
    return pb.ServerEvent(notice=pb.Notice(kind=kind))


def closed(received: int, reason: int = pb.CLOSE_REASON_END) -> pb.ServerEvent:
    return pb.ServerEvent(closed=pb.Closed(ledger=pb.Ledger(received=received), reason=reason))


def sent_id(session: ClientSession, now_ns: int = 0) -> int:
    request = session.poll(now_ns)
    assert isinstance(request, OutgoingFrame)
    return request.frame_id

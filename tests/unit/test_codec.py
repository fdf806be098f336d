"""Events to bytes and requests from bytes, held against what protobuf makes of them."""

from __future__ import annotations

import pytest

from headworks.v1 import frame_pb2 as pb
from headworks_native import wire
from headworks_server.core import events as ev
from headworks_server.core.grant import Grant, Policy
from headworks_server.core.ledger import Ledger
from headworks_server.core.outcomes import CloseReason, FrameErrorCode
from headworks_server.rpc import codec
from support.served import model_facts
from support.streams import MS

FACTS = model_facts()
LIMITS = pb.Limits(max_frame_bytes=16_000_000, max_frame_pixels=33_000_000)


def opened_entry(event: ev.OpenedEvent) -> bytes:
    return codec.opened_entry(event, FACTS, LIMITS, 7)


def result_event() -> ev.ResultOutcome:
    entry = wire.encode_result(
        frame_id=812,
        capture_time=None,
        source_width=1920,
        source_height=1080,
        output_prefix=codec.output_prefix(FACTS),
        detections=b"",
        batch_size=3,
        deadline_missed=False,
        waited_us=1,
        decoded_us=2,
        batched_us=3,
        executed_us=4,
        postprocessed_us=5,
    )
    return ev.ResultOutcome(entry, 812)


def final_ledger() -> Ledger:
    ledger = Ledger()
    ledger.received, ledger.results, ledger.errors = 9, 4, 1
    ledger.drop(ev.REPLACED, 3)
    ledger.drop(ev.QUEUE_FULL)
    return ledger


REPLACED = pb.DropCount(reason=pb.DROP_REASON_REPLACED_BY_NEWER, stage=pb.DROP_STAGE_BEFORE_DECODE, count=3)
QUEUE_FULL = pb.DropCount(reason=pb.DROP_REASON_QUEUE_FULL, stage=pb.DROP_STAGE_INGRESS, count=1)

CASES: list[tuple[ev.Event, pb.ServerEvent]] = [
    (
        ev.OpenedEvent(Grant(max_in_flight=3, window=5, deadline_ns=40 * MS, weight=2), 5),
        pb.ServerEvent(
            opened=pb.Opened(
                stream_id=7,
                drop_policy=pb.DropPolicy(latest=pb.LatestPolicy()),
                max_in_flight=3,
                frames_allowed=5,
                deadline_ms=40,
                weight=2,
                models=[
                    pb.ModelInfo(
                        name="players",
                        version="3",
                        generation=1,
                        digest="ab" * 32,
                        labels=["player", "ball"],
                        backend="onnxruntime-cpu",
                        input_width=640,
                        input_height=384,
                    )
                ],
                limits=LIMITS,
            )
        ),
    ),
    (
        result_event(),
        pb.ServerEvent(
            result=pb.Result(
                frame_id=812,
                source_width=1920,
                source_height=1080,
                outputs=[
                    pb.Output(
                        model="players",
                        version="3",
                        generation=1,
                        backend="onnxruntime-cpu",
                        detections=pb.Detections(),
                    )
                ],
                batch_size=3,
                timings=pb.Timings(waited_us=1, decoded_us=2, batched_us=3, executed_us=4, postprocessed_us=5),
            )
        ),
    ),
    (
        ev.DroppedEvent(3, 9, {ev.REPLACED: 3, ev.QUEUE_FULL: 1}, 1),
        pb.ServerEvent(dropped=pb.Dropped(first_frame_id=3, last_frame_id=9, counts=[REPLACED, QUEUE_FULL])),
    ),
    (
        ev.FrameErrorEvent(4, FrameErrorCode.UNDECODABLE, "expected a JPEG, got 3 bytes: \u00fc"),
        pb.ServerEvent(
            frame_error=pb.FrameError(
                frame_id=4, code=pb.FRAME_ERROR_CODE_UNDECODABLE, detail="expected a JPEG, got 3 bytes: \u00fc"
            )
        ),
    ),
    (ev.CreditEvent(2**40), pb.ServerEvent(credit=pb.Credit(frames_allowed=2**40))),
    (
        ev.NoticeEvent(ev.NoticeKind.DRAINING, "the server is shutting down", grace_ms=3_000),
        pb.ServerEvent(
            notice=pb.Notice(kind=pb.Notice.KIND_DRAINING, detail="the server is shutting down", grace_ms=3_000)
        ),
    ),
    (
        ev.NoticeEvent(ev.NoticeKind.DEGRADED, "out of memory", model="players"),
        pb.ServerEvent(notice=pb.Notice(kind=pb.Notice.KIND_DEGRADED, detail="out of memory", model="players")),
    ),
    (
        ev.NoticeEvent(ev.NoticeKind.RESTORED, model="players"),
        pb.ServerEvent(notice=pb.Notice(kind=pb.Notice.KIND_RESTORED, model="players")),
    ),
    (ev.PongEvent(0), pb.ServerEvent(pong=pb.Pong())),
    (ev.PongEvent(2**64 - 1), pb.ServerEvent(pong=pb.Pong(nonce=2**64 - 1))),
    (
        ev.ClosedEvent(final_ledger(), CloseReason.DRAINED, "the server is shutting down"),
        pb.ServerEvent(
            closed=pb.Closed(
                ledger=pb.Ledger(received=9, results=4, drops=[REPLACED, QUEUE_FULL], errors=1),
                reason=pb.CLOSE_REASON_DRAINED,
                detail="the server is shutting down",
            )
        ),
    ),
]


@pytest.mark.parametrize(("event", "expected"), CASES, ids=[type(event).__name__ for event, _ in CASES])
def test_every_event_is_what_protobuf_reads(event: ev.Event, expected: pb.ServerEvent) -> None:
    """Natively encoded or not: one event, one entry."""
    raw = codec.encode_events([event], opened_entry)
    assert pb.StreamFramesResponse.FromString(raw) == pb.StreamFramesResponse(events=[expected])


def test_no_kind_of_event_is_left_out() -> None:
    """Each member of the union has a case above."""
    assert {type(event) for event, _ in CASES} == set(ev.Event.__args__)  # type: ignore[attr-defined]


def test_events_that_are_due_together_are_one_response_in_order() -> None:
    """A response is the concatenation of its entries, so joining is free."""
    raw = codec.encode_events([event for event, _ in CASES], opened_entry)
    assert list(pb.StreamFramesResponse.FromString(raw).events) == [expected for _, expected in CASES]


def test_nothing_due_is_an_empty_response() -> None:
    """No event, no byte."""
    assert codec.encode_events([], opened_entry) == b""


def test_a_frame_is_read_without_a_copy() -> None:
    """The picture stays where gRPC put it."""
    frame = pb.Frame(frame_id=3, encoding=pb.ENCODING_JPEG, data=b"picture")
    raw = pb.StreamFramesRequest(frame=frame).SerializeToString()
    message = codec.parse_request(raw)
    assert isinstance(message, wire.FrameMessage)
    assert (message.frame_id, message.encoding, bytes(message.data)) == (3, pb.ENCODING_JPEG, b"picture")
    assert message.message is raw


def test_a_frame_in_an_unusual_shape_is_read_by_protobuf() -> None:
    """Fields in another order are legal, and mean the same."""
    fields = [pb.Frame(data=b"picture"), pb.Frame(frame_id=3)]
    body = b"".join(field.SerializeToString() for field in fields)
    message = codec.parse_request(bytes([0x12, len(body)]) + body)
    assert isinstance(message, wire.FrameMessage)
    assert (message.frame_id, bytes(message.data)) == (3, b"picture")


@pytest.mark.parametrize(
    ("field", "message"), [("open", pb.Open(stream_name="dock-3")), ("ping", pb.Ping(nonce=5)), ("end", pb.End())]
)
def test_other_messages_come_as_they_are(field: str, message: pb.Open | pb.Ping | pb.End) -> None:
    """Also one without any field set, such as End."""
    assert codec.parse_request(pb.StreamFramesRequest(**{field: message}).SerializeToString()) == message


@pytest.mark.parametrize("raw", [b"\xff" * 12, b"\x12\x7f\x08", b"\x0a\x03\x0a\x01\xff", b"\x07"])
def test_bytes_that_are_no_request_are_told_with_their_size(raw: bytes) -> None:
    """Garbage, a cut message, a name that is no UTF-8, an unknown wire type."""
    with pytest.raises(codec.MalformedRequestError, match=f"^expected a StreamFramesRequest, got {len(raw)} bytes of"):
        codec.parse_request(raw)


@pytest.mark.parametrize("raw", [b"", b"\x78\x01"])
def test_a_request_with_no_message_in_it_is_malformed(raw: bytes) -> None:
    """Empty, or only fields of a later release: it cannot be answered, so it is not passed over."""
    with pytest.raises(codec.MalformedRequestError, match=r"^expected open, frame, ping or end .* got none of them$"):
        codec.parse_request(raw)


@pytest.mark.parametrize(
    ("granted", "told"),
    [
        (Grant(), pb.DropPolicy(latest=pb.LatestPolicy())),
        (Grant(policy=Policy.EVERY_FRAME), pb.DropPolicy(every_frame=pb.EveryFramePolicy())),
        (
            Grant(policy=Policy.BOUNDED, depth=5),
            pb.DropPolicy(bounded=pb.BoundedPolicy(depth=5, drop=pb.BoundedPolicy.DROP_SIDE_OLDEST)),
        ),
        (
            Grant(policy=Policy.BOUNDED, depth=32, drop_newest=True),
            pb.DropPolicy(bounded=pb.BoundedPolicy(depth=32, drop=pb.BoundedPolicy.DROP_SIDE_NEWEST)),
        ),
    ],
)
def test_opened_tells_the_policy_in_force(granted: Grant, told: pb.DropPolicy) -> None:
    """With the depth after clamping, and the side that was left open decided."""
    (event,) = pb.StreamFramesResponse.FromString(opened_entry(ev.OpenedEvent(granted, 4))).events
    assert event.opened.drop_policy == told


# InferFrame.


@pytest.mark.parametrize("labels", [2, 200, 20_000])
def test_the_answer_to_one_image_is_the_result_of_a_stream(labels: int) -> None:
    """Taken over as it was encoded, whatever the length of its length."""
    result = pb.Result(frame_id=812, outputs=[pb.Output(model="m" * labels)])
    entry = pb.StreamFramesResponse(events=[pb.ServerEvent(result=result)]).SerializeToString()
    assert pb.InferFrameResponse.FromString(codec.infer_response(entry)) == pb.InferFrameResponse(result=result)


def test_a_natively_encoded_result_is_an_answer() -> None:
    """The one that lanes make."""
    answer = pb.InferFrameResponse.FromString(codec.infer_response(result_event().entry))
    assert answer.result == CASES[1][1].result


def test_a_request_for_one_image_is_read_with_its_frame() -> None:
    """The picture may be empty: then the frame is what is wrong, not the request."""
    request = pb.InferFrameRequest(frame=pb.Frame())
    assert codec.parse_infer_request(request.SerializeToString()) == request


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\xff" * 12, "^expected an InferFrameRequest, got 12 bytes of none"),
        (b"", "^expected a frame in the InferFrameRequest, got none$"),
        (pb.InferFrameRequest(model=pb.ModelSelector(name="m")).SerializeToString(), "^expected a frame"),
    ],
)
def test_a_request_without_a_frame_is_malformed(raw: bytes, words: str) -> None:
    """There is nothing to answer."""
    with pytest.raises(codec.MalformedRequestError, match=words):
        codec.parse_infer_request(raw)

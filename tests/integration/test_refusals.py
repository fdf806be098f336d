"""What a server does not grant, and what it does with a client that breaks the protocol."""

from __future__ import annotations

import grpc
import pytest

from headworks.v1 import frame_pb2 as pb
from support.pictures import jpeg, scene
from support.raw_camera import RawCamera, open_request
from support.server import Server

GOOD = jpeg(scene(64, 48))
CODES = grpc.StatusCode

REFUSED = {
    "an unknown model": (open_request("tennis"), CODES.NOT_FOUND, ["tennis", "bytes, fragile, oracle, pairs"]),
    "an unknown version": (
        pb.Open(models=[pb.ModelSelector(name="oracle", version="7")]),
        CODES.NOT_FOUND,
        ["'7'", "oracle"],
    ),
    "no model where there are several": (open_request(), CODES.INVALID_ARGUMENT, ["oracle", "pairs"]),
    "two models": (
        pb.Open(models=[pb.ModelSelector(name="oracle"), pb.ModelSelector(name="bytes")]),
        CODES.UNIMPLEMENTED,
        ["one model", "oracle, bytes"],
    ),
    "BOUNDED without a depth": (
        open_request("oracle", drop_policy=pb.DropPolicy(bounded=pb.BoundedPolicy())),
        CODES.INVALID_ARGUMENT,
        ["BOUNDED", "at least 1", "got 0"],
    ),
    "EVERY_FRAME with a deadline": (
        open_request("oracle", drop_policy=pb.DropPolicy(every_frame=pb.EveryFramePolicy()), deadline_ms=40),
        CODES.INVALID_ARGUMENT,
        ["EVERY_FRAME", "no deadline", "40 ms"],
    ),
    "a maximum rate below zero": (open_request("oracle", max_fps=-12.5), CODES.INVALID_ARGUMENT, ["max_fps", "-12.5"]),
    "classes of a detector": (
        open_request("oracle", result=pb.ResultOptions(form=pb.ResultOptions.FORM_CLASSIFICATIONS)),
        CODES.INVALID_ARGUMENT,
        ["FORM_DETECTIONS", "FORM_CLASSIFICATIONS"],
    ),
    "a threshold above 1": (
        open_request("oracle", result=pb.ResultOptions(score_threshold=1.5)),
        CODES.INVALID_ARGUMENT,
        ["score_threshold", "1.5"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_open_is_refused_by_name(serving: Server, name: str) -> None:
    """What cannot be granted ends the call with a status that says what was expected and what came."""
    request, expected, facts = REFUSED[name]
    with RawCamera(serving.target, request) as camera:
        code, detail = camera.status()
        assert code is expected, detail
        for fact in facts:
            assert fact in detail
        assert camera.events == []


def test_what_is_granted_is_clamped_and_told(serving: Server) -> None:
    """Opened states what was granted, and the window: in flight + waiting + 1 (rule 6)."""
    with RawCamera(serving.target, open_request("oracle", max_in_flight=99, weight=99, deadline_ms=10**9)) as camera:
        opened = camera.opened
        assert (opened.max_in_flight, opened.frames_allowed, opened.weight) == (8, 10, 16)
        assert opened.deadline_ms == 60_000
        assert opened.drop_policy.HasField("latest")
    with RawCamera(serving.target, open_request("oracle")) as camera:
        opened = camera.opened
        assert (opened.max_in_flight, opened.frames_allowed, opened.weight, opened.deadline_ms) == (2, 4, 1, 0)


def hold_to_protocol_error(camera: RawCamera, *facts: str) -> pb.Closed:
    """Closed with its ledger comes before INVALID_ARGUMENT; both say why."""
    code, detail = camera.status()
    assert code is CODES.INVALID_ARGUMENT, detail
    closed = camera.events[-1].closed
    assert closed.reason == pb.CLOSE_REASON_PROTOCOL_ERROR
    for fact in facts:
        assert fact in detail
        assert fact in closed.detail
    return closed


@pytest.mark.parametrize("step", [0, -1, -3])
def test_frame_ids_must_increase(serving: Server, step: int) -> None:
    """Rule 2: an equal or smaller frame_id ends the stream, after all frames before it got their outcome."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        camera.ask_result(GOOD, frame_id=5)
        camera.send_frame(GOOD, frame_id=5 + step)
        hold_to_protocol_error(camera, "frame_id", "5")
        assert camera.check().ledger.received == 1


def test_gaps_in_frame_ids_are_allowed(serving: Server) -> None:
    """Rule 2: the client's own mailbox replaces frames, and 64 bits are counted as they come."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        for frame_id in (3, 4, 900, 2**40, 2**63 - 1):
            assert camera.ask_result(GOOD, frame_id=frame_id).frame_id == frame_id
        assert camera.close().ledger.received == 5


@pytest.mark.parametrize(
    "message", [{"frame": pb.Frame(frame_id=1)}, {"ping": pb.Ping(nonce=1)}, {"end": pb.End()}], ids=str
)
def test_open_comes_first(serving: Server, message: dict[str, object]) -> None:
    """A message before Open: Closed, then INVALID_ARGUMENT."""
    with RawCamera(serving.target) as camera:
        camera.send(**message)
        closed = hold_to_protocol_error(camera, "Open")
        assert closed.ledger.received == 0


def test_a_second_open_ends_the_stream(serving: Server) -> None:
    """Open comes once."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        camera.ask_result(GOOD)
        camera.send(open=open_request("oracle"))
        hold_to_protocol_error(camera, "Open")
        assert camera.check().ledger.received == 1


def test_a_frame_after_end_ends_the_stream(slow: Server) -> None:
    """No frame follows an End; the frames before it still get their outcome."""
    with RawCamera(slow.target, open_request()) as camera:
        camera.send_frame(b"one")
        camera.end()
        camera.send_frame(b"two")
        hold_to_protocol_error(camera, "End")
        assert camera.check().ledger.received == 1


MALFORMED = {
    "no protobuf": b"\xff\xff\xff\xff",
    "cut short": pb.StreamFramesRequest(frame=pb.Frame(frame_id=1, data=GOOD)).SerializeToString()[:-5],
    "an empty message": b"",
    "a group that never ends": b"\x0b" * 50,
    "a field of the future alone": b"\xfa\x01\x02hi",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bytes_end_only_their_stream(serving: Server, name: str) -> None:
    """Bytes that are no request: Closed, then INVALID_ARGUMENT; the server and its other streams live on."""
    with (
        RawCamera(serving.target, open_request("oracle")) as other,
        RawCamera(serving.target, open_request("oracle")) as camera,
    ):
        camera.ask_result(GOOD)
        camera.send_raw(MALFORMED[name])
        hold_to_protocol_error(camera, "StreamFramesRequest")
        assert camera.check().ledger.received == 1
        other.ask_result(GOOD)
        other.close()


def test_fields_of_the_future_are_ignored(serving: Server) -> None:
    """A newer client's unknown fields, in any order, do not disturb a frame."""
    with RawCamera(serving.target, open_request("oracle")) as camera:
        frame = pb.Frame(frame_id=1, encoding=pb.ENCODING_JPEG, data=GOOD).SerializeToString() + b"\xfa\x01\x02hi"
        length = bytes([len(frame) & 127 | 128, len(frame) >> 7 & 127 | 128, len(frame) >> 14])
        camera.send_raw(b"\x12" + length + frame + b"\xfa\x01\x02hi")
        assert camera.wait_event("result").frame_id == 1


def test_more_streams_than_allowed_are_refused(impatient: Server) -> None:
    """max_streams: the next stream is refused RESOURCE_EXHAUSTED with the limit, and has room when one has left."""
    with (
        RawCamera(impatient.target, open_request()) as first,
        RawCamera(impatient.target, open_request()) as second,
        RawCamera(impatient.target, open_request()) as third,
    ):
        assert len({camera.opened.stream_id for camera in (first, second, third)}) == 3
        with RawCamera(impatient.target, open_request()) as surplus:
            code, detail = surplus.status()
            assert code is CODES.RESOURCE_EXHAUSTED
            assert "3 streams" in detail
        first.close()
        with RawCamera(impatient.target, open_request()) as later:
            assert later.opened

"""Frames leave the client as protobuf would have written them, and sums are told once a second at most."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from headworks.codec import frame_request
from headworks.loud import PERIOD_NS, OutcomeLog
from headworks.outcomes import DropCount, Dropped, FrameError
from headworks.v1 import frame_pb2 as pb


@given(
    frame_id=st.integers(0, 2**64 - 1),
    capture_time_ns=st.integers(-(2**60), 2**62),
    encoding=st.sampled_from([0, *pb.Encoding.values()]),
    width=st.integers(0, 2**32 - 1),
    height=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=300),
)
@example(frame_id=1, capture_time_ns=0, encoding=1, width=0, height=0, payload=b"")
def test_frame_request_equals_protobuf(
    frame_id: int, capture_time_ns: int, encoding: int, width: int, height: int, payload: bytes
) -> None:
    """The request built by hand is byte for byte what protobuf serialises."""
    frame = pb.Frame(frame_id=frame_id, encoding=encoding, width=width, height=height, data=payload)  # type: ignore[arg-type]
    frame.capture_time.seconds, frame.capture_time.nanos = divmod(capture_time_ns, 10**9)
    expected = pb.StreamFramesRequest(frame=frame).SerializeToString()
    assert expected == frame_request(
        payload,
        frame_id=frame_id,
        capture_time_ns=capture_time_ns,
        encoding=encoding,
        width=width,
        height=height,
    )


def test_drops_are_logged_once_a_second_with_counts() -> None:
    """The first drop is told at once, the others of that second together."""
    log = OutcomeLog("gate")
    one = Dropped(1, 1, (DropCount("DEADLINE", "BEFORE_BATCH", 1),))
    log.add_drop(one)
    assert log.line(0) == "stream 'gate': 1 dropped DEADLINE"
    for _ in range(3):
        log.add_drop(one)
    log.add_error(FrameError(7, "UNDECODABLE", "no JPEG"))
    assert log.line(PERIOD_NS - 1) is None
    assert log.line(PERIOD_NS) == "stream 'gate': 3 dropped DEADLINE, 1 failed UNDECODABLE (frame 7: no JPEG)"
    assert log.line(9 * PERIOD_NS) is None


def test_last_line_does_not_wait() -> None:
    """What is left when the stream ends is told then."""
    log = OutcomeLog("gate")
    log.add_unread()
    assert log.line(0) is not None
    log.add_unread()
    assert log.line(1, last=True) == "stream 'gate': 1 outcomes not read in time"

"""CPU time of the wire reader and of the Result encoder against protobuf doing the same, in the same process.

Each prints one JSON line. `wire_read`: a Frame of 200 KB against `FromString` and `.data`. `wire_result`: a Result
with 25 detections against building and serialising the message. Rounds alternate between ours and the baseline.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from bench._measure import Line, print_lines, ratio_line
from headworks.v1.frame_pb2 import (
    Frame,
    Output,
    Result,
    ServerEvent,
    StreamFramesRequest,
    StreamFramesResponse,
    Timings,
)
from headworks_native import wire

ROUNDS = 9
AT_MOST = 0.1
MESSAGE = StreamFramesRequest(
    frame=Frame(
        frame_id=1234, capture_time=Timestamp(seconds=1_764_000_000, nanos=123), encoding=1, data=b"x" * 200_000
    )
).SerializeToString()
CAPTURE_TIME = Timestamp(seconds=1_764_000_000, nanos=123).SerializeToString()
PREFIX = Output(model="football", version="1", generation=1, backend="onnxruntime-cpu").SerializeToString()
BOXES = [(i + 0.5, i + 1.5, i + 40.5, i + 80.5, 0.9 - i / 100, i % 3) for i in range(25)]
PACKED = b"".join(struct.pack("<5fI", *box) for box in BOXES)


def read_ours() -> memoryview:
    """Read the frame and look at its payload."""
    frame = wire.parse_request(MESSAGE)
    assert frame is not None
    return frame.data


def read_protobuf() -> bytes:
    """Parse the frame and take its payload."""
    data: bytes = StreamFramesRequest.FromString(MESSAGE).frame.data
    return data


def result_ours() -> bytes:
    """Encode the result from the packed detections."""
    return wire.encode_result(
        frame_id=1234,
        capture_time=CAPTURE_TIME,
        source_width=1920,
        source_height=1080,
        output_prefix=PREFIX,
        detections=PACKED,
        batch_size=4,
        deadline_missed=False,
        waited_us=1200,
        decoded_us=6100,
        batched_us=300,
        executed_us=21_000,
        postprocessed_us=90,
    )


def result_protobuf() -> bytes:
    """Build the same result and serialise it."""
    result = Result(frame_id=1234, source_width=1920, source_height=1080, batch_size=4)
    result.capture_time.MergeFromString(CAPTURE_TIME)
    output = result.outputs.add()
    output.MergeFromString(PREFIX)
    add = output.detections.detections.add
    for x1, y1, x2, y2, score, class_id in struct.iter_unpack("<5fI", PACKED):
        add(x1=x1, y1=y1, x2=x2, y2=y2, score=score, class_id=class_id)
    result.timings.CopyFrom(
        Timings(waited_us=1200, decoded_us=6100, batched_us=300, executed_us=21_000, postprocessed_us=90)
    )
    entry: bytes = StreamFramesResponse(events=[ServerEvent(result=result)]).SerializeToString()
    return entry


def microseconds(work: Callable[[], object], calls: int) -> float:
    """CPU time of one call."""
    begin = time.process_time_ns()
    for _ in range(calls):
        work()
    return (time.process_time_ns() - begin) / calls / 1000


def compare(name: str, ours: Callable[[], object], baseline: Callable[[], object], *, calls: int) -> Line:
    """Time both in alternating rounds."""
    assert ours() == baseline()
    microseconds(baseline, calls)  # the first round pays for fresh memory
    rounds = [(microseconds(ours, calls * 10), microseconds(baseline, calls)) for _ in range(ROUNDS)]
    return ratio_line(name, rounds, unit="us CPU", aim=f"ratio at most {AT_MOST}", at_most=AT_MOST)


def read() -> Line:
    """The reader."""
    return compare("wire_read", read_ours, read_protobuf, calls=2000)


def result() -> Line:
    """The encoder."""
    return compare("wire_result", result_ours, result_protobuf, calls=500)


if __name__ == "__main__":
    print_lines(lambda **_: [read(), result()])

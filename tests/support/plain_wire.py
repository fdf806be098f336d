"""The plain twin of `headworks_native.wire`, used as its oracle. It says the same things in the shortest Python,
knows nothing of speed and imports neither protobuf nor the extension.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

DETECTION = struct.Struct("<5fI")
MAX_UINT32 = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class PlainFrame:
    """What a Frame says; fields as those of FrameMessage."""

    frame_id: int = 0
    capture_time: bytes = b""
    has_capture_time: bool = False
    encoding: int = 0
    width: int = 0
    height: int = 0
    data: bytes = b""


class Unusual(Exception):  # noqa: N818 - not an error: protobuf must look
    """The bytes are not in the shape that serialisers emit."""


def parse_request(message: bytes) -> PlainFrame | None:
    """Read a request that is one Frame in the shape serialisers emit; None for everything else."""
    try:
        fields = dict(read_fields(message, {2: as_is}))
        return read_frame(fields[2]) if fields else None
    except Unusual:
        return None


def read_frame(body: bytes) -> PlainFrame:
    """Read the body of a Frame."""
    frame = dict(read_fields(body, {1: uint64, 2: timestamp, 3: int32, 4: uint32, 5: uint32, 6: non_empty}))
    return PlainFrame(
        frame_id=frame.get(1, 0),
        capture_time=frame.get(2, b""),
        has_capture_time=2 in frame,
        encoding=frame.get(3, 0),
        width=frame.get(4, 0),
        height=frame.get(5, 0),
        data=frame.get(6, b""),
    )


def read_fields(body: bytes, known: dict[int, Callable]) -> Iterator[tuple[int, int | bytes]]:
    """Yield (number, value) of ascending known fields, each checked by its reader."""
    at, last = 0, 0
    while at < len(body):
        tag, at = read_varint(body, at)
        number, wire_type = tag >> 3, tag & 7
        if number <= last or number not in known or wire_type not in (0, 2):
            raise Unusual
        last = number
        value, at = read_varint(body, at) if wire_type == 0 else read_bytes(body, at)
        yield number, known[number](value)


def read_varint(body: bytes, at: int) -> tuple[int, int]:
    """Read a varint of minimal form; return it and the place behind it."""
    end = next((place for place in range(at, len(body)) if body[place] < 0x80), None)
    if end is None:
        raise Unusual
    value = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(body[at : end + 1]))
    if value >= 2**64 or body[at : end + 1] != varint(value):
        raise Unusual
    return value, end + 1


def read_bytes(body: bytes, at: int) -> tuple[bytes, int]:
    """Read a length and as many bytes; return them and the place behind them."""
    length, at = read_varint(body, at)
    if at + length > len(body):
        raise Unusual
    return body[at : at + length], at + length


def as_is(value: int | bytes) -> bytes:
    """Check for bytes."""
    if not isinstance(value, bytes):
        raise Unusual
    return value


def non_empty(value: int | bytes) -> bytes:
    """Check for bytes, at least one."""
    if not as_is(value):
        raise Unusual
    return as_is(value)


def timestamp(value: int | bytes) -> bytes:
    """Check for a Timestamp in canonical form."""
    list(read_fields(as_is(value), {1: uint64, 2: int32}))
    return as_is(value)


def uint64(value: int | bytes) -> int:
    """Check for a number that is not zero."""
    if not isinstance(value, int) or value == 0:
        raise Unusual
    return value


def uint32(value: int | bytes) -> int:
    """Check for a number that protobuf would not truncate."""
    if uint64(value) > MAX_UINT32:
        raise Unusual
    return uint64(value)


def int32(value: int | bytes) -> int:
    """Check for an int32, negative ones sign-extended to 64 bits."""
    number = uint64(value) - (2**64 if uint64(value) >= 2**63 else 0)
    if not -(2**31) <= number < 2**31:
        raise Unusual
    return number


def encode_result(
    *,
    frame_id: int,
    capture_time: bytes | None,
    source_width: int,
    source_height: int,
    output_prefix: bytes,
    detections: bytes | None,
    batch_size: int,
    deadline_missed: bool,
    **times: int,
) -> bytes:
    """Encode one Result as an entry; times in the order of Timings."""
    value = b""
    if detections is not None:
        value = submessage(
            5, b"".join(submessage(1, detection(*record)) for record in DETECTION.iter_unpack(detections))
        )
    result = number(1, frame_id)
    result += b"" if capture_time is None else submessage(2, capture_time)
    result += number(3, source_width) + number(4, source_height)
    result += submessage(5, output_prefix + value)
    result += number(6, batch_size) + number(7, deadline_missed)
    stages = ("waited_us", "decoded_us", "batched_us", "executed_us", "postprocessed_us")
    timings = b"".join(number(field, min(times[stage], MAX_UINT32)) for field, stage in enumerate(stages, start=1))
    return entry(2, result + submessage(8, timings))


def encode_dropped(first_frame_id: int, last_frame_id: int, counts: Sequence[tuple[int, int, int]]) -> bytes:
    """Encode one Dropped range as an entry."""
    dropped = number(1, first_frame_id) + number(2, last_frame_id)
    for reason, stage, count in counts:
        dropped += submessage(3, number(1, reason) + number(2, stage) + number(3, count))
    return entry(3, dropped)


def encode_credit(frames_allowed: int) -> bytes:
    """Encode one Credit as an entry."""
    return entry(5, number(1, frames_allowed))


def entry(event: int, body: bytes) -> bytes:
    """Wrap an event as it stands in StreamFramesResponse."""
    return submessage(1, submessage(event, body))


def detection(x1: float, y1: float, x2: float, y2: float, score: float, class_id: int) -> bytes:
    """Encode one Detection; positive zeros are left out."""
    values = [struct.pack("<f", value) for value in (x1, y1, x2, y2, score)]
    floats = [varint(field << 3 | 5) + value for field, value in enumerate(values, start=1) if any(value)]
    return b"".join(floats) + number(6, class_id)


def number(field: int, value: int) -> bytes:
    """Encode a number, unless it is zero; negative ones as 64 bits."""
    return varint(field << 3) + varint(value % 2**64) if value else b""


def submessage(field: int, body: bytes) -> bytes:
    """Encode a message or bytes, empty or not."""
    return varint(field << 3 | 2) + varint(len(body)) + body


def varint(value: int) -> bytes:
    """Encode a varint in its minimal form."""
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value >= 0x80 else bytes([value])

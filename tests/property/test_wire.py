"""The wire reader and encoders against protobuf, and against their plain twin.

The generator writes wire messages that no serialiser emits, too: any order, doubles, unknown fields, groups, long
varints. Reader and protobuf must never disagree about them.
"""

from __future__ import annotations

import gc
import struct
import sys

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import assume, example, given
from hypothesis import strategies as st

from headworks.v1.frame_pb2 import (
    Classification,
    Classifications,
    Credit,
    DropCount,
    Dropped,
    Frame,
    Open,
    Output,
    Ping,
    Result,
    StreamFramesRequest,
    StreamFramesResponse,
)
from headworks_native import wire
from support import plain_wire
from support.plain_wire import submessage, varint

UINT64 = st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 2**64 - 1), st.just(2**64 - 1))
UINT32 = st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 2**32 - 1), st.just(2**32 - 1))
INT32 = st.one_of(st.integers(0, 9), st.integers(-(2**31), 2**31 - 1), st.sampled_from([-1, -(2**31), 2**31 - 1]))
INT64 = st.one_of(st.integers(0, 2**31), st.integers(-(2**63), 2**63 - 1))
TIMESTAMPS = st.one_of(st.none(), st.builds(Timestamp, seconds=INT64, nanos=INT32))
FRAMES = st.builds(
    Frame,
    frame_id=UINT64,
    capture_time=TIMESTAMPS,
    encoding=INT32,
    width=UINT32,
    height=UINT32,
    data=st.one_of(st.just(b""), st.binary(max_size=300)),
)


def facts(frame) -> tuple:
    """What a frame says, whether it is a FrameMessage, a PlainFrame or a protobuf Frame."""
    if isinstance(frame, Frame):
        seen = frame.HasField("capture_time")
        time = Timestamp(seconds=frame.capture_time.seconds, nanos=frame.capture_time.nanos)
        capture_time = time.SerializeToString() if seen else b""
    else:
        seen, capture_time = frame.has_capture_time, frame.capture_time
    return frame.frame_id, seen, capture_time, frame.encoding, frame.width, frame.height, bytes(frame.data)


def read_by_both(message: bytes):
    """Let reader and protobuf read one message, and hold to what must be true of any message at all.

    Returns the reader's frame (None if it defers) and protobuf's request (None if it is malformed).
    """
    frame = wire.parse_request(message)
    plain = plain_wire.parse_request(message)
    assert (facts(plain) if plain else None) == (facts(frame) if frame else None)
    try:
        request = StreamFramesRequest.FromString(message)
    except DecodeError:
        assert frame is None
        return frame, None
    if frame is not None:
        assert request.WhichOneof("message") == "frame"
        assert facts(request.frame) == facts(frame)
    elif request.WhichOneof("message") == "frame":
        assert facts(request.frame) == facts(wire.frame_message(request.frame))
    return frame, request


class TestReader:
    """parse_request and frame_message."""

    @given(FRAMES)
    @example(Frame())
    @example(Frame(frame_id=2**64 - 1, encoding=-1, data=b"\0"))
    @example(Frame(capture_time=Timestamp()))
    def test_what_serialisers_emit_is_read_as_protobuf_reads_it(self, frame: Frame) -> None:
        """Every frame that a serialiser emits is answered without protobuf, with the same values."""
        read = wire.parse_request(StreamFramesRequest(frame=frame).SerializeToString())
        assert read is not None
        assert facts(frame) == facts(read)

    @given(FRAMES)
    def test_parsed_frame_becomes_the_same_message(self, frame: Frame) -> None:
        """The way through protobuf yields what the reader yields."""
        assert facts(wire.parse_request(StreamFramesRequest(frame=frame).SerializeToString())) == facts(
            wire.frame_message(frame)
        )

    @pytest.mark.parametrize(
        "request_", [StreamFramesRequest(), StreamFramesRequest(open=Open()), StreamFramesRequest(ping=Ping(nonce=1))]
    )
    def test_other_messages_are_left_to_protobuf(self, request_: StreamFramesRequest) -> None:
        """Open, Ping, End and an empty oneof are not frames."""
        assert wire.parse_request(request_.SerializeToString()) is None

    @pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 200_000, 2_100_000])
    def test_payload_is_a_view_into_the_message(self, size: int) -> None:
        """The payload is not copied, and its view keeps the message alive."""
        payload = bytes(range(256)) * (size // 256 + 1)
        message = StreamFramesRequest(frame=Frame(frame_id=7, data=payload[:size])).SerializeToString()
        references = sys.getrefcount(message)
        frame = wire.parse_request(message)
        assert frame.message is message
        assert (len(message) - size, size) == (frame.data_offset, frame.data_length)
        data = frame.data
        assert data.readonly
        assert data.obj is message
        del frame
        assert payload[:size] == data
        data.release()
        gc.collect()
        assert references == sys.getrefcount(message)

    @pytest.mark.parametrize("message", [None, bytearray(b"\x12\0"), memoryview(b"\x12\0"), "x"])
    def test_only_bytes_are_read(self, message: object) -> None:
        """The message must not change under the view."""
        with pytest.raises(TypeError):
            wire.parse_request(message)

    def test_frame_message_is_not_made_by_hand(self) -> None:
        """A FrameMessage always has a message."""
        with pytest.raises(TypeError):
            wire.FrameMessage()

    @given(FRAMES, st.integers(0, 400))
    def test_truncated_message_is_never_answered(self, frame: Frame, keep: int) -> None:
        """Wherever a message is cut, reader and protobuf agree, and no byte behind its end is read."""
        message = StreamFramesRequest(frame=frame).SerializeToString()
        read_by_both(message[:keep])
        assume(keep < len(message))
        assert wire.parse_request(message[:keep]) is None

    def test_unknown_fields_of_capture_time_are_not_echoed(self) -> None:
        """What is echoed is a Timestamp and nothing else, however much a peer puts beside it."""
        times = submessage(2, plain_wire.number(1, 5) + submessage(9, b"x" * 1000))
        frame, request = read_by_both(submessage(2, times))
        assert frame is None
        assert wire.frame_message(request.frame).capture_time == Timestamp(seconds=5).SerializeToString()


@st.composite
def varints(draw: st.DrawFn, value: int | None = None) -> bytes:
    """A varint, maybe longer than it need be, maybe too long to be one."""
    if value is None:
        value = draw(st.one_of(UINT64, st.integers(0, 2**70)))
    minimal = varint(value)
    padding = draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2, 9]))
    return minimal if not padding else minimal[:-1] + bytes([minimal[-1] | 0x80]) + b"\x80" * (padding - 1) + b"\0"


@st.composite
def fields(draw: st.DrawFn, numbers: st.SearchStrategy[int], values: st.SearchStrategy[bytes]) -> bytes:
    """One field of any wire type: varint, fixed64, bytes, group, fixed32, and the two that do not exist."""
    field = draw(numbers)
    wire_type = draw(st.sampled_from([0, 0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7]))
    tag = draw(varints(field << 3 | wire_type))
    if wire_type == 0:
        return tag + draw(varints())
    if wire_type == 2:
        value = draw(values)
        return tag + draw(varints(max(0, len(value) + draw(st.sampled_from([0, 0, 0, 0, 0, 1, -1]))))) + value
    if wire_type == 3:
        return tag + draw(values) + draw(st.sampled_from([varint(field << 3 | 4), b"", varint((field + 1) << 3 | 4)]))
    return tag + draw(st.binary(min_size=8, max_size=8))[: {1: 8, 5: 4}.get(wire_type, 0)]


NUMBERS = st.one_of(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 7, 15, 16, 2047, 2**29 - 1]))
TIME_BODIES = st.lists(fields(NUMBERS, st.binary(max_size=3)), max_size=3).map(b"".join)
FRAME_BODIES = st.lists(
    st.one_of(
        fields(NUMBERS, st.one_of(TIME_BODIES, st.binary(max_size=5))),
        TIME_BODIES.map(lambda body: submessage(2, body)),
        TIMESTAMPS.map(lambda time: submessage(2, time.SerializeToString() if time else b"")),
    ),
    max_size=7,
).map(b"".join)
REQUEST_BODIES = st.lists(
    st.one_of(
        FRAME_BODIES.map(lambda body: submessage(2, body)),
        fields(NUMBERS, FRAME_BODIES),
        st.sampled_from([b"\x0a\0", b"\x12\0", b"\x1a\0", b"\x22\0"]),  # each member of the oneof, empty
    ),
    max_size=3,
).map(b"".join)


UNUSUAL = {
    "two frames, which merge": submessage(2, b"\x08\x01") + submessage(2, b"\x08\x02"),
    "an End behind the frame": submessage(2, b"\x08\x01") + submessage(4, b""),
    "an End before the frame": submessage(4, b"") + submessage(2, b"\x08\x01"),
    "an unknown field behind the frame": submessage(2, b"\x08\x01") + submessage(9, b""),
    "a field beyond the frame": submessage(2, b"\x08\x01\x32\x02x"),
    "a length beyond the message": b"\x12\x03\x08\x01",
    "a length of 2**64 - 1": b"\x12" + varint(2**64 - 1) + b"\x08\x01",
    "a long length": b"\x12\x82\0\x08\x01",
    "a long tag": submessage(2, b"\x88\0\x01"),
    "a long number": submessage(2, b"\x08\x81\0"),
    "a number beyond 64 bits": submessage(2, b"\x08" + b"\xff" * 9 + b"\x02"),
    "a number of eleven bytes": submessage(2, b"\x08" + b"\xff" * 10 + b"\x01"),
    "a number without an end": submessage(2, b"\x08\xff"),
    "a frame_id of zero": submessage(2, b"\x08\0"),
    "an encoding of zero": submessage(2, b"\x18\0"),
    "an encoding that is truncated to int32": submessage(2, b"\x18" + varint(2**32 - 1)),
    "a width of zero": submessage(2, b"\x20\0"),
    "a width that is truncated to uint32": submessage(2, b"\x20" + varint(2**32 + 5)),
    "a height that is truncated to uint32": submessage(2, b"\x28" + varint(2**32 + 5)),
    "a payload that is there and empty": submessage(2, b"\x32\0"),
    "descending fields": submessage(2, b"\x18\x01\x08\x01"),
    "a field twice": submessage(2, b"\x08\x01\x08\x01"),
    "an unknown field": submessage(2, b"\x3a\x01x"),
    "a known field of another wire type": submessage(2, b"\x0d1234"),
    "a group": submessage(2, b"\x0b\x0c"),
    "field number zero": submessage(2, b"\x00\x01"),
    "a time with zero seconds": submessage(2, submessage(2, b"\x08\0")),
    "a time with long nanos": submessage(2, submessage(2, b"\x10\x81\0")),
    "a time with truncated nanos": submessage(2, submessage(2, b"\x10" + varint(2**32 + 1))),
    "a time with nanos first": submessage(2, submessage(2, b"\x10\x01\x08\x01")),
    "a time with seconds twice": submessage(2, submessage(2, b"\x08\x01\x08\x02")),
    "a time with an unknown field": submessage(2, submessage(2, b"\x08\x01\x1a\0")),
}


class TestReaderOnAnyBytes:
    """What no serialiser emits: protobuf's answer, or none."""

    @pytest.mark.parametrize("message", UNUSUAL.values(), ids=UNUSUAL.keys())
    def test_unusual_shape_is_left_to_protobuf(self, message: bytes) -> None:
        """What protobuf would not write in the same bytes is protobuf's to judge."""
        frame, _ = read_by_both(message)
        assert frame is None

    @given(REQUEST_BODIES)
    def test_reader_never_disagrees_with_protobuf(self, message: bytes) -> None:
        """If the reader answers, it answers what protobuf answers; malformed bytes are left to protobuf."""
        read_by_both(message)

    @given(st.binary(max_size=40))
    def test_noise_is_never_answered_wrongly(self, message: bytes) -> None:
        """Bytes that are no message at all."""
        read_by_both(message)
        read_by_both(submessage(2, message))

    @given(st.one_of(REQUEST_BODIES, FRAMES.map(lambda frame: submessage(2, frame.SerializeToString()))))
    def test_reader_answers_just_what_a_serialiser_would_emit_again(self, message: bytes) -> None:
        """It defers only where it must: a frame of known fields that protobuf would write in the same bytes is read."""
        frame, request = read_by_both(message)
        if request is None:
            return
        request.DiscardUnknownFields()
        again = request.WhichOneof("message") == "frame" and request.SerializeToString() == message
        assert again == (frame is not None)


REALS = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, -0.0, float("nan"), float("inf"), struct.unpack("<f", b"\1\0\0\0")[0]])
)
DETECTIONS = st.lists(st.tuples(REALS, REALS, REALS, REALS, REALS, UINT32), max_size=40)
DROP_COUNTS = st.lists(st.tuples(INT32, INT32, UINT64), max_size=6)
TIMES = ("waited_us", "decoded_us", "batched_us", "executed_us", "postprocessed_us")
RESULTS = st.fixed_dictionaries(
    {
        "frame_id": UINT64,
        "capture_time": TIMESTAMPS.map(lambda time: time if time is None else time.SerializeToString()),
        "source_width": UINT32,
        "source_height": UINT32,
        "output_prefix": st.builds(
            Output, model=st.text(max_size=40), version=st.just("1"), generation=UINT64, backend=st.text(max_size=90)
        ).map(lambda output: output.SerializeToString()),
        "detections": DETECTIONS.map(lambda boxes: b"".join(plain_wire.DETECTION.pack(*box) for box in boxes)),
        "batch_size": UINT32,
        "deadline_missed": st.booleans(),
        **dict.fromkeys(TIMES, UINT32),
    }
)
PLAIN_RESULT = {
    "frame_id": 1,
    "capture_time": None,
    "source_width": 1920,
    "source_height": 1080,
    "output_prefix": b"",
    "detections": b"",
    "batch_size": 1,
    "deadline_missed": False,
    **dict.fromkeys(TIMES, 0),
}


def only_event(entry: bytes):
    """Parse one entry as a response, and see that protobuf would have written the same bytes."""
    response = StreamFramesResponse.FromString(entry)
    assert entry == response.SerializeToString()
    (event,) = response.events
    return event


class TestEncoders:
    """encode_result, encode_dropped, encode_credit."""

    @given(RESULTS)
    def test_result_parses_back_equal(self, given_: dict) -> None:
        """What is encoded is what protobuf reads, float by float and bit by bit."""
        entry = wire.encode_result(**given_)
        assert plain_wire.encode_result(**given_) == entry
        result = StreamFramesResponse.FromString(entry).events[0].result
        (output,) = result.outputs
        packed = [
            (struct.pack("<5f", box.x1, box.y1, box.x2, box.y2, box.score), box.class_id)
            for box in output.detections.detections
        ]
        expected = plain_wire.DETECTION.iter_unpack(given_["detections"])
        assert [(struct.pack("<5f", *box[:5]), box[5]) for box in expected] == packed
        time = given_["capture_time"]
        assert (time is not None, time or b"") == (
            result.HasField("capture_time"),
            result.capture_time.SerializeToString(),
        )
        for name in ("frame_id", "source_width", "source_height", "batch_size", "deadline_missed"):
            assert given_[name] == getattr(result, name)
        assert [given_[name] for name in TIMES] == [getattr(result.timings, name) for name in TIMES]
        output.ClearField("detections")
        assert given_["output_prefix"] == output.SerializeToString()

    @given(RESULTS)
    def test_result_is_written_as_protobuf_writes_it(self, given_: dict) -> None:
        """The encoding is the canonical one, zeros left out, so that nobody can tell who wrote it."""
        only_event(wire.encode_result(**given_))

    def test_picture_without_detections_still_has_its_form(self) -> None:
        """An empty list of detections is an answer: the oneof is set."""
        result: Result = only_event(wire.encode_result(**PLAIN_RESULT)).result
        assert result.outputs[0].WhichOneof("value") == "detections"
        assert result.HasField("timings")

    def test_value_behind_the_prefix_takes_the_place_of_detections(self) -> None:
        """A result of another form carries its value as it was encoded, and no detections."""
        prefix = Output(model="m", version="1").SerializeToString()
        scores = Classifications(classifications=[Classification(class_id=2, score=0.5)])
        value = Output(classifications=scores).SerializeToString()
        given_ = {**PLAIN_RESULT, "output_prefix": prefix + value, "detections": None}
        (output,) = only_event(wire.encode_result(**given_)).result.outputs
        assert Output(model="m", version="1", classifications=scores) == output
        assert plain_wire.encode_result(**given_) == wire.encode_result(**given_)

    def test_only_positive_zero_is_left_out(self) -> None:
        """Negative zero and NaN travel, as proto3 says."""
        sizes = [
            len(
                wire.encode_result(
                    **{**PLAIN_RESULT, "detections": plain_wire.DETECTION.pack(value, 0.0, 0.0, 0.0, 0.0, 0)}
                )
            )
            for value in (0.0, -0.0, float("nan"))
        ]
        assert [sizes[0], sizes[0] + 5, sizes[0] + 5] == sizes

    def test_time_beyond_its_field_stops_at_the_largest(self) -> None:
        """A frame that waited for hours is told as 71 minutes, not as an error."""
        entry = wire.encode_result(**{**PLAIN_RESULT, "waited_us": 2**33})
        assert only_event(entry).result.timings.waited_us == 2**32 - 1

    @pytest.mark.parametrize(
        ("name", "value", "error"),
        [
            ("detections", b"x" * 23, ValueError),
            ("frame_id", -1, OverflowError),
            ("frame_id", 2**64, OverflowError),
            ("source_width", 2**32, OverflowError),
            ("waited_us", -1, OverflowError),
            ("output_prefix", None, TypeError),
            ("detections", bytearray(24), TypeError),
            ("capture_time", "now", TypeError),
        ],
    )
    def test_wrong_argument_is_refused(self, name: str, value: object, error: type[Exception]) -> None:
        """Nothing is truncated in silence."""
        with pytest.raises(error):
            wire.encode_result(**{**PLAIN_RESULT, name: value})

    @given(UINT64, UINT64, DROP_COUNTS)
    def test_dropped_parses_back_equal(self, first: int, last: int, counts: list[tuple[int, int, int]]) -> None:
        """A range and its counts, zero counts and unknown reasons included."""
        entry = wire.encode_dropped(first, last, counts)
        assert plain_wire.encode_dropped(first, last, counts) == entry
        expected = Dropped(
            first_frame_id=first,
            last_frame_id=last,
            counts=[DropCount(reason=reason, stage=stage, count=count) for reason, stage, count in counts],
        )
        assert expected == only_event(entry).dropped

    @given(UINT64)
    def test_credit_parses_back_equal(self, frames_allowed: int) -> None:
        """Zero credit is an event too."""
        entry = wire.encode_credit(frames_allowed)
        assert plain_wire.encode_credit(frames_allowed) == entry
        event = only_event(entry)
        assert event.WhichOneof("event") == "credit"
        assert Credit(frames_allowed=frames_allowed) == event.credit

    @given(RESULTS, UINT64, DROP_COUNTS)
    def test_entries_are_joined_into_one_response(self, given_: dict, number: int, counts: list) -> None:
        """A response is the concatenation of its entries, in order."""
        joined = wire.encode_dropped(number, number, counts) + wire.encode_result(**given_) + wire.encode_credit(number)
        events = StreamFramesResponse.FromString(joined).events
        assert [event.WhichOneof("event") for event in events] == ["dropped", "result", "credit"]

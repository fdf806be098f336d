# distutils: language = c++
"""Reads Frame from the wire and encodes Result, Dropped and Credit: the messages that travel once per frame.

Called by `rpc/` on the event loop, with the GIL (microseconds). The reader owns nothing but a reference to the
message; the encoders return bytes that are the caller's. The walking and writing is in src/wire.hpp.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libcpp.vector cimport vector


@cython.final
@cython.auto_pickle(False)
@cython.freelist(64)  # at most the frames that one turn of the loop hands on
cdef class FrameMessage:
    """One Frame as it came. The payload is not copied: it stays inside `message`."""

    def __init__(self):
        raise TypeError("FrameMessage is made by parse_request() or frame_message()")

    @property
    def data(self):
        """The payload, a read-only view into `message`."""
        return memoryview(self.message)[self.data_offset : self.data_offset + self.data_length]


def parse_request(bytes message not None):
    """Read a StreamFramesRequest that is one Frame in the shape serialisers emit; None where protobuf must look."""
    cdef Frame frame
    cdef Bytes view = view_of(message)
    if not read_request(view, frame):
        return None
    cdef FrameMessage result = FrameMessage.__new__(FrameMessage)
    result.frame_id = frame.frame_id
    result.capture_time = PyBytes_FromStringAndSize(<const char*> frame.capture_time.data, frame.capture_time.size)
    result.has_capture_time = frame.has_capture_time
    result.encoding = frame.encoding
    result.width = frame.width
    result.height = frame.height
    result.message = message
    result.data_offset = frame.data.data - view.data if frame.data.size else 0
    result.data_length = frame.data.size
    return result


def frame_message(frame not None):
    """Make the same from a parsed Frame, for messages that parse_request left to protobuf."""
    cdef FrameMessage result = FrameMessage.__new__(FrameMessage)
    result.frame_id = frame.frame_id
    result.has_capture_time = frame.HasField("capture_time")
    # Encoded anew: what is echoed holds seconds and nanos, never what a peer may have put beside them.
    result.capture_time = timestamp_bytes(frame.capture_time) if result.has_capture_time else b""
    result.encoding = frame.encoding
    result.width = frame.width
    result.height = frame.height
    result.message = frame.data
    result.data_offset = 0
    result.data_length = PyBytes_GET_SIZE(result.message)
    return result


def encode_result(
    *,
    uint64_t frame_id,
    bytes capture_time,
    uint32_t source_width,
    uint32_t source_height,
    bytes output_prefix not None,
    bytes detections,
    uint32_t batch_size,
    bint deadline_missed,
    uint64_t waited_us,
    uint64_t decoded_us,
    uint64_t batched_us,
    uint64_t executed_us,
    uint64_t postprocessed_us,
):
    """Encode one Result with one output as an entry of StreamFramesResponse."""
    if detections is not None and <size_t> PyBytes_GET_SIZE(detections) % DETECTION_SIZE:
        raise ValueError(f"detections: expected a multiple of {DETECTION_SIZE} bytes, got {len(detections)}")
    cdef Result result
    result.frame_id = frame_id
    result.has_capture_time = capture_time is not None
    if capture_time is not None:
        result.capture_time = view_of(capture_time)
    result.source_width = source_width
    result.source_height = source_height
    result.output.prefix = view_of(output_prefix)
    result.output.has_detections = detections is not None
    if detections is not None:
        result.output.detections.packed = view_of(detections)
    result.batch_size = batch_size
    result.deadline_missed = deadline_missed
    result.timings.waited_us = saturated(waited_us)
    result.timings.decoded_us = saturated(decoded_us)
    result.timings.batched_us = saturated(batched_us)
    result.timings.executed_us = saturated(executed_us)
    result.timings.postprocessed_us = saturated(postprocessed_us)
    result.measure()
    cdef bytes entry = new_bytes(entry_size(RESULT_EVENT, result))
    check_filled(write_entry(RESULT_EVENT, result, buffer_of(entry), PyBytes_GET_SIZE(entry)))
    return entry


def encode_dropped(uint64_t first_frame_id, uint64_t last_frame_id, list counts not None):
    """Encode one Dropped range, its counts as (reason, stage, count), as an entry of StreamFramesResponse."""
    cdef vector[DropCount] drops
    cdef DropCount drop
    for reason, stage, count in counts:
        drop.reason = reason
        drop.stage = stage
        drop.count = count
        drops.push_back(drop)
    cdef Dropped dropped
    dropped.first_frame_id = first_frame_id
    dropped.last_frame_id = last_frame_id
    dropped.counts = drops.data()
    dropped.count = drops.size()
    cdef bytes entry = new_bytes(entry_size(DROPPED_EVENT, dropped))
    check_filled(write_entry(DROPPED_EVENT, dropped, buffer_of(entry), PyBytes_GET_SIZE(entry)))
    return entry


def encode_credit(uint64_t frames_allowed):
    """Encode one Credit as an entry of StreamFramesResponse."""
    cdef Credit credit
    credit.frames_allowed = frames_allowed
    cdef bytes entry = new_bytes(entry_size(CREDIT_EVENT, credit))
    check_filled(write_entry(CREDIT_EVENT, credit, buffer_of(entry), PyBytes_GET_SIZE(entry)))
    return entry


cdef bytes timestamp_bytes(time):
    cdef Timestamp timestamp
    timestamp.seconds = time.seconds
    timestamp.nanos = time.nanos
    cdef bytes encoded = new_bytes(size_of(timestamp))
    check_filled(write_message(timestamp, buffer_of(encoded), PyBytes_GET_SIZE(encoded)))
    return encoded


cdef inline Bytes view_of(bytes owner) noexcept:
    """Look at bytes that the caller keeps alive."""
    cdef Bytes view
    view.data = <const uint8_t*> PyBytes_AS_STRING(owner)
    view.size = PyBytes_GET_SIZE(owner)
    return view


cdef inline bytes new_bytes(size_t size):
    """Make bytes of this size, to be filled before anybody else sees them."""
    return PyBytes_FromStringAndSize(NULL, size)


cdef inline uint8_t* buffer_of(bytes fresh) noexcept:
    return <uint8_t*> PyBytes_AS_STRING(fresh)


cdef inline uint32_t saturated(uint64_t microseconds) noexcept:
    """Stop at the largest value of the field, 71 minutes: a frame may wait that long under EVERY_FRAME."""
    return <uint32_t> min(microseconds, <uint64_t> 0xFFFFFFFF)


cdef inline int check_filled(cbool complete) except -1:
    if not complete:
        raise SystemError("wire encoder: counted and written sizes differ")
    return 0

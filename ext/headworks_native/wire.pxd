"""The shape of the wire reader and encoders: src/wire.hpp as Cython sees it, and the frame that is handed out."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool


cdef extern from "wire.hpp" namespace "headworks::wire" nogil:
    const size_t DETECTION_SIZE
    const uint8_t RESULT_EVENT, DROPPED_EVENT, CREDIT_EVENT

    cppclass Bytes:
        const uint8_t* data
        size_t size

    cppclass Frame:
        uint64_t frame_id
        Bytes capture_time
        cbool has_capture_time
        int32_t encoding
        uint32_t width
        uint32_t height
        Bytes data

    cppclass Timestamp:
        int64_t seconds
        int32_t nanos

    cppclass Detections:
        Bytes packed

    cppclass Output:
        Bytes prefix
        cbool has_detections
        Detections detections

    cppclass Timings:
        uint32_t waited_us
        uint32_t decoded_us
        uint32_t batched_us
        uint32_t executed_us
        uint32_t postprocessed_us

    cppclass Result:
        uint64_t frame_id
        Bytes capture_time
        cbool has_capture_time
        uint32_t source_width
        uint32_t source_height
        Output output
        uint32_t batch_size
        cbool deadline_missed
        Timings timings
        void measure()

    cppclass DropCount:
        int32_t reason
        int32_t stage
        uint64_t count

    cppclass Dropped:
        uint64_t first_frame_id
        uint64_t last_frame_id
        const DropCount* counts
        size_t count

    cppclass Credit:
        uint64_t frames_allowed

    cbool read_request(Bytes message, Frame& frame)
    size_t size_of[Body](const Body& body)
    size_t entry_size[Body](uint8_t event_tag, const Body& body)
    cbool write_entry[Body](uint8_t event_tag, const Body& body, uint8_t* buffer, size_t size)
    cbool write_message[Body](const Body& body, uint8_t* buffer, size_t size)


cdef class FrameMessage:
    cdef readonly uint64_t frame_id
    cdef readonly bytes capture_time      # the Timestamp submessage, canonical; empty if absent
    cdef readonly bint has_capture_time
    cdef readonly int32_t encoding
    cdef readonly uint32_t width
    cdef readonly uint32_t height
    cdef readonly bytes message           # owns the payload
    cdef readonly Py_ssize_t data_offset
    cdef readonly Py_ssize_t data_length

# The C shape of the ring of batch buffers, for other extensions.

from libc.stdint cimport int32_t, int64_t, uint8_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from headworks_native.lane cimport CTicket


cdef extern from "ring.hpp" namespace "headworks" nogil:
    cdef enum class BufferState(int):
        FREE
        OPEN
        CLOSED
        RUNNING
        DRAINING

    cdef cppclass RingShape:
        int32_t buffers, max_batch
        size_t position_bytes
        size_t buffer_bytes()
        size_t region_bytes()

    cdef cppclass Ring:
        int32_t open_buffer()
        BufferState state(int32_t buffer)
        int32_t claimed(int32_t buffer)
        int32_t published(int32_t buffer)
        uint8_t* buffer_memory(int32_t buffer)


cdef extern from "lane_ring.hpp" namespace "headworks" nogil:
    cdef cppclass CLaneRing "headworks::LaneRing":
        CLaneRing(RingShape) except +
        const Ring& ring()
        int32_t claim(CTicket&, int64_t now_ns)
        void publish(int32_t position, int64_t now_ns)
        int32_t seal()
        cbool settled(int32_t buffer)
        void wait_settled(int32_t buffer)
        int32_t judge(int32_t buffer, int64_t now_ns)
        void launch(int32_t buffer, int64_t now_ns)
        void drained(int32_t buffer, int64_t now_ns)
        void release(int32_t buffer)


cdef class LaneRing:
    cdef unique_ptr[CLaneRing] native
    cdef RingShape shape
    cdef list held                # the Ticket in each position, from claim to release; None: nobody
    cdef vector[uint8_t] written  # 1 from publish to release
    cdef int check_buffer(self, int32_t buffer, BufferState expected, str verb) except -1


cdef int check_shape(RingShape shape) except -1

# The C shape of the sleeping device lane, for other extensions.

from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr

from headworks_native.lane cimport CCompletionRing, CompletionRing, CTicket
from headworks_native.ring cimport RingShape


cdef extern from "sleeping.hpp" namespace "headworks" nogil:
    cdef cppclass DeviceLane:
        cbool submit(CTicket&)
        void close()
        int64_t ahead()
        int64_t batches(int32_t size)

    cdef cppclass DecodeTimes:
        int64_t usual_ns
        double slow_fraction
        int64_t slow_ns

    cdef cppclass EngineTimes:
        int64_t base_ns, frame_ns

    cdef cppclass FailingBatches:
        int64_t from_ "from"
        int64_t count

    cdef cppclass CSleepingDecoder "headworks::SleepingDecoder":
        CSleepingDecoder(DecodeTimes, uint64_t seed, size_t head_bytes) except +
        void rest()

    cdef cppclass CSleepingEngine "headworks::SleepingEngine":
        CSleepingEngine(EngineTimes, FailingBatches, size_t position_bytes, int32_t detections) except +
        void begin(int32_t count)
        void end()

    unique_ptr[DeviceLane] make_sleeping_lane(
        RingShape, int32_t decoders, DecodeTimes, uint64_t seed, EngineTimes, FailingBatches, int32_t detections,
        CCompletionRing&
    ) except +


cdef class SleepingLane:
    cdef unique_ptr[DeviceLane] native
    cdef readonly CompletionRing completions
    cdef readonly int32_t decoders, max_batch, target
    cdef cbool open

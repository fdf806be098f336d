# The C shape of the lanes, for other extensions: the headers in src/, and the classes around them.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.atomic cimport atomic
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "eventcount.hpp" namespace "headworks" nogil:
    const int64_t FOREVER
    int64_t monotonic_ns()


cdef extern from "ticket.hpp" namespace "headworks" nogil:
    cdef enum class Status(int):
        PENDING
        DONE
        FAILED
        DEADLINE
        CANCELLED

    cdef enum class Stage(int):
        NONE
        BEFORE_DECODE
        BEFORE_BATCH

    cdef cppclass Detection:
        pass

    cdef cppclass CTicket "headworks::Ticket":
        const uint8_t* data
        size_t length
        int32_t encoding, width, height
        int64_t deadline_ns
        float score_threshold
        int32_t max_detections
        const void* seat
        void* object
        atomic[cbool] cancelled
        Status status
        Stage stage
        int32_t error_code, source_width, source_height, batch_size
        int64_t decode_started_ns, published_ns, launched_ns, executed_ns, completed_ns
        string detail
        vector[Detection] detections
        CTicket* next
        cbool reserved
        cbool pending()
        void drop(Status why, Stage how_far)
        void fail(int32_t code, string why)
        cbool begin_decode(int64_t now_ns)


cdef extern from "queue.hpp" namespace "headworks" nogil:
    cdef cppclass CTicketQueue "headworks::TicketQueue":
        cbool push(CTicket&)
        int32_t take(CTicket** out, int32_t max, int64_t until_ns)
        CTicket* close()
        cbool closed()
        int64_t ahead()


cdef extern from "completion.hpp" namespace "headworks" nogil:
    cdef cppclass CCompletionRing "headworks::CompletionRing":
        CCompletionRing(int64_t capacity) except +
        int fileno()
        int64_t capacity()
        cbool reserve(CTicket&)
        void push(CTicket&)
        void wake()
        void begin_drain()
        CTicket* pop()


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
        CSleepingDecoder(DecodeTimes, uint64_t seed) except +
        void rest()

    cdef cppclass CSleepingEngine "headworks::SleepingEngine":
        CSleepingEngine(EngineTimes, FailingBatches, size_t position_bytes) except +
        void begin(int32_t count)
        void end()

    unique_ptr[DeviceLane] make_sleeping_lane(
        RingShape, int32_t decoders, DecodeTimes, uint64_t seed, EngineTimes, FailingBatches, CCompletionRing&
    ) except +


cdef class TicketQueue:
    cdef unique_ptr[CTicketQueue] native


cdef class Ticket:
    cdef CTicket native
    cdef readonly object frame
    cdef readonly object seat
    cdef readonly bytes owner
    cdef cbool travelling         # from push or submit until drained or handed back
    cdef TicketQueue queue        # from take on: its count, which the ticket is in, must stay alive
    cdef object given_detections  # bytes from a Python lane; None: those of `native`
    cdef void come_home(self) noexcept


cdef class CompletionRing:
    cdef unique_ptr[CCompletionRing] native


cdef class LaneRing:
    cdef unique_ptr[CLaneRing] native
    cdef RingShape shape
    cdef list held                # the Ticket in each position, from claim to release; None: nobody
    cdef vector[uint8_t] written  # 1 from publish to release
    cdef int check_buffer(self, int32_t buffer, BufferState expected, str verb) except -1


cdef class SleepingLane:
    cdef unique_ptr[DeviceLane] native
    cdef readonly CompletionRing completions
    cdef readonly int32_t decoders, max_batch, target
    cdef cbool open

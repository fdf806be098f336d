# The C shape of tickets and their way, for other extensions: the headers in src/, and the classes around them.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
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
        int32_t encoding
        uint32_t width, height
        int64_t deadline_ns
        float score_threshold
        int32_t max_detections, form
        const void* seat
        void* object
        atomic[cbool] cancelled
        Status status
        Stage stage
        int32_t error_code, source_width, source_height, batch_size
        cbool leads_batch
        int64_t decode_started_ns, decoded_ns, published_ns, launched_ns, executed_ns, completed_ns
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
    cdef readonly bytes value     # a result that is no detections, from a Python lane; else empty
    cdef void come_home(self) noexcept


cdef class CompletionRing:
    cdef unique_ptr[CCompletionRing] native


cdef int require_at_home(Ticket ticket) except -1

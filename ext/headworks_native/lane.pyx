# cython: freethreading_compatible=False
"""The way into a lane and out of it: tickets, the queue that carries them in, the ring that brings them back.

The loop makes tickets and drains completions; CPU lane threads take and push; device lanes have native threads
that never come here. All concurrency is in src/*.hpp; DESIGN.md says which thread does what.

References: whoever holds a ticket natively (queue, device lane, completion ring) owns one reference to it,
taken at push or submit and handed over at take or drain, always with the GIL.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from cython.operator cimport dereference as deref

PENDING, DONE, FAILED, DEADLINE, CANCELLED = range(5)


@cython.final
cdef class Ticket:
    """One admitted frame on its way through a lane.

    `data` is `owner[offset:offset + length]`, not copied; `deadline_ns` is absolute on the monotonic clock (0:
    none); `seat` is the place it runs in: a take never mixes seats; `form` is a number of ResultOptions.Form. The
    constructor raises ValueError for a payload outside its owner.
    """

    def __init__(
        self, frame: object, bytes owner not None, size_t offset, size_t length, *, int32_t encoding=0,
        uint32_t width=0, uint32_t height=0, int64_t deadline_ns=0, float score_threshold=0.0,
        int32_t max_detections=0, int32_t form=1, seat: object = None,
    ):
        cdef size_t size = len(owner)
        if offset > size or length > size - offset:
            raise ValueError(f"expected a payload within {size} bytes, got {length} bytes at {offset}")
        self.frame = frame
        self.seat = seat
        self.owner = owner
        self.native.data = <const uint8_t*>PyBytes_AS_STRING(owner) + offset
        self.native.length = length
        self.native.encoding = encoding
        self.native.width = width
        self.native.height = height
        self.native.deadline_ns = deadline_ns
        self.native.score_threshold = score_threshold
        self.native.max_detections = max_detections
        self.native.form = form
        self.value = b""
        self.native.seat = <void*>seat
        self.native.object = <void*>self

    @property
    def data(self):
        """The payload: a read-only memoryview, without a copy."""
        cdef size_t offset = <size_t>(<const char*>self.native.data - PyBytes_AS_STRING(self.owner))
        return memoryview(self.owner)[offset:offset + self.native.length]

    @property
    def encoding(self): return self.native.encoding
    @property
    def width(self): return self.native.width
    @property
    def height(self): return self.native.height
    @property
    def deadline_ns(self): return self.native.deadline_ns
    @property
    def score_threshold(self): return self.native.score_threshold
    @property
    def max_detections(self): return self.native.max_detections
    @property
    def form(self): return self.native.form

    @property
    def cancelled(self):
        """Nobody waits for this frame any more. The loop may set it at any time."""
        return self.native.cancelled.load()

    @cancelled.setter
    def cancelled(self, cbool value): self.native.cancelled.store(value)

    # What the lane fills. Only its owner reads or writes these.

    @property
    def status(self):
        """PENDING, DONE, FAILED, DEADLINE or CANCELLED."""
        return <int>self.native.status

    @property
    def stage(self):
        """How far a DEADLINE or CANCELLED frame had come, as a number of DropStage; else 0."""
        return <int>self.native.stage

    @property
    def error_code(self): return self.native.error_code
    @property
    def detail(self): return self.native.detail.decode("utf-8", "replace")
    @property
    def batch_size(self): return self.native.batch_size
    @property
    def leads_batch(self):
        """Whether this is the first wanted ticket of a batch that was launched: who counts batches counts these."""
        return self.native.leads_batch

    @property
    def source_width(self): return self.native.source_width
    @source_width.setter
    def source_width(self, int32_t value): self.native.source_width = value
    @property
    def source_height(self): return self.native.source_height
    @source_height.setter
    def source_height(self, int32_t value): self.native.source_height = value

    @property
    def decode_started_ns(self): return self.native.decode_started_ns
    @property
    def decoded_ns(self): return self.native.decoded_ns
    @property
    def published_ns(self): return self.native.published_ns
    @property
    def launched_ns(self): return self.native.launched_ns
    @property
    def executed_ns(self): return self.native.executed_ns
    @property
    def completed_ns(self): return self.native.completed_ns

    @property
    def detections(self):
        """Packed 24-byte detections, best first, as bytes."""
        if self.given_detections is None:
            self.given_detections = PyBytes_FromStringAndSize(
                <const char*>self.native.detections.data(), self.native.detections.size() * sizeof(Detection)
            )
        return self.given_detections

    # For lanes whose thread is Python's.

    def begin_decode(self, *, int64_t now_ns=0):
        """Stamp the start. False: late or cancelled, not to be decoded; its status says so."""
        return self.native.begin_decode(now_ns if now_ns else monotonic_ns())

    def finish(self, bytes detections not None, bytes value not None=b""):
        """Conclude DONE with packed detections, or with the encoded field of Output that another form is told in."""
        self.require_pending()
        self.given_detections = detections
        self.value = value
        self.native.status = Status.DONE

    def fail(self, int32_t code, str detail not None):
        """Conclude FAILED, with a FrameErrorCode and what was expected and what came."""
        self.require_pending()
        self.native.fail(code, detail.encode())

    def cancel(self):
        """Conclude CANCELLED: its lane ends without having launched it."""
        self.require_pending()
        self.native.drop(Status.CANCELLED, Stage.BEFORE_BATCH if self.native.published_ns else Stage.BEFORE_DECODE)

    cdef void come_home(self) noexcept:
        self.travelling = False
        self.queue = None

    def require_pending(self):
        """Raise RuntimeError when the ticket is already concluded."""
        if not self.native.pending():
            raise RuntimeError(f"expected a pending ticket, got one with status {self.status}")


@cython.final
cdef class CompletionRing:
    """Many lane threads to the one loop, which watches `fileno()` and drains.

    `capacity`: the tickets that can be outstanding at once, streams x max in flight. Each holds a cell from
    submit (a CPU lane's: from push) until drain, so a push finds room or the bound was derived wrongly.
    """

    def __cinit__(self, int64_t capacity):
        if not 1 <= capacity <= 1 << 24:
            raise ValueError(f"expected a capacity of 1 to {1 << 24} tickets, got {capacity}")
        self.native.reset(new CCompletionRing(capacity))
        if deref(self.native).fileno() < 0:
            raise OSError("no descriptor left for an eventfd")

    def __dealloc__(self):
        cdef CTicket* ticket = deref(self.native).pop() if self.native else NULL
        while ticket != NULL:
            Py_DECREF(<object>ticket.object)
            ticket = deref(self.native).pop()

    def fileno(self):
        """The eventfd, non-blocking, readable when drain() has something or room has appeared."""
        return deref(self.native).fileno()

    @property
    def capacity(self): return deref(self.native).capacity()

    def push(self, Ticket ticket not None):
        """Hand a concluded ticket to the loop and wake it. Any Python thread.

        Raises RuntimeError for a ticket that is pending or already in the ring, OverflowError beyond the bound.
        """
        if ticket.native.pending():
            raise RuntimeError("expected a concluded ticket, got a pending one")
        if ticket.native.reserved:
            raise RuntimeError("the ticket is already on its way to the loop")
        if not deref(self.native).reserve(ticket.native):
            raise OverflowError(f"more than {self.capacity} tickets outstanding: the bound was derived wrongly")
        Py_INCREF(ticket)
        deref(self.native).push(ticket.native)
        deref(self.native).wake()

    def post_launch(self):
        """Wake the loop without a ticket: room for admission has appeared."""
        deref(self.native).wake()

    def drain(self):
        """Reset the eventfd and return all finished tickets. The loop only."""
        cdef list tickets = []
        cdef CTicket* native
        cdef Ticket ticket
        deref(self.native).begin_drain()
        native = deref(self.native).pop()
        while native != NULL:
            ticket = <Ticket>native.object
            ticket.come_home()
            tickets.append(ticket)
            Py_DECREF(ticket)
            native = deref(self.native).pop()
        return tickets


@cython.final
cdef class TicketQueue:
    """The loop to the decoding threads of one lane, first in, first out."""

    def __cinit__(self):
        self.native.reset(new CTicketQueue())

    def __dealloc__(self):
        cdef CTicket* ticket = deref(self.native).close()
        cdef CTicket* after
        while ticket != NULL:
            after = ticket.next
            Py_DECREF(<object>ticket.object)
            ticket = after

    def push(self, Ticket ticket not None):
        """Hand over a pending ticket. Raises RuntimeError once closed, or for a ticket that is in a lane."""
        require_at_home(ticket)
        ticket.travelling = True
        Py_INCREF(ticket)
        if not deref(self.native).push(ticket.native):
            ticket.come_home()
            Py_DECREF(ticket)
            raise RuntimeError("the lane's queue is closed")

    def take(self, int32_t max, int64_t timeout_ms=-1):
        """Wait, without the GIL, for tickets: at most `max`, in order, all of one seat.

        An empty list: the queue is closed, or `timeout_ms` (negative: no limit) has passed.
        """
        if max < 1:
            raise ValueError(f"expected to take at least 1 ticket, got {max}")
        cdef vector[CTicket*] taken
        cdef int64_t until = FOREVER if timeout_ms < 0 else monotonic_ns() + timeout_ms * 1_000_000
        cdef int32_t count, i
        taken.resize(max)
        with nogil:
            count = deref(self.native).take(taken.data(), max, until)
        return [hand_over(taken[i], self) for i in range(count)]

    def close(self):
        """Refuse further tickets, wake all takers, and return the tickets nobody took. Idempotent."""
        cdef list rest = []
        cdef Ticket ticket
        cdef CTicket* native = deref(self.native).close()
        cdef CTicket* after
        while native != NULL:
            after = native.next
            native.next = NULL
            ticket = hand_over(native, None)
            ticket.come_home()
            rest.append(ticket)
            native = after
        return rest

    @property
    def closed(self): return deref(self.native).closed()

    def ahead(self):
        """Tickets pushed and neither launched nor concluded."""
        return deref(self.native).ahead()


cdef Ticket hand_over(CTicket* native, TicketQueue queue):
    """The Python ticket, with the reference that its native holder owned handed to the caller."""
    ticket = <Ticket>native.object
    ticket.queue = queue
    Py_DECREF(ticket)
    return ticket


cdef int require_at_home(Ticket ticket) except -1:
    if ticket.travelling:  # first: a travelling ticket's status is its lane's to touch
        raise RuntimeError("the ticket is already in a lane")
    ticket.require_pending()
    return 0

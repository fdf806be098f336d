"""The lanes' Python shell: tickets, the queue into a lane, the ring of batch buffers, the ring out of it.

The loop makes tickets and drains completions; CPU lane threads take, claim, publish and run; device lanes have
native threads that never come here. All concurrency is in src/*.hpp; DESIGN.md says which thread does what.

References: whoever holds a ticket natively (queue, device lane, completion ring) owns one reference to it,
taken at push or submit and handed over at take or drain, always with the GIL.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from cython.operator cimport dereference as deref

PENDING, DONE, FAILED, DEADLINE, CANCELLED = range(5)

STATES = ("free", "open", "closed", "running", "draining")


@cython.final
cdef class Ticket:
    """One admitted frame on its way through a lane.

    `data` is `owner[offset:offset + length]`, not copied; `deadline_ns` is absolute on the monotonic clock (0:
    none); `seat` is the place it runs in: a take never mixes seats. The constructor raises ValueError for a
    payload outside its owner.
    """

    def __init__(
        self, frame: object, bytes owner not None, size_t offset, size_t length, *, int32_t encoding=0,
        int32_t width=0, int32_t height=0, int64_t deadline_ns=0, float score_threshold=0.0,
        int32_t max_detections=0, seat: object = None,
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

    def finish(self, bytes detections not None):
        """Conclude DONE with packed detections."""
        self.require_pending()
        self.given_detections = detections
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


@cython.final
cdef class LaneRing:
    """A ring of batch buffers, `max_batch` positions of `position_bytes` each, in one page-aligned region.

    Claim and publish from any thread, all else from the one that dispatches. `now_ns` is monotonic; 0 reads the
    clock. A call out of turn raises RuntimeError and changes nothing.
    """

    def __cinit__(self, *, int32_t buffers, int32_t max_batch, size_t position_bytes):
        self.shape.buffers = buffers
        self.shape.max_batch = max_batch
        self.shape.position_bytes = position_bytes
        check_shape(self.shape)
        self.native.reset(new CLaneRing(self.shape))
        self.held = [None] * (buffers * max_batch)
        self.written.assign(buffers * max_batch, 0)

    @property
    def buffers(self): return self.shape.buffers
    @property
    def max_batch(self): return self.shape.max_batch
    @property
    def position_bytes(self): return self.shape.position_bytes

    @property
    def region_bytes(self):
        """What the ring takes from the machine."""
        return self.shape.region_bytes()

    def claim(self, Ticket ticket not None, *, int64_t now_ns=0):
        """Take the next position of the open buffer for a decoded ticket: buffer * max_batch + index.

        -1: no room (the ticket stays pending), or the ticket is late or cancelled (its status says so).
        """
        cdef int32_t position = deref(self.native).claim(ticket.native, now_ns if now_ns else monotonic_ns())
        if position >= 0:
            self.held[position] = ticket
        return position

    def publish(self, int32_t position, *, int64_t now_ns=0):
        """Say that a claimed position is written."""
        if not 0 <= position < <int32_t>self.written.size():
            raise IndexError(f"expected a position below {self.written.size()}, got {position}")
        if self.held[position] is None or self.written[position]:
            raise RuntimeError(f"position {position} is not claimed, or already published")
        self.written[position] = 1
        deref(self.native).publish(position, now_ns if now_ns else monotonic_ns())

    def seal(self):
        """Close the open buffer to claims and open the next free one. Its index; -1: nothing is claimed."""
        return deref(self.native).seal()

    def settled(self, int32_t buffer):
        """True when every claimed position of a buffer is published."""
        check_index(buffer, self.shape.buffers)
        return deref(self.native).settled(buffer)

    def judge(self, int32_t buffer, *, int64_t now_ns=0):
        """Conclude the late and cancelled tickets of a settled buffer; how many are still wanted."""
        self.check_buffer(buffer, BufferState.CLOSED, "judge")
        if not deref(self.native).settled(buffer):
            raise RuntimeError(f"buffer {buffer} has positions that are claimed and not published")
        return deref(self.native).judge(buffer, now_ns if now_ns else monotonic_ns())

    def close(self, *, int64_t now_ns=0):
        """Seal, wait without the GIL until all claims are published, and judge. Returns (buffer, count).

        `count` positions from the first are to be run. (-1, 0): nothing was claimed. (buffer, 0): every frame in
        it is late or cancelled: release it without a launch.
        """
        cdef int32_t buffer = deref(self.native).seal()
        if buffer < 0:
            return -1, 0
        if not deref(self.native).settled(buffer):
            with nogil:
                deref(self.native).wait_settled(buffer)
        if deref(self.native).judge(buffer, now_ns if now_ns else monotonic_ns()) == 0:
            return buffer, 0
        return buffer, deref(self.native).ring().claimed(buffer)

    def launch(self, int32_t buffer, *, int64_t now_ns=0):
        """Mark a closed buffer running; its tickets leave the lane's `ahead`."""
        self.check_buffer(buffer, BufferState.CLOSED, "launch")
        deref(self.native).launch(buffer, now_ns if now_ns else monotonic_ns())

    def drained(self, int32_t buffer, *, int64_t now_ns=0):
        """Mark a running buffer executed: its outputs may be read."""
        self.check_buffer(buffer, BufferState.RUNNING, "drain")
        deref(self.native).drained(buffer, now_ns if now_ns else monotonic_ns())

    def release(self, int32_t buffer):
        """Free a draining buffer, or a closed one that is not to be run; it opens if no other is open."""
        check_index(buffer, self.shape.buffers)
        if deref(self.native).ring().state(buffer) != BufferState.CLOSED:
            self.check_buffer(buffer, BufferState.DRAINING, "release")
        elif not deref(self.native).settled(buffer):
            raise RuntimeError(f"buffer {buffer} has positions that are claimed and not published")
        cdef int32_t position
        cdef int32_t first = buffer * self.shape.max_batch
        for position in range(first, first + deref(self.native).ring().claimed(buffer)):
            self.held[position] = None
            self.written[position] = 0
        deref(self.native).release(buffer)

    def tickets(self, int32_t buffer):
        """The tickets in a buffer's claimed positions, in order."""
        check_index(buffer, self.shape.buffers)
        cdef int32_t first = buffer * self.shape.max_batch
        return self.held[first:first + deref(self.native).ring().claimed(buffer)] if self.state(buffer) != "free" else []

    @property
    def open_buffer(self):
        """The buffer that takes claims; -1: none."""
        return deref(self.native).ring().open_buffer()

    def state(self, int32_t buffer):
        """One of STATES."""
        check_index(buffer, self.shape.buffers)
        return STATES[<int>deref(self.native).ring().state(buffer)]

    def claimed(self, int32_t buffer):
        """Positions claimed in the buffer's present life."""
        check_index(buffer, self.shape.buffers)
        return deref(self.native).ring().claimed(buffer)

    def published(self, int32_t buffer):
        """Positions published in the buffer's present life."""
        check_index(buffer, self.shape.buffers)
        return deref(self.native).ring().published(buffer)

    def buffer_memory(self, int32_t buffer):
        """A buffer's positions as one writable memoryview of bytes; it keeps the ring alive."""
        check_index(buffer, self.shape.buffers)
        return memoryview(BufferMemory(self, buffer))

    def cycle(self, list tickets not None, int64_t rounds):
        """Run whole batches of these tickets through the ring natively, without the GIL: for bench/lane_ring.py."""
        cdef vector[CTicket*] natives
        cdef Ticket ticket
        if not 1 <= len(tickets) <= self.shape.max_batch:
            raise ValueError(f"expected 1 to {self.shape.max_batch} tickets, got {len(tickets)}")
        for ticket in tickets:
            ticket.require_pending()
            natives.push_back(&ticket.native)
        cdef CLaneRing* ring = self.native.get()
        cdef CTicket* native
        cdef int32_t buffer
        cdef int64_t i
        with nogil:
            for i in range(rounds):
                for native in natives:
                    ring.publish(ring.claim(deref(native), monotonic_ns()), monotonic_ns())
                buffer = ring.seal()
                ring.judge(buffer, monotonic_ns())
                ring.launch(buffer, monotonic_ns())
                ring.drained(buffer, monotonic_ns())
                ring.release(buffer)

    cdef int check_buffer(self, int32_t buffer, BufferState expected, str verb) except -1:
        check_index(buffer, self.shape.buffers)
        if deref(self.native).ring().state(buffer) != expected:
            raise RuntimeError(f"cannot {verb} buffer {buffer}: it is {self.state(buffer)}")
        return 0


@cython.final
cdef class BufferMemory:
    """The buffer protocol over one batch buffer."""

    cdef LaneRing ring
    cdef int32_t buffer

    def __cinit__(self, LaneRing ring not None, int32_t buffer):
        self.ring = ring
        self.buffer = buffer

    def __getbuffer__(self, Py_buffer* view, int flags):
        cdef size_t size = self.ring.shape.max_batch * self.ring.shape.position_bytes
        PyBuffer_FillInfo(view, self, deref(self.ring.native).ring().buffer_memory(self.buffer), size, 0, flags)


@cython.final
@cython.no_gc_clear  # __dealloc__ needs the completion ring
cdef class SleepingLane:
    """A device lane whose decoders and engine sleep: for tests, fault tests and benchmarks.

    A decoder takes `decode_ms`, or `slow_ms` for `slow_fraction` of the frames (seeded); the engine takes
    `engine_base_ms + engine_frame_ms * count`. Batches `fail_from` to `fail_from + fail_count - 1` fail (the first
    is 0). A frame's one detection comes from the first `position_bytes` of its payload: x1 = the sum of the bytes
    mod 65,536, y1 = the first two bytes (little-endian), x2 = x1 + 1, y2 = y1 + 1, score 0.5, class_id = the first
    byte. A payload that begins with b"BAD!" is undecodable. The source size is the ticket's width and height.
    """

    def __cinit__(
        self, CompletionRing completions not None, *, int32_t decoders, double decode_ms, double slow_fraction=0.0,
        double slow_ms=0.0, uint64_t seed=0, double engine_base_ms, double engine_frame_ms, int32_t max_batch,
        int32_t target, size_t position_bytes=1024, int32_t buffers=3, int64_t fail_from=0, int64_t fail_count=0,
    ):
        cdef RingShape shape
        shape.buffers = buffers
        shape.max_batch = max_batch
        shape.position_bytes = position_bytes
        check_shape(shape)
        if decoders < 1:
            raise ValueError(f"expected at least 1 decoder, got {decoders}")
        if not 1 <= target <= max_batch:
            raise ValueError(f"expected a target of 1 to {max_batch}, got {target}")
        self.completions = completions
        self.decoders = decoders
        self.max_batch = max_batch
        self.target = target
        self.native = make_sleeping_lane(
            shape, decoders, decode_times(decode_ms, slow_fraction, slow_ms), seed,
            engine_times(engine_base_ms, engine_frame_ms), failing_batches(fail_from, fail_count),
            deref(completions.native),
        )
        self.open = True

    def __dealloc__(self):
        if self.open:
            with nogil:
                deref(self.native).close()

    def submit(self, Ticket ticket not None):
        """Hand over a pending ticket; it comes back through the completion ring, whatever happens.

        Raises RuntimeError once closed or for a ticket that is in a lane, OverflowError beyond the completion
        ring's capacity; the ticket is then the caller's still.
        """
        require_at_home(ticket)
        if not self.open:
            raise RuntimeError("the lane is closed")
        if not deref(self.completions.native).reserve(ticket.native):
            raise OverflowError(f"more than {self.completions.capacity} tickets outstanding")
        ticket.travelling = True
        Py_INCREF(ticket)
        deref(self.native).submit(ticket.native)

    def ahead(self):
        """Tickets submitted and neither launched nor concluded."""
        return deref(self.native).ahead()

    def batch_sizes(self):
        """Batches launched so far, by size."""
        counts = {size: deref(self.native).batches(size) for size in range(1, self.max_batch + 1)}
        return {size: count for size, count in counts.items() if count}

    def close(self):
        """Stop. The running batch finishes, every other ticket is CANCELLED; drain() then has them all. Idempotent."""
        self.open = False
        with nogil:
            deref(self.native).close()


@cython.final
cdef class SleepingDecoder:
    """SleepingLane's decoder alone, for baselines that are no lane. One thread at a time."""

    cdef unique_ptr[CSleepingDecoder] native

    def __cinit__(self, *, double decode_ms, double slow_fraction=0.0, double slow_ms=0.0, uint64_t seed=0):
        self.native.reset(new CSleepingDecoder(decode_times(decode_ms, slow_fraction, slow_ms), seed))

    def decode(self):
        """Take the time of one frame, without the GIL."""
        with nogil:
            deref(self.native).rest()


@cython.final
cdef class SleepingEngine:
    """SleepingLane's engine alone, for baselines that are no lane. One thread at a time."""

    cdef unique_ptr[CSleepingEngine] native

    def __cinit__(self, *, double engine_base_ms, double engine_frame_ms):
        self.native.reset(new CSleepingEngine(engine_times(engine_base_ms, engine_frame_ms), failing_batches(0, 0), 1))

    def run(self, int32_t count):
        """Take the time of one batch, without the GIL."""
        with nogil:
            deref(self.native).begin(count)
            deref(self.native).end()


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


cdef int check_index(int32_t buffer, int32_t buffers) except -1:
    if not 0 <= buffer < buffers:
        raise IndexError(f"expected a buffer below {buffers}, got {buffer}")
    return 0


cdef int check_shape(RingShape shape) except -1:
    if not (1 <= shape.buffers <= 64 and 1 <= shape.max_batch <= 4096 and 1 <= shape.position_bytes <= 1 << 30):
        raise ValueError(
            f"expected 1 to 64 buffers of 1 to 4,096 positions of 1 byte to 1 GiB, got {shape.buffers} of "
            f"{shape.max_batch} of {shape.position_bytes}"
        )
    return 0


cdef DecodeTimes decode_times(double decode_ms, double slow_fraction, double slow_ms):
    cdef DecodeTimes times
    times.usual_ns = <int64_t>(decode_ms * 1e6)
    times.slow_fraction = slow_fraction
    times.slow_ns = <int64_t>(slow_ms * 1e6)
    return times


cdef EngineTimes engine_times(double base_ms, double frame_ms):
    cdef EngineTimes times
    times.base_ns = <int64_t>(base_ms * 1e6)
    times.frame_ns = <int64_t>(frame_ms * 1e6)
    return times


cdef FailingBatches failing_batches(int64_t first, int64_t count):
    cdef FailingBatches failing
    failing.from_ = first
    failing.count = count
    return failing

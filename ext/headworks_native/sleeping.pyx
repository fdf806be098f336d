# cython: freethreading_compatible=False
"""A device lane whose decoders and engine sleep, and the two alone: for tests, fault tests and benchmarks.

Everything but the sleeping is the real device lane: decoders, ring, dispatcher, completion.
"""

cimport cython
from cpython.ref cimport Py_INCREF
from cython.operator cimport dereference as deref

from headworks_native.lane cimport CompletionRing, Ticket, require_at_home
from headworks_native.ring cimport RingShape, check_shape


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
        int32_t detections=1,
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
            engine_times(engine_base_ms, engine_frame_ms), failing_batches(fail_from, fail_count), detections,
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
        self.native.reset(new CSleepingDecoder(decode_times(decode_ms, slow_fraction, slow_ms), seed, 0))

    def decode(self):
        """Take the time of one frame, without the GIL."""
        with nogil:
            deref(self.native).rest()


@cython.final
cdef class SleepingEngine:
    """SleepingLane's engine alone, for baselines that are no lane. One thread at a time."""

    cdef unique_ptr[CSleepingEngine] native

    def __cinit__(self, *, double engine_base_ms, double engine_frame_ms):
        self.native.reset(new CSleepingEngine(engine_times(engine_base_ms, engine_frame_ms), failing_batches(0, 0), 1, 1))

    def run(self, int32_t count):
        """Take the time of one batch, without the GIL."""
        with nogil:
            deref(self.native).begin(count)
            deref(self.native).end()


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

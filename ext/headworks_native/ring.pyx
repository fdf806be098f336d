# cython: freethreading_compatible=False
"""A lane's ring of batch buffers, for lanes whose threads are Python's. Device lanes use src/lane_ring.hpp as it is.

A CPU lane's thread claims, writes, publishes, closes, launches and releases in turn, on a ring of one buffer.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cython.operator cimport dereference as deref

from headworks_native.lane cimport CTicket, Ticket, monotonic_ns

STATES = ("free", "open", "closed", "running", "draining")


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

    def recover(self):
        """Bring every claimed position out and free all buffers, after a defect between claim and release.

        Returns the tickets that sat in them, as they are. Only while no other thread uses the ring: that of a CPU
        lane calls it when its work on a batch raised, because an unpublished claim would block the next close.
        """
        cdef list tickets = []
        cdef int32_t position, buffer
        for position in range(<int32_t>self.written.size()):
            if self.held[position] is not None and not self.written[position]:
                self.publish(position)
        while self.seal() >= 0:
            pass
        for buffer in range(self.shape.buffers):
            tickets += self.tickets(buffer)
            if self.state(buffer) == "running":
                self.drained(buffer)
            if self.state(buffer) in ("closed", "draining"):
                self.release(buffer)
        return tickets

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

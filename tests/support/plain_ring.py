"""The lanes' ring in plain Python: what headworks_native.ring must equal, without threads, atomics or memory.

The oracle of tests/property/test_ring.py and the baseline of bench/lane_ring.py. It takes a lane's tickets through
claim, publish, seal, judge, launch, drained and release, in one thread, by the words of DESIGN.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PENDING, DONE, FAILED, DEADLINE, CANCELLED = range(5)
BEFORE_DECODE, BEFORE_BATCH = 2, 3


@dataclass(eq=False)
class PlainTicket:
    """One frame; `deadline_ns` 0 means none."""

    deadline_ns: int = 0
    cancelled: bool = False
    status: int = PENDING
    stage: int = 0
    batch_size: int = 0
    decode_started_ns: int = 0
    published_ns: int = 0
    launched_ns: int = 0
    executed_ns: int = 0
    counted: bool = False

    def wanted(self, stage: int, now_ns: int) -> bool:
        """Look at it before a piece of work: False when nobody waits for it any more."""
        if self.status != PENDING:
            return False
        if self.cancelled:
            self.status, self.stage = CANCELLED, stage
        elif self.deadline_ns and now_ns >= self.deadline_ns:
            self.status, self.stage = DEADLINE, stage
        return self.status == PENDING

    def begin_decode(self, now_ns: int) -> bool:
        """Stamp the start of its decode."""
        self.decode_started_ns = now_ns
        return self.wanted(BEFORE_DECODE, now_ns)


@dataclass
class PlainBuffer:
    """One batch buffer: who sits in its positions, and which of them are published."""

    state: str = "free"
    tickets: list[PlainTicket] = field(default_factory=list)
    published: set[int] = field(default_factory=set)


class PlainRing:
    """`buffers` batch buffers of `max_batch` positions; the first is open."""

    def __init__(self, *, buffers: int, max_batch: int) -> None:
        self.max_batch = max_batch
        self.buffers = [PlainBuffer() for _ in range(buffers)]
        self.buffers[0].state = "open"
        self.ahead = 0

    @property
    def open_buffer(self) -> int:
        """The buffer that takes claims; -1: none."""
        return next((i for i, buffer in enumerate(self.buffers) if buffer.state == "open"), -1)

    def admit(self, ticket: PlainTicket) -> None:
        """Count a ticket that enters the lane."""
        ticket.counted = True
        self.ahead += 1

    def conclude(self, ticket: PlainTicket) -> None:
        """Stop counting a ticket: it is launched, or over."""
        self.ahead -= ticket.counted
        ticket.counted = False

    def claim(self, ticket: PlainTicket, now_ns: int) -> int:
        """The next position of the open buffer, or -1."""
        at = self.open_buffer
        if not ticket.wanted(BEFORE_BATCH, now_ns) or at < 0 or len(self.buffers[at].tickets) == self.max_batch:
            return -1
        self.buffers[at].tickets.append(ticket)
        return at * self.max_batch + len(self.buffers[at].tickets) - 1

    def publish(self, position: int, now_ns: int) -> None:
        """The position is written."""
        at, index = divmod(position, self.max_batch)
        self.buffers[at].tickets[index].published_ns = now_ns
        self.buffers[at].published.add(index)

    def seal(self) -> int:
        """Close the open buffer to claims, open the next free one; -1 when nothing is claimed."""
        at = self.open_buffer
        if at < 0 or not self.buffers[at].tickets:
            return -1
        self.buffers[at].state = "closed"
        following = self.buffers[at + 1 :] + self.buffers[:at]
        for buffer in following:
            if buffer.state == "free":
                buffer.state = "open"
                break
        return at

    def settled(self, at: int) -> bool:
        """Every claimed position is published."""
        return len(self.buffers[at].published) == len(self.buffers[at].tickets)

    def judge(self, at: int, now_ns: int) -> int:
        """Conclude what is late or cancelled; how many are still wanted."""
        return sum(ticket.wanted(BEFORE_BATCH, now_ns) for ticket in self.buffers[at].tickets)

    def launch(self, at: int, now_ns: int) -> None:
        """The batch is on the device."""
        self.buffers[at].state = "running"
        for ticket in self.buffers[at].tickets:
            ticket.launched_ns = now_ns
            ticket.batch_size = len(self.buffers[at].tickets)
            self.conclude(ticket)

    def drained(self, at: int, now_ns: int) -> None:
        """The batch is executed."""
        self.buffers[at].state = "draining"
        for ticket in self.buffers[at].tickets:
            ticket.executed_ns = now_ns

    def release(self, at: int) -> None:
        """The buffer is free, and opens if no other is open."""
        self.buffers[at] = PlainBuffer(state="free" if self.open_buffer >= 0 else "open")

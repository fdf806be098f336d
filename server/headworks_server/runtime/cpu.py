"""The machine's CPU lanes: one thread a core, shared by all models, each lane with a seat for each model.

They stand before admission as one lane: one queue, from which whichever thread is free takes the next tickets of one
model, at most its target, and runs them to completion. The event loop submits; the threads never touch the loop
except through the completion ring.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable

import structlog

from headworks_native.lane import CompletionRing, Ticket, TicketQueue
from headworks_server.core.frame import Frame
from headworks_server.runtime.seat import Seat
from headworks_server.runtime.ticket import ticket_of

log = structlog.get_logger("headworks.lane")


class CpuLanes:
    """A group of CPU lanes. A `Lane` as admission knows it.

    Attributes:
        target: the sum over the lanes of the frames one batch should have.
        count: the lanes.
        decoders: the lanes: each thread decodes its own frames.
        batch_sizes: batches executed, by size, for each model.
    """

    def __init__(self, count: int, completions: CompletionRing) -> None:
        self.target = count
        self.count = count
        self.decoders = count
        self.batch_sizes: dict[Hashable, Counter[int]] = {}
        self._completions = completions
        self._queue = TicketQueue()
        self._targets: dict[Hashable, int] = {}
        self._seats: list[dict[Hashable, Seat]] = [{} for _ in range(count)]
        self._threads: list[threading.Thread] = []
        self._limit = 1

    def make_seats(self, make_seat: Callable[[], Seat]) -> list[Seat]:
        """Make a model's seat for every lane; on any thread, since it takes the time that a model takes to load."""
        return [make_seat() for _ in self._seats]

    def add_model(self, model: Hashable, target: int, seats: list[Seat]) -> None:
        """Give a model its seats, before its first ticket comes. `target` is the size of its batches.

        Raises:
            ValueError: a seat has fewer positions than `target`.
        """
        for lane, seat in zip(self._seats, seats, strict=True):
            if seat.positions < target:
                raise ValueError(f"{model}: expected at least {target} positions, got {seat.positions}")
            lane[model] = seat
        self.batch_sizes[model] = Counter()
        self._targets[model] = target
        self._fit()

    def remove_model(self, model: Hashable) -> None:
        """Free a model's seats, once none of its tickets is in the lanes any more."""
        for lane in self._seats:
            del lane[model]
        del self._targets[model], self.batch_sizes[model]
        self._fit()

    def start(self) -> None:
        """Start the threads."""
        for index, seats in enumerate(self._seats):
            thread = threading.Thread(target=self._serve, args=(seats,), name=f"headworks-lane-{index}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def ahead(self) -> int:
        """Frames submitted and not launched."""
        return self._queue.ahead()

    def submit(self, frame: Frame) -> None:
        """Take an admitted frame; its ticket comes back through the completion ring."""
        self._queue.push(ticket_of(frame))

    def close(self) -> None:
        """Stop the threads after the tickets they hold; those nobody took come back CANCELLED. Idempotent."""
        for ticket in self._queue.close():
            ticket.cancel()
            self._completions.push(ticket)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _fit(self) -> None:
        """Tickets that a lane takes at a time: the largest batch of any model."""
        self._limit = max(self._targets.values(), default=1)
        self.target = len(self._seats) * self._limit

    def _serve(self, seats: dict[Hashable, Seat]) -> None:
        while tickets := self._queue.take(self._limit):
            model = tickets[0].seat
            # The queue gives tickets of one model; a model with a smaller target than the largest runs in parts.
            target = self._targets[model]
            for start in range(0, len(tickets), target):
                self._serve_part(model, seats[model], tickets[start : start + target])

    def _serve_part(self, model: Hashable, seat: Seat, tickets: list[Ticket]) -> None:
        try:
            size = seat.serve(tickets)
            if size:
                self.batch_sizes[model][size] += 1
        except Exception as error:  # a defect must cost its frames, never the lane
            log.exception("lane_defect", model=model)
            seat.recover(tickets, f"a defect of the server: {error!r}")
        # All at once, behind the work: the first wakes the loop, which then finds the others.
        for ticket in tickets:
            self._completions.push(ticket)

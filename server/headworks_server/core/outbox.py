"""The outcomes of one stream on their way to its client: in frame order, bounded, never blocking anyone.

Owned by the stream's session. Frames without an outcome stand in a row; an outcome is *due* when no such frame is
before it, and is otherwise held by the nearest one. So the row is cut into segments (the due one, and one behind each
frame without an outcome) that only ever join, and order needs no sorting. Neighbouring drops are one run. Beyond the
limit the two oldest neighbours of a segment become one run: results and errors merged away count as
OUTBOX_OVERFLOW after_infer, drops keep their own reasons, and no run ever spans a frame without an outcome.
"""

from __future__ import annotations

from typing import TypeAlias

from headworks_server.core.events import (
    CANCELLED_SERVED,
    OVERFLOWED,
    DropOutcome,
    DroppedEvent,
    FrameErrorEvent,
    ResultOutcome,
)
from headworks_server.core.frame import Frame
from headworks_server.core.ledger import Ledger

Answer: TypeAlias = ResultOutcome | FrameErrorEvent
Entry: TypeAlias = Answer | DroppedEvent


class Outbox:
    """Outcomes due and outcomes held behind frames without one.

    Attributes:
        pending: the frames without an outcome, in order.
        entries: outcomes in hand; a run is one.
        limit: the most entries that are kept.
    """

    __slots__ = ("_delay_ns", "_due", "_ledger", "entries", "limit", "pending")

    def __init__(self, ledger: Ledger, *, limit: int, drop_delay_ns: int) -> None:
        self.pending: list[Frame] = []
        self.entries = 0
        self._due: list[Entry] = []
        self._ledger = ledger
        self.limit = limit
        self._delay_ns = drop_delay_ns

    # Outcomes in.

    def expect(self, frame: Frame) -> None:
        """Append a frame whose outcome will come."""
        self.pending.append(frame)

    def answer(self, frame: Frame, entry: Answer) -> None:
        """Give a pending frame its result or error.

        Raises:
            ValueError: if the frame is not pending.
        """
        segment = self._leave(frame)
        segment.append(entry)
        self.entries += 1
        if frame.held is not None:
            self._join(segment, frame)
        if self.entries > self.limit:
            self._merge_oldest()

    def drop(self, frame: Frame, drop: DropOutcome, now_ns: int) -> None:
        """Drop a pending frame.

        Raises:
            ValueError: if the frame is not pending.
        """
        segment = self._leave(frame)
        self._append_drop(segment, frame.frame_id, drop, now_ns)
        if frame.held is not None:
            self._join(segment, frame)
        if self.entries > self.limit:
            self._merge_oldest()

    def answer_arrival(self, entry: Answer) -> None:
        """Append the error of a frame that was never pending."""
        self._last_segment().append(entry)
        self.entries += 1
        if self.entries > self.limit:
            self._merge_oldest()

    def drop_arrival(self, frame_id: int, drop: DropOutcome, now_ns: int) -> None:
        """Append the drop of a frame that was never pending."""
        self._append_drop(self._last_segment(), frame_id, drop, now_ns)
        if self.entries > self.limit:
            self._merge_oldest()

    # Outcomes out.

    def has_due(self, now_ns: int) -> bool:
        """Whether `take` would return something."""
        due = self._due
        if not due:
            return False
        # Runs never stand side by side, so two entries hold an answer, with which the run goes out.
        first = due[0]
        return len(due) > 1 or not isinstance(first, DroppedEvent) or now_ns - first.since_ns >= self._delay_ns

    def run_due_ns(self) -> int | None:
        """When a run of drops that stands alone becomes due, if there is one."""
        due = self._due
        if len(due) == 1:
            first = due[0]
            if isinstance(first, DroppedEvent):
                return first.since_ns + self._delay_ns
        return None

    def take(self, now_ns: int, *, flush: bool = False) -> list[Entry]:
        """Hand out what is due, in order, and count it. `flush` does not wait for a lone run to come of age."""
        due = self._due
        if not due or not (flush or self.has_due(now_ns)):
            return []
        self._due = []
        self.entries -= len(due)
        for entry in due:
            if isinstance(entry, ResultOutcome):
                self._ledger.results += 1
            elif isinstance(entry, FrameErrorEvent):
                self._ledger.errors += 1
        return due

    # The peer is gone.

    def abandon(self) -> None:
        """Count every result and error in hand as CANCELLED: nobody will be told. Pending frames stay pending."""
        for segment in self._segments():
            for entry in segment:
                if not isinstance(entry, DroppedEvent):
                    self._ledger.drop(CANCELLED_SERVED)
        self._due = []
        self.entries = 0
        for frame in self.pending:
            frame.held = None

    def cancel(self, frame: Frame, drop: DropOutcome) -> None:
        """Count a pending frame of a peer that is gone.

        Raises:
            ValueError: if the frame is not pending.
        """
        self.pending.remove(frame)
        self._ledger.drop(drop)

    # Segments.

    def _leave(self, frame: Frame) -> list[Entry]:
        """Take a frame out of the row and return the segment before it, where its outcome belongs."""
        pending = self.pending
        place = pending.index(frame)
        del pending[place]
        if place == 0:
            return self._due
        before = pending[place - 1]
        if before.held is None:
            before.held = []
        return before.held

    def _last_segment(self) -> list[Entry]:
        if not self.pending:
            return self._due
        last = self.pending[-1]
        if last.held is None:
            last.held = []
        return last.held

    def _segments(self) -> list[list[Entry]]:
        return [self._due, *(frame.held for frame in self.pending if frame.held)]

    def _append_drop(self, segment: list[Entry], frame_id: int, drop: DropOutcome, now_ns: int) -> None:
        self._ledger.drop(drop)
        if segment:
            run = segment[-1]
            if isinstance(run, DroppedEvent):
                run.last = frame_id
                run.counts[drop] = run.counts.get(drop, 0) + 1
                return
        segment.append(DroppedEvent(frame_id, frame_id, {drop: 1}, now_ns))
        self.entries += 1

    def _join(self, segment: list[Entry], frame: Frame) -> None:
        """Append what was held behind a frame that has just got its own outcome, the last of `segment`."""
        held, frame.held = frame.held, None
        if held is None:
            return
        last, first = segment[-1], held[0]
        if isinstance(last, DroppedEvent) and isinstance(first, DroppedEvent):
            last.absorb(first)
            self.entries -= 1
            del held[0]
        segment.extend(held)

    def _merge_oldest(self) -> None:
        """Make one run of the two oldest neighbours. The limit exceeds the segments, so there are two."""
        segment = next(segment for segment in self._segments() if len(segment) > 1)
        run = self._as_run(segment[0])
        run.absorb(self._as_run(segment[1]))
        merged = 2
        if len(segment) > merged:
            following = segment[merged]
            if isinstance(following, DroppedEvent):
                run.absorb(following)
                merged += 1
        segment[:merged] = [run]
        self.entries -= merged - 1

    def _as_run(self, entry: Entry) -> DroppedEvent:
        if isinstance(entry, DroppedEvent):
            return entry
        self._ledger.drop(OVERFLOWED)
        # What it replaces was due as soon as its turn came, so the run does not wait for company.
        return DroppedEvent(entry.frame_id, entry.frame_id, {OVERFLOWED: 1}, 0)


def frames_of(entries: list[Entry]) -> int:
    """How many frames have their outcome in these entries."""
    return sum(sum(entry.counts.values()) if isinstance(entry, DroppedEvent) else 1 for entry in entries)

"""Drops and errors that nobody asked about, made heard: one log line a second at most, with counts.

Used by `Delivery` for outcomes that have neither a callback nor a reader. Owns only its counters.
"""

from __future__ import annotations

from collections import Counter

from headworks.outcomes import Dropped, FrameError, Lost

PERIOD_NS = 1_000_000_000


class OutcomeLog:
    """Gathers what went wrong with one stream and says it at most once a second. Time comes in as `now_ns`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts: Counter[str] = Counter()
        self._detail = ""
        self._said_ns: int | None = None

    def add_drop(self, dropped: Dropped) -> None:
        """Note a run of dropped frames."""
        for drop in dropped.counts:
            self._counts[f"dropped {drop.reason}"] += drop.count

    def add_error(self, error: FrameError) -> None:
        """Note a failed frame; the detail of the last one is told."""
        self._counts[f"failed {error.code}"] += 1
        self._detail = f" (frame {error.frame_id}: {error.detail})"

    def add_lost(self, lost: Lost) -> None:
        """Note frames that a broken connection took along."""
        self._counts["lost"] += lost.total

    def add_unread(self) -> None:
        """Note an outcome that fell out of the buffer of the loop over the stream."""
        self._counts["outcomes not read in time"] += 1

    def line(self, now_ns: int, *, last: bool = False) -> str | None:
        """Return what is to be logged now, or None: nothing new, or the last line is less than a second old.

        `last` empties the log at once, for the end of a stream.
        """
        if not self._counts:
            return None
        if not last and self._said_ns is not None and now_ns - self._said_ns < PERIOD_NS:
            return None
        text = ", ".join(f"{count} {what}" for what, count in sorted(self._counts.items()))
        line = f"stream {self._name!r}: {text}{self._detail}"
        self._counts.clear()
        self._detail = ""
        self._said_ns = now_ns
        return line

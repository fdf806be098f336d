"""A histogram of durations, cheap enough for the event loop; `metrics.py` holds them and exports them.

It is plain integers: one bisection and two additions an observation, where the Prometheus client's own histogram takes
a lock for each. One thread observes; another may read at any time and sees each bucket whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from headworks_server.clock import NS_PER_S, seconds_to_ns

# Stages of a frame take 1 to 500 ms: three edges to each doubling-and-a-bit there, coarser outside.
STAGE_EDGES_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05),
    *(0.065, 0.08, 0.1, 0.13, 0.165, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)


class Histogram:
    """Counts durations into buckets.

    Attributes:
        edges_ns: the buckets' inclusive upper edges, ascending.
        counts: observations in each bucket, not cumulated; one more than edges, the last for everything above.
        sum_ns: all observations together.
    """

    __slots__ = ("counts", "edges_ns", "sum_ns")

    def __init__(self, edges_seconds: Sequence[float] = STAGE_EDGES_SECONDS) -> None:
        """Start at zero; the edges are ascending seconds."""
        self.edges_ns = [seconds_to_ns(edge) for edge in edges_seconds]
        if not self.edges_ns or self.edges_ns != sorted(set(self.edges_ns)):
            raise ValueError(f"expected ascending edges, got {edges_seconds}")
        self.counts = [0] * (len(self.edges_ns) + 1)
        self.sum_ns = 0

    def observe(self, duration_ns: int) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.edges_ns, duration_ns)] += 1
        self.sum_ns += duration_ns

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """What Prometheus wants: (edge in seconds, count up to it), the last "+Inf", and the sum in seconds."""
        # One copy first, so that the buckets read below belong together.
        totals = accumulate(list(self.counts))
        edges = [*(str(edge / NS_PER_S) for edge in self.edges_ns), "+Inf"]
        return [(edge, float(total)) for edge, total in zip(edges, totals, strict=True)], self.sum_ns / NS_PER_S

"""What a batch of each size costs, and what follows from it; every lane is given one at warm-up.

On a CPU a batch often costs more than its frames one by one, on a device far less, and which it is depends on the
model and the machine. So the sizes are measured and the arithmetic here is pure.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headworks_server.clock import NS_PER_S, Clock

TARGET_SHARE = 0.95  # within 5 % of the best: the smaller batch makes every frame in it wait less
MIN_REPEATS = 3  # a median needs three
MAX_REPEATS = 15
SIZE_BUDGET_NS = NS_PER_S // 4  # a size is repeated until this is spent, so that warm-up stays near a second


@dataclass(frozen=True, slots=True)
class Curve:
    """Measured seconds a batch, for each measured size, ascending.

    Attributes:
        points: (batch size, seconds), sizes strictly ascending and at least 1, seconds above 0.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        """Refuse what the arithmetic below cannot carry."""
        sizes = [size for size, _ in self.points]
        if not sizes or sizes[0] < 1 or sizes != sorted(set(sizes)) or min(cost for _, cost in self.points) <= 0:
            raise ValueError(f"expected ascending sizes from 1 and seconds above 0, got {self.points}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The measured batch sizes, ascending."""
        return tuple(size for size, _ in self.points)

    def target(self) -> int:
        """The smallest measured batch within 5 % of the best frames/s."""
        best = max(size / cost for size, cost in self.points)
        return next(size for size, cost in self.points if size / cost >= TARGET_SHARE * best)

    def seconds(self, count: int) -> float:
        """Seconds of one batch of `count` frames: measured, or on the line between its measured neighbours.

        Below the smallest measured size a batch costs as much as that one (it is padded), above the largest its frames
        cost as much each as there.
        """
        sizes = self.sizes
        index = bisect_left(sizes, count)
        if index == len(sizes):
            size, cost = self.points[-1]
            return cost * count / size
        high, high_cost = self.points[index]
        if high == count or index == 0:
            return high_cost
        low, low_cost = self.points[index - 1]
        return low_cost + (high_cost - low_cost) * (count - low) / (high - low)

    def plan(self, count: int) -> tuple[int, ...]:
        """The runs for `count` frames: full batches of the target, then the cheaper of singles and one padded batch.

        Only the sizes 1 (where measured) and `target()` occur, so a lane that is bound to those two can follow it. The
        sum is at least `count`; only the last run may be padded.
        """
        target = self.target()
        full, rest = divmod(count, target)
        runs = (target,) * full
        if rest == 0:
            return runs
        singles = self.sizes[0] == 1 and rest * self.seconds(1) <= self.seconds(target)
        return runs + ((1,) * rest if singles else (target,))

    def milliseconds(self) -> dict[int, float]:
        """Milliseconds a batch by its size, for a log line."""
        return {size: round(cost * 1000, 3) for size, cost in self.points}


def measure_curve(run: Callable[[int], object], sizes: Iterable[int], *, clock: Clock) -> Curve:
    """Measure `run(size)` for each size and keep the median.

    The largest goes first, so that a backend's memory pool is as large as it gets before anything is timed. `clock`
    is `time.thread_time_ns` where the work is done on the calling thread (other load on the machine does not count
    then), `time.perf_counter_ns` where a pool of threads helps.
    """
    points = []
    for size in sorted(set(sizes), reverse=True):
        run(size)  # allocates, and faults the pages in
        points.append((size, _median_ns(run, size, clock) / NS_PER_S))
    return Curve(tuple(reversed(points)))


def timed_runs(run: Callable[[int], object], size: int, repeats: int, *, clock: Clock) -> list[int]:
    """Nanoseconds of each of so many runs of a size."""
    spent_ns = []
    for _ in range(repeats):
        started_ns = clock()
        run(size)
        spent_ns.append(max(1, clock() - started_ns))  # a coarse clock may not have moved
    return spent_ns


def _median_ns(run: Callable[[int], object], size: int, clock: Clock) -> float:
    spent_ns: list[int] = []
    while len(spent_ns) < MIN_REPEATS or (len(spent_ns) < MAX_REPEATS and sum(spent_ns) < SIZE_BUDGET_NS):
        spent_ns += timed_runs(run, size, 1, clock=clock)
    return statistics.median(spent_ns)

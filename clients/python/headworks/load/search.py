"""How many cameras hold: a search by runs of growing size, then between the last that held and the first that did not.

Pure but for the runs it asks for. A number of cameras holds where enough of their frames were answered in time, and
nothing went wrong. Where the generator itself was late in a run that did not hold, the server alone may hold more: that
is told with the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LATE_MS = 10.0
"""A generator later than this at p99 has a part in what it measures."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What it means to hold.

    Attributes:
        p99_ms: age of a result at the 99th percentile, from when its frame was due.
        answered_share: results among the frames that were scheduled.
    """

    p99_ms: float
    answered_share: float

    def misses(self, summary: dict[str, Any]) -> list[str]:
        """Return why a run did not hold; empty where it did."""
        found = list(summary["failures"][:1])
        share, p99 = summary["answered_share"], summary["total"]["age_ms"]["p99"]
        if share < self.answered_share:
            found.append(f"{share:.1%} of frames answered, below {self.answered_share:.1%}")
        if p99 is None or p99 > self.p99_ms:
            found.append("no result" if p99 is None else f"p99 {p99:.0f} ms, above {self.p99_ms:g} ms")
        return found


@dataclass(frozen=True, slots=True)
class Step:
    """One run of the search."""

    cameras: int
    summary: dict[str, Any]
    misses: list[str]

    @property
    def holds(self) -> bool:
        """Whether the goal was met."""
        return not self.misses

    @property
    def generator_late(self) -> bool:
        """Whether the generator had a part in it."""
        late = self.summary["generator"]["late_ms"]["p99"]
        return late is not None and late > LATE_MS


@dataclass(slots=True)
class Search:
    """The search so far.

    Attributes:
        steps: all runs, in order.
        most: the largest number of cameras that held, 0 where none did.
    """

    steps: list[Step] = field(default_factory=list)
    most: int = 0

    @property
    def doubt(self) -> str:
        """Why the server may hold more than `most`, where it may."""
        above = [step for step in self.steps if step.cameras > self.most]
        if not above:
            return "no larger number was tried"
        nearest = min(above, key=lambda step: step.cameras)
        if not nearest.generator_late:
            return ""
        late_ms = nearest.summary["generator"]["late_ms"]["p99"]
        return f"with {nearest.cameras} cameras the generator itself was {late_ms:.0f} ms late"


def find_max(
    run: Callable[[int], dict[str, Any]],
    goal: Goal,
    *,
    start: int = 1,
    limit: int = 1024,
    told: Callable[[Step], object] = lambda _step: None,
) -> Search:
    """Find how many cameras hold, within 5 % or one camera.

    Args:
        run: runs so many cameras and returns the summary.
        goal: what it means to hold.
        start: cameras of the first run.
        limit: the most that are tried.
        told: told each step as it ends.
    """
    search = Search()

    def holds(cameras: int) -> bool:
        summary = run(cameras)
        step = Step(cameras, summary, goal.misses(summary))
        search.steps.append(step)
        told(step)
        return step.holds

    low, high, cameras = 0, limit + 1, min(start, limit)
    while high - low > max(1, low // 20):
        if holds(cameras):
            low = cameras
        else:
            high = cameras
        # Doubling until one does not hold, then the middle.
        cameras = min(2 * low, limit) if high > limit else (low + high) // 2
        if cameras in (low, high) or cameras == 0:
            break
    search.most = low
    return search

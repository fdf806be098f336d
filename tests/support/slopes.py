"""Slopes that a wavering point cannot move, for what a server holds over time. Used by the soak and the fault tests."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence


def median_slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs of points (x, y) with different x."""
    pairs = itertools.combinations(points, 2)
    return statistics.median((later[1] - first[1]) / (later[0] - first[0]) for first, later in pairs)

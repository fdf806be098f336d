"""Time: the one clock the server decides by, and the words for its units.

Everything that decides takes `now_ns` as an argument; only the composition root and the rooms that do I/O read a
clock, through a `Clock` handed to them. It is CLOCK_MONOTONIC, with which the native lanes stamp tickets, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns nanoseconds from a fixed but unknown start; never runs backwards."""

monotonic_ns: Clock = time.monotonic_ns

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000


def seconds_to_ns(seconds: float) -> int:
    """Seconds as whole nanoseconds, rounded to the nearest."""
    return round(seconds * NS_PER_S)

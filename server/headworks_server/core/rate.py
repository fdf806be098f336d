"""A stream's maximum rate: one token bucket on the server's clock, kept as the time at which the next frame may come.

Made by the stream's session where its Open asked for `max_fps`. LATEST and BOUNDED drop an arrival that comes before
its time; EVERY_FRAME holds admission back until then.
"""

from __future__ import annotations

from headworks_server.core.limits import NS_PER_MS, NS_PER_S

# A camera at exactly its maximum must lose nothing because a network held a few frames back and let them go at once,
# and such gaps are a matter of time, not of frames: 100 ms is more than a busy wireless link takes. So over any stretch
# of t seconds at most 1 + (t + 0.1) * max_fps frames pass: four at once at 30 fps, and one at 0.5 fps.
JITTER_NS = 100 * NS_PER_MS


class Rate:
    """At most so many frames a second.

    Attributes:
        ready_ns: when the next frame may pass.
    """

    __slots__ = ("_due_ns", "_interval_ns", "ready_ns")

    def __init__(self, max_fps: float) -> None:
        """`max_fps` is finite and above 0."""
        self.ready_ns = 0
        self._due_ns = 0  # when it would pass if all came evenly
        self._interval_ns = round(NS_PER_S / max_fps)

    def take(self, now_ns: int) -> bool:
        """Let a frame pass if its time has come."""
        if now_ns < self.ready_ns:
            return False
        self._due_ns = max(self._due_ns, now_ns) + self._interval_ns
        self.ready_ns = self._due_ns - JITTER_NS
        return True

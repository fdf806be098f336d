"""The process-wide budget of bytes that wait compressed for their admission.

Made once by the composition root and shared by the mailboxes of all streams, which take from it and give back.
Admitted frames have left it: their number is bounded by the lanes. Who may drop a frame never takes it past its limit;
who must take every frame it has given credit for does, and gives no more credit meanwhile.
"""

from __future__ import annotations

DEFAULT_WAITING_BYTES = 1 << 30  # about 2,000 to 5,000 waiting 1080p JPEGs of 0.2 to 0.5 MB


class WaitingBytes:
    """A count of waiting bytes.

    Attributes:
        limit: bytes that may wait.
        used: bytes that wait now.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = DEFAULT_WAITING_BYTES) -> None:
        self.limit = limit
        self.used = 0

    @property
    def full(self) -> bool:
        """Whether nothing more should be promised a place."""
        return self.used >= self.limit

    def take(self, size_bytes: int) -> bool:
        """Take bytes where there is room; a negative size always fits. Returns whether they were taken."""
        used = self.used + size_bytes
        if used > self.limit and size_bytes > 0:
            return False
        self.used = used
        return True

    def overdraw(self, size_bytes: int) -> None:
        """Take bytes, room or not: EVERY_FRAME, whose frames were promised a place when their credit was given.

        Credit is withheld while the budget is full (core/credit.py), so it is overdrawn by at most what was promised
        before: the sum over the EVERY_FRAME streams of window x the frame limit; each then sends one at a time.
        """
        self.used += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Give back what was taken."""
        self.used -= size_bytes

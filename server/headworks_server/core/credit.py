"""The credit of one stream: one absolute number, how many frames the client may have sent since Open.

Owned by the stream's session, which lets it grow by one with each frame that leaves the mailbox (admitted, replaced,
dropped or failed), so that it is always window + frames received - frames waiting.
"""

from __future__ import annotations


class Credit:
    """What the client may send.

    Attributes:
        allowed: frames in all that the client may have sent.
        told: what the client was last told; the larger number reaches it with the next event, or by itself when
            fewer than half a window are left of what it knows.
    """

    __slots__ = ("_low", "allowed", "told")

    def __init__(self) -> None:
        self.allowed = 0
        self.told = 0
        self._low = 0

    def open(self, window: int) -> int:
        """Allow the first window, told in Opened. Returns it."""
        self.allowed = self.told = window
        self._low = window // 2
        return window

    def worth_telling(self, received: int, *, rides: bool) -> bool:
        """Whether to tell it now: it has grown, and either it rides with another event or the client runs low."""
        return self.allowed > self.told and (rides or self.told - received < self._low)

"""The credit of one stream: one absolute number, how many frames the client may have sent since Open.

Owned by the stream's session. Under LATEST and BOUNDED it grows by one with each frame that leaves the mailbox
(admitted, replaced, dropped or failed), so that it is always window + frames received - frames waiting. Under
EVERY_FRAME it grows when outcomes are written, so that it is window + outcomes written - credit withheld, and credit
is withheld while the process-wide budget of waiting bytes is full.
"""

from __future__ import annotations


class Credit:
    """What the client may send.

    Attributes:
        allowed: frames in all that the client may have sent.
        told: what the client was last told; the larger number reaches it with the next event, or by itself when
            fewer than half a window are left of what it knows.
        per_leave: what the session adds for a frame that leaves the mailbox: 1, or 0 under EVERY_FRAME.
    """

    __slots__ = ("_low", "_withheld", "allowed", "per_leave", "told")

    def __init__(self) -> None:
        self.allowed = 0
        self.told = 0
        self.per_leave = 1
        self._low = 0
        self._withheld = 0

    def open(self, window: int, *, every_frame: bool = False) -> int:
        """Allow the first window, told in Opened. Returns it."""
        self.allowed = self.told = window
        self.per_leave = 0 if every_frame else 1
        self._low = window // 2
        return window

    def written(self, frames: int, *, received: int, idle: bool, full: bool) -> None:
        """Under EVERY_FRAME: that many outcomes are being written.

        Args:
            frames: how many.
            received: frames of the stream in all.
            idle: whether the stream has no frame without an outcome.
            full: whether the budget of waiting bytes is.
        """
        self._withheld += frames
        if not full:
            grows = self._withheld
        elif idle:
            # No outcome of this stream will ask again: one frame keeps it going until the budget has room.
            grows = max(received + 1 - self.allowed, 0)
        else:
            return
        self.allowed += grows
        self._withheld -= grows

    def worth_telling(self, received: int, *, rides: bool) -> bool:
        """Whether to tell it now: it has grown, and either it rides with another event or the client runs low."""
        return self.allowed > self.told and (rides or self.told - received < self._low)

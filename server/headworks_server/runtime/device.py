"""A device lane before admission: native decoders, a ring of three batch buffers and a native dispatcher."""

from __future__ import annotations

from headworks_native.sleeping import SleepingLane
from headworks_server.core.frame import Frame
from headworks_server.runtime.ticket import ticket_of


class DeviceLane:
    """A native lane that belongs to one engine. A `Lane` as admission knows it."""

    def __init__(self, native: SleepingLane) -> None:
        self.target = native.target
        self.decoders = native.decoders
        self._native = native
        self.ahead = native.ahead

    def submit(self, frame: Frame) -> None:
        """Take an admitted frame; its ticket comes back through the completion ring."""
        self._native.submit(ticket_of(frame))

    def batch_sizes(self) -> dict[int, int]:
        """Batches executed, by size."""
        return dict(self._native.batch_sizes())

    def close(self) -> None:
        """Stop the threads; every ticket comes back. Idempotent."""
        self._native.close()

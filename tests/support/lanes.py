"""Lanes without an engine, for tests of admission."""

from __future__ import annotations

from headworks_server.core.frame import Frame


class CountingLane:
    """Takes what it is given and launches when it is told to."""

    def __init__(self, *, target: int, decoders: int) -> None:
        self.target = target
        self.decoders = decoders
        self.submitted: list[Frame] = []
        self.waiting = 0

    def ahead(self) -> int:
        return self.waiting

    def submit(self, frame: Frame) -> None:
        self.submitted.append(frame)
        self.waiting += 1

    def launch(self, count: int) -> None:
        self.waiting -= min(count, self.waiting)

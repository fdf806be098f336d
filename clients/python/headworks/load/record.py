"""What a load run measured of one camera: every result's times, in plain arrays. Read by `summary` and `report`."""

from __future__ import annotations

from array import array
from collections import Counter

STAGES = ("waited", "decoded", "batched", "executed", "postprocessed")


class CameraRecord:
    """The measured times of one camera; all of them in the order in which they happened.

    Attributes:
        due_s: when each answered frame was due, seconds from the start of the measured time.
        ages_ms: from then to its result.
        round_trips_ms: from the write of the frame to its result.
        stages_ms: what the server told of it, by stage.
        batches: results by the size of their batch.
        drops_s: when each dropped frame was told, likewise in seconds.
        failed_s: when each failed frame was told.
    """

    def __init__(self) -> None:
        self.due_s = array("d")
        self.ages_ms = array("d")
        self.round_trips_ms = array("d")
        self.stages_ms = {stage: array("d") for stage in STAGES}
        self.batches: Counter[int] = Counter()
        self.drops_s = array("d")
        self.failed_s = array("d")
        self.found = 0
        self.deadline_missed = 0

    def measured(self, seconds: float) -> list[int]:
        """Places of the results whose frame was due in the measured time."""
        # A microsecond of play: the times were subtracted as floats.
        return [place for place, due_s in enumerate(self.due_s) if -1e-6 <= due_s < seconds + 1e-6]

"""How long a lane takes, as measured: what the deadline check at admission and the fairness among models go by.

The admission pool keeps one `LaneEstimate` per lane and one `FrameTimes` per model; both are fed by whoever takes
tickets back from the lane's completion ring.
"""

from __future__ import annotations

SMOOTHING_SHIFT = 3  # a new sample counts 1/8: a change of pace is seen within some ten batches


class FrameTimes:
    """Smoothed times of decoding one frame and of executing one batch.

    Attributes:
        decode_ns: how long one frame takes one decoder.
        batch_ns: how long one batch takes the lane up.
        frame_ns: how long one frame takes the lane up: its decoding and its part of the batch.
    """

    __slots__ = ("batch_ns", "decode_ns", "frame_ns", "samples")

    def __init__(self, *, frame_ns: int = 0) -> None:
        """Start with nothing measured; `frame_ns` is what a frame is taken to cost until then."""
        self.decode_ns = 0
        self.batch_ns = 0
        self.frame_ns = frame_ns
        self.samples = 0

    def add(self, *, decode_ns: int, batch_ns: int, size: int) -> None:
        """Take in the times of one completed batch of `size` frames: the decoding of one of them, and the batch."""
        frame_ns = decode_ns + batch_ns // size
        if self.samples == 0:
            self.decode_ns, self.batch_ns, self.frame_ns = decode_ns, batch_ns, frame_ns
        else:
            self.decode_ns += (decode_ns - self.decode_ns) >> SMOOTHING_SHIFT
            self.batch_ns += (batch_ns - self.batch_ns) >> SMOOTHING_SHIFT
            self.frame_ns += (frame_ns - self.frame_ns) >> SMOOTHING_SHIFT
        self.samples += 1


class LaneEstimate(FrameTimes):
    """Smoothed times of one lane, over all models it runs.

    Attributes:
        outstanding: tickets submitted that have not come back.
    """

    __slots__ = ("_last_batch_end_ns", "outstanding")

    def __init__(self) -> None:
        super().__init__()
        self.outstanding = 0
        self._last_batch_end_ns = 0

    def returned(self, tickets: int) -> None:
        """Count tickets that came back, whatever became of them."""
        self.outstanding -= tickets

    def measured(self, *, decode_ns: int, batch_ns: int, size: int, now_ns: int) -> None:
        """Take in the times of one batch that has just completed."""
        self.add(decode_ns=decode_ns, batch_ns=batch_ns, size=size)
        self._last_batch_end_ns = now_ns

    def slack(self, target: int, decoders: int) -> int:
        """Frames beyond `target` that the lane needs ahead of it, so that its next batch is decoded in time.

        None, where a whole batch is decoded within half of the batch before it: then every frame more would only wait
        decoded for a batch, where it waits compressed and replaceable otherwise. Else as many as are decoded at a time.
        """
        rounds = -(-target // decoders) if decoders else 0
        return 0 if 0 < 2 * rounds * self.decode_ns <= self.batch_ns else decoders

    def done_ns(self, own: FrameTimes, *, ahead: int, target: int, now_ns: int) -> int:
        """When a frame of a model of times `own` that is admitted now would have its result.

        The batch that runs is taken to have started when the one before it ended; what is admitted and not launched
        goes in whole batches of `target`; then come this frame's decoding and its own batch. Nothing measured yet: now.
        """
        running_ns = 0
        if self.outstanding > ahead:
            running_ns = max(self._last_batch_end_ns + self.batch_ns - now_ns, 0)
        return now_ns + running_ns + (ahead // target) * self.batch_ns + own.decode_ns + own.batch_ns

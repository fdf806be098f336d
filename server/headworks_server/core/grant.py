"""What a stream is granted for what its Open asks.

Pure; called once per stream by the rpc room, which has already turned the Open into plain values. Numbers out of range
are clamped and told in Opened; what makes no sense is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from headworks_server.core.limits import NS_PER_MS

DEFAULT_IN_FLIGHT = 2  # decoding and inference overlap; a third adds nothing
DEFAULT_EVERY_FRAME_IN_FLIGHT = 8  # a file has no stale frames: batches of one stream may be as large as it fills them
MAX_IN_FLIGHT = 8
MAX_DEPTH = 32  # a second of a camera; with MAX_IN_FLIGHT fewer than `SessionLimits.outbox_entries`
MAX_EVERY_FRAME_WINDOW = 64
MAX_WEIGHT = 16
MAX_DEADLINE_MS = 60_000
MIN_FPS = 1 / 3600  # one an hour, so that a time to wait for is never out of sight


class Policy(StrEnum):
    """How frames wait when they come faster than they are served."""

    LATEST = "latest"
    BOUNDED = "bounded"
    EVERY_FRAME = "every_frame"


@dataclass(slots=True, frozen=True)
class Grant:
    """What a stream is granted.

    Attributes:
        policy: how its frames wait.
        max_in_flight: frames admitted and without an outcome, at most.
        window: frames the client may have sent beyond those that have left the mailbox; under EVERY_FRAME, beyond those
            whose outcome was written.
        deadline_ns: a frame's budget from receipt to result, 0 for none.
        weight: its share in the round robin.
        depth: frames that may wait under BOUNDED.
        drop_newest: whether a full BOUNDED queue turns the arriving frame away, and keeps its oldest.
        max_fps: frames beyond this rate are dropped on arrival, or wait under EVERY_FRAME; 0 for no limit.
    """

    policy: Policy = Policy.LATEST
    max_in_flight: int = DEFAULT_IN_FLIGHT
    window: int = DEFAULT_IN_FLIGHT + 1 + 1
    deadline_ns: int = 0
    weight: int = 1
    depth: int = 1
    drop_newest: bool = False
    max_fps: float = 0.0

    @property
    def deadline_ms(self) -> int:
        """The deadline in milliseconds, 0 for none."""
        return self.deadline_ns // NS_PER_MS


@dataclass(slots=True, frozen=True)
class Refusal:
    """Why an Open is refused, as told to the client."""

    detail: str


def grant(
    *,
    policy: Policy = Policy.LATEST,
    depth: int = 1,
    drop_newest: bool = False,
    max_in_flight: int = 0,
    deadline_ms: int = 0,
    weight: int = 0,
    max_fps: float = 0.0,
) -> Grant | Refusal:
    """Decide what an Open is granted. 0 means the default throughout, but for the depth of BOUNDED."""
    bounded, every_frame = policy is Policy.BOUNDED, policy is Policy.EVERY_FRAME
    if bounded and depth < 1:
        return Refusal(f"BOUNDED: expected a depth of at least 1, got {depth}")
    if every_frame and deadline_ms:
        return Refusal(f"EVERY_FRAME drops no frame for being late: expected no deadline, got {deadline_ms} ms")
    if not math.isfinite(max_fps) or max_fps < 0:
        return Refusal(f"max_fps: expected frames a second, or 0 for no limit, got {max_fps:g}")
    default = DEFAULT_EVERY_FRAME_IN_FLIGHT if every_frame else DEFAULT_IN_FLIGHT
    in_flight = min(max(max_in_flight, 1), MAX_IN_FLIGHT) if max_in_flight else default
    # EVERY_FRAME: one waits for each in flight, so that lanes are not idle while outcome and credit are on their way.
    waiting = in_flight if every_frame else min(depth, MAX_DEPTH) if bounded else 1
    window = in_flight  # being decoded or run
    window += waiting
    window += 1  # on the way
    return Grant(
        policy=policy,
        max_in_flight=in_flight,
        window=min(window, MAX_EVERY_FRAME_WINDOW) if every_frame else window,
        deadline_ns=min(max(deadline_ms, 0), MAX_DEADLINE_MS) * NS_PER_MS,
        weight=min(max(weight, 1), MAX_WEIGHT),
        depth=waiting if bounded else 1,
        drop_newest=bounded and drop_newest,
        max_fps=max(max_fps, MIN_FPS) if max_fps else 0.0,
    )

"""What a load run is to do. Made by the command, read by everything else here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headworks.load.pictures import LoadPicture
from headworks.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """One run.

    Attributes:
        cameras: streams, each on a connection of its own, as cameras are.
        fps: frames a second of each, on a clock that nothing holds up; 0 in a closed loop.
        closed: frames of each camera on the way at a time, the next one following an outcome; 0 for the clock.
        seconds: how long frames are offered and measured.
        warm_s: how long before that: offered and accounted for, but not in ages and rates.
        policy: how frames wait.
        pictures: what is sent, again and again; each camera begins at a place of its own.
        model: as `Client.stream` takes it, like what follows.
    """

    cameras: int
    fps: float
    closed: int
    seconds: float
    warm_s: float
    policy: Policy
    pictures: Sequence[LoadPicture]
    model: str = ""
    deadline_ms: int = 0
    weight: int = 0

"""What a stream is granted for what its Open asks.

Pure; called once per stream by the rpc room, which has already turned the Open into plain values. Numbers out of range
are clamped and told in Opened; what this release does not serve is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headworks_server.core.limits import NS_PER_MS

DEFAULT_IN_FLIGHT = 2  # decoding and inference overlap; a third adds nothing
MAX_IN_FLIGHT = 8
MAX_WEIGHT = 16
MAX_DEADLINE_MS = 60_000


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
        window: frames the client may have sent beyond those that have left the mailbox.
        deadline_ns: a frame's budget from receipt to result, 0 for none.
        weight: its share in the round robin.
    """

    policy: Policy = Policy.LATEST
    max_in_flight: int = DEFAULT_IN_FLIGHT
    window: int = DEFAULT_IN_FLIGHT + 1 + 1
    deadline_ns: int = 0
    weight: int = 1

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
    max_in_flight: int = 0,
    deadline_ms: int = 0,
    weight: int = 0,
    max_fps: float = 0.0,
) -> Grant | Refusal:
    """Decide what an Open is granted. 0 means the default throughout."""
    if policy is not Policy.LATEST:
        return Refusal(f"drop policy {policy.name} is not served by this release; LATEST is")
    # Not `> 0`: a rate that is no number at all must be refused too.
    if max_fps != 0:
        return Refusal(f"max_fps is not served by this release: expected 0, got {max_fps:g}")
    in_flight = min(max(max_in_flight, 1), MAX_IN_FLIGHT) if max_in_flight else DEFAULT_IN_FLIGHT
    window = in_flight  # being decoded or run
    window += 1  # waiting
    window += 1  # on the way
    return Grant(
        policy=policy,
        max_in_flight=in_flight,
        window=window,
        deadline_ns=min(max(deadline_ms, 0), MAX_DEADLINE_MS) * NS_PER_MS,
        weight=min(max(weight, 1), MAX_WEIGHT),
    )

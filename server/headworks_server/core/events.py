"""What goes into a stream's session and what comes out of it: outcomes, actions, events and the close status.

The runtime makes outcomes, the rpc room obeys actions and encodes events. Nothing here decides anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from headworks_server.core.facts import ModelFacts
from headworks_server.core.outcomes import CloseReason, DropReason, DropStage, FrameErrorCode

if TYPE_CHECKING:
    from headworks_server.core.frame import Frame
    from headworks_server.core.grant import Grant
    from headworks_server.core.ledger import Ledger

CloseKind: TypeAlias = Literal[
    "ok", "invalid_argument", "resource_exhausted", "unavailable", "idle_timeout", "cancelled"
]


class NoticeKind(IntEnum):
    """What a notice tells. The numbers equal those of `headworks.v1`."""

    DRAINING = 1
    DEGRADED = 2
    RESTORED = 3
    MODEL_CHANGED = 4


# Outcomes: what became of a frame.


class DropOutcome(NamedTuple):
    """The frame is dropped. A tuple, because ledgers and ranges count by it."""

    reason: DropReason
    stage: DropStage


@dataclass(slots=True)
class ErrorOutcome:
    """The frame failed; `detail` says what was expected and what came."""

    code: FrameErrorCode
    detail: str


@dataclass(slots=True)
class ResultOutcome:
    """The frame was served. `entry` is the encoded event; the session fills in `frame_id`.

    The same object leaves the session as the event, so that the usual frame costs no second one.
    """

    entry: bytes
    frame_id: int = -1


Outcome: TypeAlias = ResultOutcome | DropOutcome | ErrorOutcome

REPLACED = DropOutcome(DropReason.REPLACED_BY_NEWER, DropStage.BEFORE_DECODE)
QUEUE_FULL = DropOutcome(DropReason.QUEUE_FULL, DropStage.INGRESS)
RATE_LIMITED = DropOutcome(DropReason.RATE_LIMIT, DropStage.INGRESS)
OVERFLOWED = DropOutcome(DropReason.OUTBOX_OVERFLOW, DropStage.AFTER_INFER)
LOADING_ARRIVAL = DropOutcome(DropReason.MODEL_LOADING, DropStage.INGRESS)
LOADING_WAITING = DropOutcome(DropReason.MODEL_LOADING, DropStage.BEFORE_DECODE)
TURNED_AWAY = DropOutcome(DropReason.DRAINING, DropStage.INGRESS)
DRAINED_WAITING = DropOutcome(DropReason.DRAINING, DropStage.BEFORE_DECODE)
CANCELLED_WAITING = DropOutcome(DropReason.CANCELLED, DropStage.BEFORE_DECODE)
CANCELLED_SERVED = DropOutcome(DropReason.CANCELLED, DropStage.AFTER_INFER)


# Actions: what the session made of an arriving frame. A DropOutcome or an ErrorOutcome is one too.


@dataclass(slots=True, frozen=True)
class Wait:
    """The frame waits; nothing else changed."""


@dataclass(slots=True)
class Replace:
    """The frame waits in the place of `old`, which is dropped."""

    old: Frame


@dataclass(slots=True, frozen=True)
class Ignore:
    """The frame was not taken and counts nowhere: the stream is closing for a fault, or this frame is the fault."""


WAIT = Wait()
IGNORE = Ignore()

Action: TypeAlias = Wait | Replace | DropOutcome | ErrorOutcome | Ignore


# Events: what the client is told, in order.

ResultEvent = ResultOutcome


@dataclass(slots=True)
class OpenedEvent:
    """The stream is open, with what was granted and the credit at the start."""

    grant: Grant
    frames_allowed: int


@dataclass(slots=True)
class DroppedEvent:
    """A run of dropped frames. `since_ns` is when the first of them was dropped; 0 makes the run due at once."""

    first: int
    last: int
    counts: dict[DropOutcome, int]
    since_ns: int

    def absorb(self, later: DroppedEvent) -> None:
        """Take in the run that follows this one; `later` must not be used again."""
        self.last = later.last
        self.since_ns = min(self.since_ns, later.since_ns)
        for drop, count in later.counts.items():
            self.counts[drop] = self.counts.get(drop, 0) + count

    def triples(self) -> list[tuple[DropReason, DropStage, int]]:
        """The counts as (reason, stage, count)."""
        return [(reason, stage, count) for (reason, stage), count in self.counts.items()]


@dataclass(slots=True)
class FrameErrorEvent:
    """One frame failed."""

    frame_id: int
    code: FrameErrorCode
    detail: str


@dataclass(slots=True)
class CreditEvent:
    """How many frames the client may have sent in all since Open."""

    frames_allowed: int


@dataclass(slots=True)
class NoticeEvent:
    """Something about the stream changed.

    `first_frame_id` and `facts` are of MODEL_CHANGED: the model as it serves from that frame on.
    """

    kind: NoticeKind
    detail: str = ""
    grace_ms: int = 0
    model: str = ""
    first_frame_id: int = 0
    facts: ModelFacts | None = None


@dataclass(slots=True)
class PongEvent:
    """Answer to a Ping."""

    nonce: int


@dataclass(slots=True)
class ClosedEvent:
    """The last event. The ledger is final: received = results + drops + errors."""

    ledger: Ledger
    reason: CloseReason
    detail: str


Event: TypeAlias = (
    OpenedEvent | ResultOutcome | DroppedEvent | FrameErrorEvent | CreditEvent | NoticeEvent | PongEvent | ClosedEvent
)


@dataclass(slots=True, frozen=True)
class CloseStatus:
    """How a stream ended: the reason told in Closed, and the kind that `rpc/status.py` maps to a gRPC status."""

    reason: CloseReason
    kind: CloseKind
    detail: str = ""


SHUT_DOWN = CloseStatus(CloseReason.DRAINED, "unavailable", "the server is shutting down")

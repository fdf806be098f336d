"""The account of one stream: every frame that was read, by its outcome.

The session and its outbox write it; Closed, the stream's log line and the metrics read it. An outcome is counted when
nothing can change it any more (a drop when it is decided, a result or an error when it is handed to the writer), so
every number only grows, and the ledgers of all streams may be summed for a counter.
"""

from __future__ import annotations

from headworks_server.core.events import DropOutcome
from headworks_server.core.outcomes import DropReason, DropStage


class ConservationError(AssertionError):
    """A frame has no outcome, or more than one: a defect of this server, never of a client."""


class Ledger:
    """Frames by outcome.

    Attributes:
        received: frames read.
        results: frames whose result was handed to the writer.
        errors: frames whose error was handed to the writer.
        drops: dropped frames by (reason, stage).
    """

    __slots__ = ("drops", "errors", "received", "results")

    def __init__(self) -> None:
        self.received = 0
        self.results = 0
        self.errors = 0
        self.drops: dict[DropOutcome, int] = {}

    def drop(self, drop: DropOutcome, count: int = 1) -> None:
        """Count dropped frames."""
        drops = self.drops
        drops[drop] = drops.get(drop, 0) + count

    @property
    def settled(self) -> int:
        """Frames that have their outcome."""
        return self.results + self.errors + sum(self.drops.values())

    def check(self, outstanding: int) -> None:
        """Hold the ledger against the number of frames still without an outcome.

        Raises:
            ConservationError: if received is not results + drops + errors + outstanding.
        """
        if self.received != self.settled + outstanding:
            raise ConservationError(f"{self!r} with {outstanding} frames outstanding")

    def add(self, other: Ledger) -> None:
        """Add another stream's numbers, for a total over streams."""
        self.received += other.received
        self.results += other.results
        self.errors += other.errors
        for drop, count in other.drops.items():
            self.drop(drop, count)

    def triples(self) -> list[tuple[DropReason, DropStage, int]]:
        """The drops as (reason, stage, count), by reason and stage."""
        return [(reason, stage, count) for (reason, stage), count in sorted(self.drops.items())]

    def drops_by_reason(self) -> dict[str, int]:
        """The drops by the reason's name, for a log line."""
        by_reason: dict[str, int] = {}
        for (reason, _), count in sorted(self.drops.items()):
            by_reason[reason.name] = by_reason.get(reason.name, 0) + count
        return by_reason

    def __repr__(self) -> str:
        return (
            f"Ledger(received={self.received}, results={self.results}, "
            f"drops={self.drops_by_reason()}, errors={self.errors})"
        )

"""The bounds of a stream that the contract fixes. Tests make them smaller; the server serves with these."""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


@dataclass(slots=True, frozen=True)
class SessionLimits:
    """Bounds of one stream.

    Attributes:
        outbox_entries: outcomes in hand; must exceed the segments of an outbox (one more than the frames without an
            outcome, at most 8 in flight and 32 waiting), so that two neighbours can always merge. Under EVERY_FRAME the
            session makes it as large as credit lets it grow, so that nothing is ever merged away.
        over_credit: frames beyond the credit before the stream is ended.
        drop_delay_ns: age at which a run of drops is told without an outcome to go with.
        idle_ns: silence after which the client counts as dead.
    """

    outbox_entries: int = 64
    over_credit: int = 64
    drop_delay_ns: int = 200 * NS_PER_MS
    idle_ns: int = 15_000 * NS_PER_MS

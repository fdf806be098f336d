"""A client's own account of a stream: where every frame the camera made has gone, and whether the sums are right.

Made by `ClientSession`; the identities are those of section 4 of the streaming contract.
"""

from __future__ import annotations

from dataclasses import dataclass

from headworks.errors import HeadworksError


@dataclass(frozen=True, slots=True)
class Account:
    """Frames of one stream, by what became of them.

    Attributes:
        offered: given to `send`.
        replaced: overtaken in the client's mailbox before they were sent.
        waiting: in the mailbox now, or still there when the stream ended.
        sent: handed to the transport.
        received: read by the server, by its own ledger; None until it has said Closed.
        lost: sent and not read by the server of a stream that has ended; 0 while it is open.
        results: told with a Result.
        drops: told as dropped, by reason.
        errors: told with a FrameError.
        close_reason: the server's reason, None until it has said Closed.
    """

    offered: int
    replaced: int
    waiting: int
    sent: int
    received: int | None
    lost: int
    results: int
    drops: dict[str, int]
    errors: int
    close_reason: str | None

    @property
    def told(self) -> int:
        """Frames whose outcome reached this client."""
        return self.results + sum(self.drops.values()) + self.errors

    @property
    def unaccounted(self) -> int | None:
        """Frames the server says it answered and this client was never told of; None without a Closed."""
        return None if self.received is None else self.received - self.told

    def violations(self) -> list[str]:
        """Return a sentence for each identity of the contract that does not hold; empty where all is well."""
        found = []
        if self.offered != self.replaced + self.sent + self.waiting:
            found.append(
                f"offered {self.offered} is not replaced {self.replaced} + sent {self.sent} + waiting {self.waiting}"
            )
        if self.told > self.sent:
            found.append(f"told of {self.told} frames, but sent only {self.sent}")
        if self.received is None:
            return found
        if self.lost < 0 or self.sent != self.received + self.lost:
            found.append(f"sent {self.sent} is not received {self.received} + lost {self.lost}")
        if self.unaccounted != 0:
            drops = sum(self.drops.values())
            found.append(
                f"received {self.received} is not results {self.results} + drops {drops} + errors {self.errors}"
            )
        if self.close_reason == "END" and self.lost != 0:
            found.append(f"the stream ended by End, yet {self.lost} frames are lost")
        return found

    def check(self) -> None:
        """Raise HeadworksError with every violation, if there is one."""
        found = self.violations()
        if found:
            raise HeadworksError("the account does not add up: " + "; ".join(found))

"""A client's own account of a stream: where every frame the camera made has gone, and whether the sums are right.

`ClientSession` makes the ledger of each connection, `total` adds them up; the identities are those of section 4 of
the streaming contract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from headworks.errors import HeadworksError

if TYPE_CHECKING:
    from headworks.mailbox import Mailbox


@dataclass(frozen=True, slots=True)
class ConnectionAccount:
    """The frames of one connection, from its Open to the end of its call.

    Attributes:
        target: the server's address.
        sent: handed to the transport, those sent again included.
        received: read by the server, by its own ledger; None until it has said Closed.
        lost: sent and not read by the server; 0 while the call goes on. Without a Closed: sent and not told.
        results: told with a Result.
        drops: told as dropped, by reason.
        errors: told with a FrameError.
        returned: told as dropped by a draining server, and to be sent again instead of being told ("every_frame").
        close_reason: the server's reason, None until it has said Closed.
        ended: whether the call has ended, or the server has said Closed.
    """

    target: str = ""
    sent: int = 0
    received: int | None = None
    lost: int = 0
    results: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    returned: int = 0
    close_reason: str | None = None
    ended: bool = False

    @property
    def told(self) -> int:
        """Frames whose outcome reached the application."""
        return self.results + sum(self.drops.values()) + self.errors

    @property
    def settled(self) -> int:
        """Frames that the server has read, as far as is known, and that are not sent again."""
        heard = self.told + self.returned if self.received is None else self.received
        return heard - self.returned

    def violations(self) -> list[str]:
        """Return a sentence for each identity that does not hold; empty where all is well."""
        found = []
        heard = self.told + self.returned
        if heard > self.sent:
            found.append(f"told of {heard} frames, but sent only {self.sent}")
        if self.received is not None:
            if self.lost < 0 or self.sent != self.received + self.lost:
                found.append(f"sent {self.sent} is not received {self.received} + lost {self.lost}")
            if self.received != heard:
                found.append(f"received {self.received}, but was told of {heard}")
        if self.close_reason == "END" and self.lost:
            found.append(f"it ended by End, yet {self.lost} frames are lost")
        return found


@dataclass(frozen=True, slots=True)
class Account:
    """Frames of one stream, by what became of them: its mailbox and the sum over its connections.

    Attributes:
        offered: given to `send`.
        replaced: gave way in the client's mailbox, and were never sent.
        waiting: in the mailbox now, or still there when the stream ended.
        sent: distinct frames handed to the transport.
        received: read by the servers, by their own ledgers, or told where a connection was cut before its ledger came;
            None until the last connection has its Closed.
        lost: sent, and not read by the server of a connection that has ended. Under "every_frame" such frames are sent
            again, and are lost only where the stream has ended without.
        results: told with a Result.
        drops: told as dropped, by reason.
        errors: told with a FrameError.
        close_reason: the last server's reason, None until it has said Closed.
        resent: frames sent once more on a later connection; outside the identities.
        connections: the ledger of each connection, the last 64 of them; older ones are one sum at the front.
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
    resent: int = 0
    connections: tuple[ConnectionAccount, ...] = ()

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
        written = sum(connection.sent for connection in self.connections)
        if self.connections and written != self.sent + self.resent:
            found.append(f"{written} frames were written, but sent {self.sent} and resent {self.resent}")
        if self.received is not None:
            found += self._violations_of_ledgers()
        if len(self.connections) > 1:
            found += [
                f"connection to {connection.target}: {sentence}"
                for connection in self.connections
                for sentence in connection.violations()
            ]
        return found

    def _violations_of_ledgers(self) -> list[str]:
        found = []
        if self.lost < 0 or self.sent != self.received_or_told + self.lost:
            found.append(f"sent {self.sent} is not received {self.received} + lost {self.lost}")
        if self.unaccounted != 0:
            drops = sum(self.drops.values())
            found.append(
                f"received {self.received} is not results {self.results} + drops {drops} + errors {self.errors}"
            )
        # Of several connections each is held to this rule by itself.
        if self.close_reason == "END" and self.lost != 0 and len(self.connections) < 2:
            found.append(f"the stream ended by End, yet {self.lost} frames are lost")
        return found

    @property
    def received_or_told(self) -> int:
        """What `received` is by the contract where no Closed arrived: the outcomes this client was told of."""
        return self.told if self.received is None else self.received

    def check(self) -> None:
        """Raise HeadworksError with every violation, if there is one."""
        found = self.violations()
        if found:
            raise HeadworksError("the account does not add up: " + "; ".join(found))


def total(mailbox: Mailbox, connections: Sequence[ConnectionAccount], *, resends: bool, finished: bool) -> Account:
    """Add up a stream.

    Args:
        mailbox: whose frames they are.
        connections: oldest first; none where the stream has never been opened.
        resends: frames without an outcome are sent again, so they are lost only at the end.
        finished: no connection follows.
    """
    settled = sum(connection.settled for connection in connections)
    last = connections[-1] if connections else ConnectionAccount()
    known = last.received is not None and all(connection.ended for connection in connections)
    if resends:
        lost = mailbox.sent - settled if finished else 0
    else:
        lost = sum(connection.lost for connection in connections)
    return Account(
        offered=mailbox.offered,
        replaced=mailbox.replaced,
        waiting=mailbox.waiting,
        sent=mailbox.sent,
        received=settled if known and (finished or not resends) else None,
        lost=lost,
        results=sum(connection.results for connection in connections),
        drops=_sum_drops(connections),
        errors=sum(connection.errors for connection in connections),
        close_reason=last.close_reason,
        resent=mailbox.resent,
        connections=tuple(connections),
    )


def merge(first: ConnectionAccount, second: ConnectionAccount) -> ConnectionAccount:
    """Make one of two ledgers of connections that have ended, where there are too many to keep."""
    return replace(
        second,
        sent=first.sent + second.sent,
        received=first.settled + first.returned + second.settled + second.returned,
        lost=first.lost + second.lost,
        results=first.results + second.results,
        drops=_sum_drops((first, second)),
        errors=first.errors + second.errors,
        returned=first.returned + second.returned,
        close_reason=None,
    )


def _sum_drops(connections: Sequence[ConnectionAccount]) -> dict[str, int]:
    drops: Counter[str] = Counter()
    for connection in connections:
        drops.update(connection.drops)
    return dict(drops)

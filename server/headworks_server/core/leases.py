"""Who keeps an engine resident, and for how long: what the calls of clients and the host of the engines agree on.

A call leases its model's engine from its opening on, while frames of it are in hand, and until it has sent none for a
while (contract, rule 11: 30 seconds); its next frame leases it again.
"""

from __future__ import annotations

from typing import Literal, Protocol

from headworks_server.core.model import ServedModel
from headworks_server.core.session import StreamSession


class LeaseRefusedError(Exception):
    """An engine can neither be had now nor soon.

    Attributes:
        kind: which gRPC status says so.
        detail: the model, and the sizes in question or what its last load failed of.
    """

    def __init__(self, kind: Literal["resource_exhausted", "unavailable"], detail: str) -> None:
        super().__init__(detail)
        self.kind: Literal["resource_exhausted", "unavailable"] = kind
        self.detail = detail


class EngineLeases(Protocol):
    """Whoever holds the engines. On the event loop."""

    def lease(self, model: ServedModel, now_ns: int) -> None:
        """Keep a model's engine, and load it if it is not resident: `model.readiness` says whether it is.

        Raises:
            LeaseRefusedError: there is no room, or its last load has just failed; nothing is leased then.
        """
        ...

    def release(self, model: ServedModel, now_ns: int) -> None:
        """Give a lease back."""
        ...

    async def ready(self, model: ServedModel) -> None:
        """Wait until a leased engine is resident.

        Raises:
            LeaseRefusedError: its load failed, or there is no room for it after all.
        """
        ...


class Lease:
    """One call's lease: whether it is held, and since when its stream has been silent.

    A frame costs nothing here: what was received since the last look says whether there were any.
    """

    __slots__ = ("_received", "_since_ns", "held")

    def __init__(self) -> None:
        self.held = False
        self._received = 0
        self._since_ns = 0

    def take(self, session: StreamSession, now_ns: int) -> None:
        """It is held from now on."""
        self.held = True
        self._received = session.ledger.received
        self._since_ns = now_ns

    def expired(self, session: StreamSession, silent_ns: int, now_ns: int) -> bool:
        """Whether it is held, and its stream has sent nothing and had nothing in hand for that long."""
        received = session.ledger.received
        if not self.held or received != self._received or session.in_flight or session.waiting is not None:
            self._received, self._since_ns = received, now_ns
            return False
        return now_ns - self._since_ns >= silent_ns

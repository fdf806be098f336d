"""What an administrator may ask of the models of a server, and what is told of them; `rpc` serves it, the host does it.

Everything here is called on the event loop. A model is named as a client names it: by its name, and by its version,
where "" is the current one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Literal, Protocol

from headworks_server.core.facts import ModelFacts

RefusalKind = Literal["not_found", "failed_precondition", "resource_exhausted", "invalid_argument", "unavailable"]


class AdministrationError(Exception):
    """What was asked cannot be done; nothing has changed.

    Attributes:
        kind: which gRPC status says so.
        detail: the place, what was expected and the fact.
    """

    def __init__(self, kind: RefusalKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: RefusalKind = kind
        self.detail = detail


class ModelState(IntEnum):
    """Where a model is. The numbers equal those of `headworks.v1`."""

    COLD = 1
    LOADING = 2
    READY = 3
    DEGRADED = 4
    FAILED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """How the residency of one model went since the start; the fields are those of `ResidencyCounters`."""

    hits: int = 0
    loads: int = 0
    failures: int = 0
    evictions: int = 0
    falls: int = 0
    reloads: int = 0
    last_load_seconds: float = 0.0

    def after(self, earlier: Residency) -> Residency:
        """Count on from what was counted before; the last load stays this one's."""
        counts = {of.name: getattr(self, of.name) + getattr(earlier, of.name) for of in fields(self)}
        return Residency(**(counts | {"last_load_seconds": self.last_load_seconds}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """A model as it is now; the fields are those of `ModelStatus`.

    Attributes:
        facts: what clients are told of it.
        resident_bytes: held now, or what its next load reserves.
        curve: (batch size, seconds of such a batch), ascending.
        target_batch: 0 until it was loaded.
    """

    facts: ModelFacts
    state: ModelState
    detail: str = ""
    resident_bytes: int = 0
    leases: int = 0
    pinned: bool = False
    current: bool = True
    backends: tuple[str, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    target_batch: int = 0
    residency: Residency = Residency()


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """The memory that all models share; the fields are those of `ModelMemory`."""

    budget_bytes: int
    used_bytes: int
    over_bytes: int
    thrashing: tuple[str, ...]


class ModelAdministration(Protocol):
    """What an administrator may do. Each method that changes something raises AdministrationError."""

    def reports(self) -> list[ModelReport]:
        """Every model that the server knows, by name, then version."""
        ...

    def report(self, name: str, version: str = "") -> ModelReport:
        """One model."""
        ...

    def memory(self) -> MemoryReport:
        """What they share."""
        ...

    def batch_sizes(self, name: str) -> Mapping[int, int]:
        """Batches executed under a name since the start, by size."""
        ...

    def executed_seconds(self, name: str) -> float:
        """Seconds in the engine under a name since the start."""
        ...

    async def load(self, name: str, version: str = "") -> ModelReport:
        """Load and warm a model; returns when it is ready."""
        ...

    async def unload(self, name: str, version: str = "") -> ModelReport:
        """Unload a model that is neither leased nor pinned; returns when its memory is free."""
        ...

    async def pin(self, name: str, version: str = "") -> ModelReport:
        """Load a model, and keep it."""
        ...

    async def unpin(self, name: str, version: str = "") -> ModelReport:
        """Make a pinned model an ordinary one."""
        ...

    async def swap(self, name: str, version: str = "", *, back: bool = False) -> ModelReport:
        """Serve another version under a name; returns when its streams have moved.

        Args:
            name: which model.
            version: what to serve; "" is the newest in the folder, read anew.
            back: serve what served before the last swap; `version` is "" then.
        """
        ...

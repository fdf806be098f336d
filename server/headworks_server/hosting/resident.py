"""One model and its engine, resident or not: what the owner of the cache keeps of each. Made by `CpuHost`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from headworks_server.core.leases import LeaseRefusedError
from headworks_server.core.model import ServedModel
from headworks_server.engine.base import ModelSpec
from headworks_server.engine.curve import Curve
from headworks_server.hosting.loading import LoadedModel

FIRST_RETRY_NS = 1_000_000_000
LAST_RETRY_NS = 30_000_000_000  # a file that was mended is seen within half a minute


def title(key: str) -> str:
    """What people are told of a key of the cache: name/version."""
    return key.partition("#")[0]


@dataclass(slots=True, eq=False)
class Resident:
    """A model that may be resident.

    Attributes:
        model: as its streams see it.
        spec: what it is.
        chain: its backends, in the order in which they are tried.
        key: in the cache: name/version#generation.
        rank: the backend of the chain that is tried first now: it grows with falls.
        loaded: while it is resident.
        curve: what its batches cost when it was loaded last.
        target: frames of its batches, then; 0 before that.
        failure: what its last load failed of, "" where it did not.
        retry_ns: when it may be tried again.
        reloaded_ns: when it was last loaded again for failed batches, 0 for never.
        reloaded_rank: by which backend that was, at first.
    """

    model: ServedModel
    spec: ModelSpec
    chain: tuple[str, ...]
    key: str
    rank: int = 0
    loaded: LoadedModel | None = None
    curve: Curve | None = None
    target: int = 0
    failure: str = ""
    retry_ns: int = 0
    reloaded_ns: int = 0
    reloaded_rank: int = -1
    falls: int = 0
    reloads: int = 0
    last_load_seconds: float = 0.0
    _backoff_ns: int = FIRST_RETRY_NS
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What people are told of it."""
        return title(self.key)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that are tried, in order."""
        return self.chain[self.rank :]

    def failed(self, detail: str, now_ns: int) -> None:
        """A load came to nothing. The next try begins at the head of the chain."""
        self.failure, self.rank = detail, 0
        self.retry_ns = now_ns + self._backoff_ns
        self._backoff_ns = min(2 * self._backoff_ns, LAST_RETRY_NS)

    def came(self, loaded: LoadedModel) -> None:
        """It is resident."""
        self.loaded, self.curve, self.target = loaded, loaded.curve, loaded.target
        self.failure, self.retry_ns, self._backoff_ns = "", 0, FIRST_RETRY_NS
        self.rank = self.chain.index(loaded.backend)

    async def settled(self) -> None:
        """Wait until it is resident, or until it is known that it will not be: raises LeaseRefusedError then."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            self._waiting.remove(future)

    def settle(self, refusal: LeaseRefusedError | None = None) -> None:
        """Tell those who wait."""
        for future in self._waiting:
            if not future.done():
                if refusal is None:
                    future.set_result(None)
                else:
                    future.set_exception(refusal)

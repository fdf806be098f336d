"""A backend for tests alone: it runs a model as ONNX Runtime does, and fails where it is told to.

Chosen by name in a chain, by a server whose settings ask for it. It shows that what stands behind it takes over.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from headworks_server.config import FailingSettings
from headworks_server.engine.base import Array, Engine, Executor, ModelSpec
from headworks_server.engine.curve import Curve
from headworks_server.errors import EngineError

_loads = count(1)  # of this process


class FailingEngine:
    """An engine whose load fails, or whose batches do from the n-th on; see `FailingSettings`."""

    def __init__(self, inner: Engine, settings: FailingSettings) -> None:
        """Raises EngineError where loads are to fail."""
        number = next(_loads)
        if settings.load and (settings.loads == 0 or number <= settings.loads):
            raise EngineError(f"{inner.spec.name}: load {number} fails, as it was told to")
        self.spec: ModelSpec = inner.spec
        self._inner = inner
        self._from_batch = settings.from_batch
        self._batches = count(1)

    def measure(self) -> Curve:
        """Measure the engine inside; that counts no batches."""
        return self._inner.measure()

    def check(self, curve: Curve) -> bool:
        """Check the engine inside."""
        return self._inner.check(curve)

    def executor(self, memory: Array, *, sizes: Iterable[int] = ()) -> Executor:
        """An executor of the engine inside, whose batches are counted together with those of its siblings."""
        return _FailingExecutor(self._inner.executor(memory, sizes=sizes), self)

    def count_batch(self) -> None:
        """Count a batch; raises EngineError from the n-th on."""
        number = next(self._batches)
        if self._from_batch and number >= self._from_batch:
            raise EngineError(f"{self.spec.name}: batch {number} fails, as it was told to")

    def close(self) -> None:
        """Close the engine inside."""
        self._inner.close()


class _FailingExecutor:
    def __init__(self, inner: Executor, engine: FailingEngine) -> None:
        self._inner = inner
        self._engine = engine

    @property
    def sizes(self) -> tuple[int, ...]:
        return self._inner.sizes

    def run(self, size: int) -> list[Array]:
        self._engine.count_batch()
        return self._inner.run(size)

    def close(self) -> None:
        self._inner.close()

"""What the composition root and rpc know of a host of models, and what a host tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headworks_server.core.admission import AdmissionPool
from headworks_server.core.facts import ModelFacts
from headworks_server.core.leases import EngineLeases
from headworks_server.core.model import ServedModel
from headworks_server.engine.base import ModelSpec


class HostListener(Protocol):
    """Whoever serves the streams: told of what happens to their engines, on the event loop."""

    def engine_changed(self, model: ServedModel, now_ns: int) -> None:
        """An engine has come or gone; `model.readiness` says which."""
        ...

    def backend_changed(self, model: ServedModel, detail: str, now_ns: int) -> None:
        """Another backend has taken a model over; `detail` says why, where one before it failed."""
        ...

    def unserved_form(self, old: ServedModel, new: ServedModel) -> str:
        """Why the streams of one model cannot be moved to another; "" where they can."""
        ...

    def move(self, old: ServedModel, new: ServedModel, now_ns: int) -> int:
        """Move the streams that follow the name from one model to another; returns how many."""
        ...


class Host(EngineLeases, Protocol):
    """What serves the models of a process."""

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What a stream may open, by name; it changes while models come and go."""
        ...

    @property
    def pool(self) -> AdmissionPool:
        """Admission onto the lanes."""
        ...

    def version(self, name: str, version: str) -> ServedModel | None:
        """A version that serves beside the current one of its name."""
        ...

    def batch_sizes(self, name: str) -> Mapping[int, int]:
        """Batches executed under a name since the start, by size."""
        ...

    async def start(self, listener: HostListener) -> None:
        """Start the lanes, and load what is to be resident from the start. Raises ServerError."""
        ...

    def tick(self, now_ns: int) -> None:
        """Let time pass; every second or so."""
        ...

    def unhealthy(self, model: ServedModel, now_ns: int) -> None:
        """Three batches of a model failed in a row: do what helps."""
        ...

    async def stop(self) -> None:
        """Stop the lanes; every ticket comes back."""
        ...


def facts_of(spec: ModelSpec, backend: str, *, generation: int = 1) -> ModelFacts:
    """What a client is told of a model."""
    return ModelFacts(
        name=spec.name,
        version=spec.version,
        generation=generation,
        digest=spec.digest,
        labels=spec.labels,
        backend=backend,
        input_width=spec.input.width,
        input_height=spec.input.height,
        score_threshold=spec.postprocess.score_threshold,
        max_detections=spec.postprocess.max_detections,
        top_k=spec.postprocess.top_k,
        forms=spec.forms,
    )

"""The backends `sleeping` and `null`: one model without a file on a native lane, for tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from headworks_native.lane import CompletionRing
from headworks_native.sleeping import SleepingLane
from headworks_server.config import Settings
from headworks_server.core.admission import AdmissionPool
from headworks_server.core.model import ServedModel
from headworks_server.hosting.host import HostListener, facts_of
from headworks_server.models import stand_in_model
from headworks_server.runtime.device import DeviceLane


class StandInHost:
    """One model that is always resident; see `Host`."""

    def __init__(self, settings: Settings, completions: CompletionRing) -> None:
        options = settings.sleeping.model_dump()
        if settings.backend == "null":
            nothing = dict.fromkeys(("decode_ms", "slow_fraction", "engine_base_ms", "engine_frame_ms"), 0.0)
            options |= {**nothing, "decoders": 1, "detections": settings.null_detections}
        lane = DeviceLane(SleepingLane(completions, **options))
        spec = stand_in_model(max_batch=settings.sleeping.max_batch)
        self.pool = AdmissionPool([lane])
        self.models = {
            spec.name: ServedModel(
                facts=facts_of(spec, settings.backend), pool=self.pool, queue=self.pool.add_model(burst=lane.target)
            )
        }
        self._lane = lane

    def version(self, name: str, version: str) -> ServedModel | None:  # noqa: ARG002
        """There is one version."""
        return None

    def batch_sizes(self, name: str) -> Mapping[int, int]:  # noqa: ARG002  (there is one model)
        """Batches executed, by size."""
        return self._lane.batch_sizes()

    async def start(self, listener: HostListener) -> None:
        """The lane's threads run from the beginning."""

    def tick(self, now_ns: int) -> None:
        """Nothing changes with time."""

    def lease(self, model: ServedModel, now_ns: int) -> None:
        """It is resident."""

    def release(self, model: ServedModel, now_ns: int) -> None:
        """It stays."""

    async def ready(self, model: ServedModel) -> None:
        """It is resident."""

    def unhealthy(self, model: ServedModel, now_ns: int) -> None:
        """There is nothing to load again: its next batch tells."""

    async def stop(self) -> None:
        """Stop the lane; every ticket comes back."""
        await asyncio.get_running_loop().run_in_executor(None, self._lane.close)

"""What an administrator may do with the models of a `CpuHost`; see `core.administration`. The metrics read it, too."""

from __future__ import annotations

import time
from collections.abc import Mapping

from headworks_server.core.administration import (
    AdministrationError,
    MemoryReport,
    ModelReport,
    ModelState,
    RefusalKind,
    Residency,
)
from headworks_server.core.leases import LeaseRefusedError
from headworks_server.core.readiness import Readiness
from headworks_server.engine.cache import EngineState
from headworks_server.errors import EngineError, ModelError, ServerError
from headworks_server.hosting.cpu import CpuHost, SwapRefusedError
from headworks_server.hosting.resident import Resident, title


class HostAdministration:
    """Administration of one host."""

    def __init__(self, host: CpuHost) -> None:
        self._host = host
        self._residents = host.residents

    def reports(self) -> list[ModelReport]:
        """Every model that serves, served before a swap, or serves beside; by name, then age."""
        return [self._report(resident) for resident in self._host.known()]

    def report(self, name: str, version: str = "") -> ModelReport:
        """One model."""
        return self._report(self._find(name, version))

    def memory(self) -> MemoryReport:
        """What they share."""
        cache = self._residents.cache
        thrashing = tuple(map(title, cache.thrashing(time.monotonic_ns())))
        return MemoryReport(cache.budget_bytes, cache.used_bytes, cache.over_bytes, thrashing)

    def batch_sizes(self, name: str) -> Mapping[int, int]:
        """Batches executed under a name since the start, by size."""
        return self._host.batch_sizes(name)

    def executed_seconds(self, name: str) -> float:
        """Seconds in the engine under a name since the start."""
        return self._host.executed_seconds(name)

    async def load(self, name: str, version: str = "") -> ModelReport:
        """Load a model and leave it to the cache; a version that is not served yet serves beside from then on."""
        resident = await self._known(name, version)
        await self._loaded(resident)
        return self._report(resident)

    async def unload(self, name: str, version: str = "") -> ModelReport:
        """Unload a model that nobody uses."""
        resident = self._find(name, version)
        if not await self._residents.unload(resident):
            report = self._report(resident)
            why = "pinned" if report.pinned else f"used by {report.leases} calls" if report.leases else "being loaded"
            raise AdministrationError("failed_precondition", f"{resident.title}: expected it to be idle, it is {why}")
        return self._report(resident)

    async def pin(self, name: str, version: str = "") -> ModelReport:
        """Load a model, and keep it."""
        resident = await self._known(name, version)
        await self._loaded(resident, pin=True)
        return self._report(resident)

    async def unpin(self, name: str, version: str = "") -> ModelReport:
        """Make a pinned model an ordinary one."""
        resident = self._find(name, version)
        self._residents.unpin(resident, time.monotonic_ns())
        return self._report(resident)

    async def swap(self, name: str, version: str = "", *, back: bool = False) -> ModelReport:
        """Serve another version under a name, or what served before."""
        if back and version:
            raise AdministrationError("invalid_argument", f"{name}: expected a version or the way back, got both")
        if self._host.find(name, "") is None:
            raise AdministrationError("not_found", f"no model {name!r}: this server has {self._names()}")
        try:
            return self._report(await self._host.swap(name, version, back=back))
        except ModelError as error:
            raise AdministrationError("not_found" if version else "failed_precondition", str(error)) from None
        except SwapRefusedError as refusal:
            kind: RefusalKind = "resource_exhausted" if refusal.crowded else "failed_precondition"
            raise AdministrationError(kind, str(refusal)) from None
        except ServerError as error:
            raise AdministrationError("failed_precondition", str(error)) from None

    async def _known(self, name: str, version: str) -> Resident:
        """A model that is known, or a version of a known one, read now."""
        resident = self._host.find(name, version)
        if resident is not None:
            return resident
        self._find(name, "")
        try:
            return await self._host.add_beside(name, version)
        except ModelError as error:
            raise AdministrationError("not_found", str(error)) from None
        except EngineError as error:
            raise AdministrationError("failed_precondition", str(error)) from None

    async def _loaded(self, resident: Resident, *, pin: bool = False) -> None:
        residents = self._residents
        resident.retry_ns = 0  # whoever asks for it by hand may have mended it
        try:
            residents.lease(resident, time.monotonic_ns())
            try:
                await residents.ready(resident)
                if pin:
                    residents.pin(resident)
            finally:
                residents.release(resident, time.monotonic_ns())
        except LeaseRefusedError as refusal:
            crowded = refusal.kind == "resource_exhausted"
            kind: RefusalKind = "resource_exhausted" if crowded else "failed_precondition"
            raise AdministrationError(kind, refusal.detail) from None

    def _find(self, name: str, version: str) -> Resident:
        resident = self._host.find(name, version)
        if resident is None:
            what = f"version {version!r} of {name!r}" if version and self._host.find(name, "") else f"model {name!r}"
            raise AdministrationError("not_found", f"no {what}: this server has {self._names()}")
        return resident

    def _names(self) -> str:
        return ", ".join(sorted(self._host.models)) or "none"

    def _report(self, resident: Resident) -> ModelReport:
        stats = self._residents.cache.stats(resident.key)
        state, detail = _state(resident, stats.state)
        residency = self._residents.residency(resident)
        if self._host.find(resident.name, resident.spec.version) is resident:  # of one version it goes on counting
            residency = residency.after(self._residents.settled.get(resident.title, Residency()))
        return ModelReport(
            facts=resident.model.facts,
            state=state,
            detail=detail,
            resident_bytes=stats.size_bytes,
            leases=stats.leases,
            pinned=stats.pinned,
            current=self._host.is_current(resident),
            backends=resident.chain,
            curve=resident.curve.points if resident.curve is not None else (),
            target_batch=resident.target,
            residency=residency,
        )


def _state(resident: Resident, engine: EngineState) -> tuple[ModelState, str]:
    model = resident.model
    if model.readiness is Readiness.FAILED:
        return ModelState.FAILED, model.detail
    if engine is EngineState.LOADING:
        return ModelState.LOADING, ""
    if engine is not EngineState.RESIDENT:
        return ModelState.COLD, resident.failure
    if not model.health.serving:
        return ModelState.DEGRADED, model.health.detail
    return ModelState.READY, ""

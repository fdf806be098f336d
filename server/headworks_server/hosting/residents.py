"""The owner of the engine cache: asks it, and does what it says. On the event loop, where nothing here may wait long.

Loads and evictions run one after the other on the loader thread, preparations in processes of their own beside it.
A model whose engine is not resident is LOADING to its streams, or FAILED where its last load was; `CpuHost` says which
models there are.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import structlog

from headworks_server.core.administration import Residency
from headworks_server.core.admission import AdmissionPool
from headworks_server.core.estimate import FrameTimes
from headworks_server.core.leases import LeaseRefusedError
from headworks_server.core.readiness import Readiness
from headworks_server.engine.cache import EngineCache, EngineState, Load, Refused, Wait
from headworks_server.engine.cache import Resident as IsResident
from headworks_server.errors import ServerError
from headworks_server.hosting.host import HostListener
from headworks_server.hosting.loading import Fall, LoadedModel, ModelLoader
from headworks_server.hosting.resident import Resident, title
from headworks_server.runtime.cpu import CpuLanes
from headworks_server.runtime.loader import LoaderThread

WARM_NS = 10_000_000_000  # after the last stream has closed (contract, rule 8)
EMPTYING_S = 0.002  # between looks whether the frames of a model are out of the lanes: a batch takes some milliseconds
# Frames come and go while an eviction is measured, and the allocator keeps their pictures: below this nothing is told.
NOISE_BYTES = 16 << 20

log = structlog.get_logger("headworks.models")


class Residents:
    """Models that may be resident within a budget.

    Attributes:
        cache: the policy.
        sizes: batches executed by models that are not in the lanes any more, by name.
        settled: how the residency of those went that are not known any more, by title.
        unreturned_bytes: that evictions should have freed and the allocator kept.
        listener: whoever serves the streams.
    """

    def __init__(
        self,
        cache: EngineCache,
        *,
        work: ModelLoader,
        thread: LoaderThread,
        lanes: CpuLanes,
        pool: AdmissionPool,
        next_generation: Callable[[str], int],
    ) -> None:
        self.cache = cache
        self.sizes: dict[str, Counter[int]] = {}
        self.settled: dict[str, Residency] = {}
        self.unreturned_bytes = 0
        self.listener: HostListener | None = None
        self._work = work
        self._lanes = lanes
        self._pool = pool
        self._next_generation = next_generation
        self._thread = thread
        self._preparing = asyncio.Lock()  # one process at a time
        self._known: dict[str, Resident] = {}
        self._wanted: dict[str, None] = {}  # who waits for bytes that are on their way out
        self._tasks: set[asyncio.Task[None]] = set()
        self._thrashing: tuple[str, ...] = ()
        self._closing = False

    # Which models there are.

    def add(self, resident: Resident, estimate_bytes: int) -> None:
        """Make a model known; it is not resident."""
        self._known[resident.key] = resident
        self.cache.add(resident.key, estimate_bytes=estimate_bytes)

    async def forget(self, resident: Resident) -> None:
        """Unload a model that nobody leases, and do not know it any more."""
        self.cache.unpin(resident.key)
        while not await self.unload(resident):
            await asyncio.sleep(EMPTYING_S)  # it is being loaded
        before = self.settled.get(resident.title, Residency())
        self.settled[resident.title] = self.residency(resident).after(before)
        self.cache.discard(resident.key)
        del self._known[resident.key]
        facts = resident.model.facts
        log.info("model_freed", model=facts.name, version=facts.version, generation=facts.generation)

    def residency(self, resident: Resident) -> Residency:
        """How the residency of one went."""
        stats = self.cache.stats(resident.key)
        return Residency(
            hits=stats.hits,
            loads=stats.loads,
            failures=stats.failures,
            evictions=stats.evictions,
            falls=resident.falls,
            reloads=resident.reloads,
            last_load_seconds=resident.last_load_seconds,
        )

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run something that takes long on the loader thread."""
        return await self._thread.run(function, *arguments)

    async def close(self) -> None:
        """End what is under way; nothing begins any more."""
        self._closing = True
        self._work.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.close)

    # Who uses them.

    def lease(self, resident: Resident, now_ns: int) -> None:
        """Keep an engine, and load it if need be; see `EngineLeases.lease`."""
        self.cache.lease(resident.key)
        try:
            if resident.failure and now_ns < resident.retry_ns:
                wait_s = (resident.retry_ns - now_ns) / 1e9
                told = f"{resident.title} cannot be loaded: {resident.failure}"
                raise LeaseRefusedError("unavailable", f"{told} (tried again in {wait_s:.0f} s)")
            self._ask(resident, now_ns)
        except LeaseRefusedError:
            self.cache.release(resident.key, now_ns)
            raise

    def release(self, resident: Resident, now_ns: int) -> None:
        """Give a lease back."""
        self.cache.release(resident.key, now_ns)
        if not self.cache.stats(resident.key).leases:
            self.cache.prefer(resident.key, now_ns + WARM_NS)
        self._trim(now_ns)

    async def ready(self, resident: Resident) -> None:
        """Wait for a leased engine; see `EngineLeases.ready`."""
        if resident.loaded is None or resident.model.readiness is not Readiness.READY:
            await resident.settled()

    def pin(self, resident: Resident) -> None:
        """Keep an engine; the caller loads it."""
        self.cache.pin(resident.key)

    def unpin(self, resident: Resident, now_ns: int) -> None:
        """Let an engine be evicted again."""
        self.cache.unpin(resident.key)
        self._trim(now_ns)

    async def unload(self, resident: Resident) -> bool:
        """Unload an engine; False where it is leased, pinned or being loaded."""
        if self.cache.unload(resident.key):
            await self._evict(resident)
        while self.cache.stats(resident.key).state is EngineState.LEAVING:
            await asyncio.sleep(EMPTYING_S)
        return self.cache.stats(resident.key).state is EngineState.ABSENT

    def load_again(self, resident: Resident, *, fall: bool) -> None:
        """Load a resident engine anew, from the same backend or the next; its streams wait meanwhile."""
        before = resident.loaded
        if before is not None and self.cache.stats(resident.key).state is EngineState.RESIDENT:
            self.cache.reload(resident.key)  # its bytes stay its own meanwhile: nobody can take its place
            self.spawn(self._reload(resident, before, fall=fall))

    def tick(self, now_ns: int) -> None:
        """Try again what failed and is waited for."""
        for resident in list(self._known.values()):
            stats = self.cache.stats(resident.key)
            wanted = stats.leases or stats.pinned
            if wanted and stats.state is EngineState.ABSENT and resident.failure and now_ns >= resident.retry_ns:
                try:
                    self._ask(resident, now_ns)
                except LeaseRefusedError as refusal:
                    resident.failed(refusal.detail, now_ns)
        self._trim(now_ns)

    # What the cache says.

    def _ask(self, resident: Resident, now_ns: int) -> None:
        answer = self.cache.request(resident.key, now_ns)
        if isinstance(answer, IsResident):
            return
        if isinstance(answer, Refused):
            raise LeaseRefusedError("resource_exhausted", _no_room(resident.title, answer))
        if isinstance(answer, Wait):
            self._wanted[resident.key] = None
        elif isinstance(answer, Load):
            self.spawn(self._load(resident, tuple(self._known[key] for key in answer.evict)))
        if resident.model.readiness is Readiness.FAILED:
            self._tell(resident, Readiness.LOADING)

    async def _load(self, resident: Resident, leaving: tuple[Resident, ...], fallen: tuple[Fall, ...] = ()) -> None:
        await asyncio.gather(*map(self._evict, leaving))
        started_s = time.monotonic()
        try:
            loaded = await self._made(resident)
        except ServerError as error:
            self._failed(resident, str(error))
            return
        except Exception as error:  # must cost this model, not those that wait for it
            log.exception("load_defect", model=resident.name)
            self._failed(resident, f"a defect of the server: {error!r}")
            return
        except BaseException:
            self.cache.failed(resident.key)
            raise
        self._came(resident, loaded, time.monotonic() - started_s, (*fallen, *loaded.falls))

    async def _made(self, resident: Resident) -> LoadedModel:
        """Prepare and load a model: seconds, none of them the event loop's."""
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(None, self._work.prepared, resident.spec):
            async with self._preparing:  # others that are prepared already need not wait for it
                await loop.run_in_executor(None, self._work.prepare, resident.spec)
        loaded: LoadedModel = await self._thread.run(self._work.load, resident.spec, resident.backends, resident.curve)
        return loaded

    def _came(self, resident: Resident, loaded: LoadedModel, seconds: float, falls: tuple[Fall, ...]) -> None:
        now_ns = time.monotonic_ns()
        leaving = self.cache.loaded(resident.key, size_bytes=loaded.size_bytes, now_ns=now_ns)
        resident.last_load_seconds = seconds
        resident.falls += len(falls)
        resident.came(loaded)
        self._seat(resident, loaded)
        log.info(
            "model_ready",
            model=resident.name,
            version=resident.spec.version,
            digest=resident.spec.digest[:12],
            backend=loaded.backend,
            head=resident.spec.output.head,
            target=loaded.target,
            ms=loaded.curve.milliseconds(),
            bytes=loaded.size_bytes,
            seconds=round(seconds, 3),
        )
        self._tell_backend(resident, loaded.backend, falls, now_ns)
        self._tell(resident, Readiness.READY)
        resident.settle()
        self._tell_thrashing(now_ns)
        for key in leaving:
            self.spawn(self._evict(self._known[key]))

    def _failed(self, resident: Resident, detail: str) -> None:
        now_ns = time.monotonic_ns()
        self.cache.failed(resident.key)
        resident.failed(detail, now_ns)
        log.warning("model_failed", model=resident.name, version=resident.spec.version, detail=detail)
        told = f"{resident.title} cannot be loaded: {detail}"
        self._tell(resident, Readiness.FAILED, told)
        resident.settle(LeaseRefusedError("unavailable", told))
        self._ask_again(now_ns)

    async def _evict(self, resident: Resident) -> None:
        """Free an engine that is leaving, and tell what came of it."""
        loaded = resident.loaded
        assert loaded is not None
        await self._unseat(resident)
        freed = await self._thread.run(self._work.free, loaded)
        kept = loaded.size_bytes - freed
        told = {"model": resident.name, "version": resident.spec.version, "freed": freed, "held": loaded.size_bytes}
        if kept > max(loaded.size_bytes // 2, NOISE_BYTES):
            self.unreturned_bytes += kept
            log.warning("memory_kept", detail="the allocator did not give an engine's memory back", **told)
        log.info("model_evicted", **told)
        self.cache.evicted(resident.key)
        self._ask_again(time.monotonic_ns())

    async def _reload(self, resident: Resident, before: LoadedModel, *, fall: bool) -> None:
        health = resident.model.health
        fallen = (Fall(before.backend, health.detail),) if fall else ()
        resident.rank += fall
        resident.reloads += not fall
        await self._unseat(resident)
        await self._thread.run(self._work.free, before)
        health.engine_replaced()
        await self._load(resident, (), fallen)

    def _trim(self, now_ns: int) -> None:
        for key in self.cache.trim(now_ns):
            self.spawn(self._evict(self._known[key]))

    def _ask_again(self, now_ns: int) -> None:
        """Bytes have come free: ask for everybody who waits for some."""
        wanted, self._wanted = self._wanted, {}
        for key in wanted:
            resident = self._known.get(key)
            if resident is None:
                continue
            try:
                self._ask(resident, now_ns)
            except LeaseRefusedError as refusal:
                resident.failed(refusal.detail, now_ns)
                self._tell(resident, Readiness.FAILED, refusal.detail)
                resident.settle(refusal)

    # Seats, and what streams are told.

    def _seat(self, resident: Resident, loaded: LoadedModel) -> None:
        queue = resident.model.queue
        queue.times, queue.burst = FrameTimes(frame_ns=loaded.frame_ns), loaded.target
        self._lanes.add_model(resident.model, loaded.target, loaded.seats)
        self._pool.add_queue(queue)

    async def _unseat(self, resident: Resident) -> None:
        model = resident.model
        resident.loaded = None
        self._tell(resident, Readiness.LOADING)
        self._pool.remove_queue(model.queue)
        while model.queue.in_lanes:  # of an engine that is loaded again; an idle one has no frames there
            await asyncio.sleep(EMPTYING_S)
        self.sizes.setdefault(resident.name, Counter()).update(self._lanes.batch_sizes[model])
        self._lanes.remove_model(model)

    def _tell(self, resident: Resident, readiness: Readiness, detail: str = "") -> None:
        model = resident.model
        if (model.readiness, model.detail) == (readiness, detail):
            return
        model.readiness, model.detail = readiness, detail
        if self.listener is not None:
            self.listener.engine_changed(model, time.monotonic_ns())

    def _tell_backend(self, resident: Resident, backend: str, falls: tuple[Fall, ...], now_ns: int) -> None:
        model = resident.model
        for fall in falls:
            log.warning("backend_fell", model=resident.name, backend=fall.backend, cause=fall.cause, to=backend)
        if model.facts.backend == backend:
            return
        generation = self._next_generation(resident.name)
        model.facts = replace(model.facts, backend=backend, generation=generation)
        if self.listener is not None:
            detail = f"{falls[-1].backend} failed, {backend} has taken over: {falls[-1].cause}" if falls else ""
            self.listener.backend_changed(model, detail, now_ns)

    def _tell_thrashing(self, now_ns: int) -> None:
        names = self.cache.thrashing(now_ns)
        if names and names != self._thrashing:
            budget = self.cache.budget_bytes
            log.warning(
                "models_thrash",
                models=[title(name) for name in names],
                budget=budget,
                detail="engine_bytes holds too few of them",
            )
        self._thrashing = names

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on by itself; it is cancelled by `close`."""
        if self._closing:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("residency_defect", exc_info=task.exception())


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f} MB"


def _no_room(model: str, refused: Refused) -> str:
    held = ", ".join(f"{title(one.key)} ({one.why}, {megabytes(one.size_bytes)})" for one in refused.held)
    return (
        f"no room for {model}: expected {megabytes(refused.needed_bytes)} free, got {megabytes(refused.free_bytes)} "
        f"of {megabytes(refused.budget_bytes)}{', held by ' + held if held else ''}"
    )

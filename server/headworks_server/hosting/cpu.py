"""Models from files on the CPU lanes of this machine, under a budget of bytes: which there are, and what serves a name.

A name is served by its current model; a swap loads another one beside it, and then moves the streams that follow the
name. What served before is kept in mind, so that a swap can be taken back. `Residents` keeps the engines. Everything
here is the event loop's.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import structlog

from headworks_native.lane import CompletionRing
from headworks_server.config import Settings
from headworks_server.core.admission import AdmissionPool
from headworks_server.core.leases import LeaseRefusedError
from headworks_server.core.model import ServedModel
from headworks_server.core.readiness import Readiness
from headworks_server.core.roundrobin import ModelQueue
from headworks_server.engine.backends import chain_of
from headworks_server.engine.base import ModelSpec
from headworks_server.engine.cache import EngineCache
from headworks_server.errors import EngineError, ModelError, ServerError
from headworks_server.hosting.host import HostListener, facts_of
from headworks_server.hosting.loading import ModelLoader
from headworks_server.hosting.resident import Resident
from headworks_server.hosting.residents import Residents, megabytes
from headworks_server.models import load_model, load_models
from headworks_server.runtime.cpu import CpuLanes
from headworks_server.runtime.loader import LoaderThread
from headworks_server.runtime.memory import free_memory_bytes

FREE_SHARE = 2  # half of what is free: frames, decoders and everybody else on the machine need the rest
RELOAD_HELD_NS = 60_000_000_000  # an engine that fails again this soon was not helped by being loaded again

log = structlog.get_logger("headworks.models")


class SwapRefusedError(ServerError):
    """What was to serve a name must not; what served it goes on.

    Attributes:
        crowded: it is for want of memory.
    """

    def __init__(self, detail: str, *, crowded: bool = False) -> None:
        super().__init__(detail)
        self.crowded = crowded


class CpuHost:
    """Models from files; see `Host`.

    Attributes:
        models: the current model of each name.
        pool: admission onto the lanes.
        residents: their engines.
        swaps: how often a name's model was swapped, by name and outcome: `done`, `failed` or `refused`.
        served: told of a name that is served from now on, or no longer.
    """

    def __init__(self, settings: Settings, completions: CompletionRing) -> None:
        """Read the models.

        Raises:
            ServerError: a setting does not fit, or a model cannot be served.
        """
        self.models: dict[str, ServedModel] = {}
        self.swaps: Counter[tuple[str, str]] = Counter()
        self.served: Callable[[str, bool], None] = lambda _name, _serving: None
        self._settings = settings
        self._lanes = CpuLanes(settings.lane_count, completions)
        self.pool = AdmissionPool([self._lanes])
        self._work = ModelLoader(settings, self._lanes)
        self._generations: Counter[str] = Counter()
        self._executed_ns: Counter[str] = Counter()  # of models that are forgotten
        budget = settings.engine_bytes if settings.engine_bytes is not None else free_memory_bytes() // FREE_SHARE
        self._thread = LoaderThread()
        self.residents = Residents(
            EngineCache(budget),
            work=self._work,
            thread=self._thread,
            lanes=self._lanes,
            pool=self.pool,
            next_generation=self._next_generation,
        )
        self._current: dict[str, Resident] = {}
        self._previous: dict[str, Resident] = {}
        self._beside: dict[tuple[str, str], Resident] = {}  # versions that were asked for
        self._retired: list[Resident] = []  # known until nobody uses them
        self._of: dict[ServedModel, Resident] = {}
        self._swapping: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        for spec in load_models(settings):
            self._publish(self._make(spec, self._work.survey(spec)))

    # Host.

    async def start(self, listener: HostListener) -> None:
        """Start the lanes, and load what fits the budget, in the order of names.

        Raises:
            ModelError: a model cannot be loaded.
        """
        self.residents.listener = listener
        self._lanes.start()
        cache = self.residents.cache
        log.info("engine_budget", bytes=cache.budget_bytes, models=len(self._current))
        for resident in self._current.values():
            needed = cache.stats(resident.key).size_bytes
            if cache.used_bytes + needed > cache.budget_bytes:
                log.info("model_cold", model=resident.name, needed=needed, free=cache.budget_bytes - cache.used_bytes)
                continue
            try:
                await self._hold(resident)
            except LeaseRefusedError as refusal:
                raise ModelError(resident.failure or refusal.detail) from None
            self.residents.release(resident, time.monotonic_ns())
        # From now on others are served: on a busy machine nobody would wait for a start at the lowest priority.
        self._work.serving = True
        if self._settings.lane_threads == 1:  # the threads of a session would have it, too
            await self._thread.lower_priority()

    async def stop(self) -> None:
        """Stop the lanes; every ticket comes back."""
        await self.residents.close()
        await asyncio.get_running_loop().run_in_executor(None, self._lanes.close)

    def tick(self, now_ns: int) -> None:
        """Try again what failed; forget what nobody uses any more."""
        self.residents.tick(now_ns)
        for resident in self.known():
            if not resident.model.health.serving and now_ns - resident.reloaded_ns >= RELOAD_HELD_NS:
                self.unhealthy(resident.model, now_ns)
        unused = [one for one in self._retired if one.model.queue.idle and not self._leases(one)]
        for resident in unused:
            self._retired.remove(resident)
            self.residents.spawn(self._forget(resident))

    def lease(self, model: ServedModel, now_ns: int) -> None:
        """See `EngineLeases.lease`."""
        self.residents.lease(self._of[model], now_ns)

    def release(self, model: ServedModel, now_ns: int) -> None:
        """See `EngineLeases.release`."""
        self.residents.release(self._of[model], now_ns)

    async def ready(self, model: ServedModel) -> None:
        """See `EngineLeases.ready`."""
        await self.residents.ready(self._of[model])

    def unhealthy(self, model: ServedModel, now_ns: int) -> None:
        """Load the engine again; where that was done a moment ago, fall to the next backend, if there is one."""
        resident = self._of[model]
        tried = resident.reloaded_rank == resident.rank and now_ns - resident.reloaded_ns < RELOAD_HELD_NS
        if tried and len(resident.backends) == 1:
            return
        resident.reloaded_ns, resident.reloaded_rank = now_ns, resident.rank
        self.residents.load_again(resident, fall=tried)

    def version(self, name: str, version: str) -> ServedModel | None:
        """A version that serves beside the current one of its name."""
        resident = self._known_version(name, version)
        return resident.model if resident is not None else None

    def batch_sizes(self, name: str) -> Mapping[int, int]:
        """Batches executed under a name since the start, by size."""
        sizes = Counter(self.residents.sizes.get(name, ()))
        for model in self._of:
            if model.facts.name == name:
                sizes.update(self._lanes.batch_sizes.get(model, ()))
        return sizes

    def executed_seconds(self, name: str) -> float:
        """Seconds in the engine under a name since the start."""
        forgotten_ns = self._executed_ns[name]
        return (forgotten_ns + sum(model.executed_ns for model in self._of if model.facts.name == name)) / 1e9

    # What serves a name.

    def known(self) -> list[Resident]:
        """Every model that serves, served before a swap, or serves beside."""
        found = {*self._current.values(), *self._previous.values(), *self._beside.values()}
        return sorted(found, key=lambda one: (one.name, one.model.facts.generation))

    def find(self, name: str, version: str) -> Resident | None:
        """What serves under a name and version; "" is the current one."""
        current = self._current.get(name)
        if current is not None and version in ("", current.spec.version):
            return current
        return self._known_version(name, version)

    def is_current(self, resident: Resident) -> bool:
        """Whether it serves its name."""
        return self._current.get(resident.name) is resident

    async def add_beside(self, name: str, version: str) -> Resident:
        """Make a version of a model known that serves streams which ask for it.

        Raises:
            ServerError: there is no such version, or it cannot be served.
        """
        spec = await self._describe(name, version)
        resident = await self._known(spec)
        self._beside[name, version] = resident
        return resident

    async def swap(self, name: str, version: str = "", *, back: bool = False) -> Resident:
        """Serve another model under a name, once it is loaded; the streams that follow the name move to it.

        Arguments:
            name: known or new.
            version: of the folder, read anew; "" is the newest.
            back: serve what served before the last swap.

        Raises:
            SwapRefusedError: there is no room for both, it is too slow, or streams ask for what it does not serve.
            ServerError: it cannot be read or loaded.
        """
        async with self._swapping[name]:
            old = self._current.get(name)
            try:
                if back:
                    new = self._previous_of(name)
                else:
                    spec = await self._describe(name, version)
                    if old is not None and spec == old.spec:
                        return old
                    new = await self._known(spec)
                await self._replace(old, new)
            except ServerError as error:
                self.swaps[name, "refused" if isinstance(error, SwapRefusedError) else "failed"] += 1
                log.warning("model_refused", model=name, serving=old is not None, detail=str(error))
                raise
            self.swaps[name, "done"] += old is not None
            return new

    def withdraw(self, name: str) -> None:
        """Let no new stream open a model; its streams keep it to their end."""
        del self.models[name]
        self._retire(self._current.pop(name))
        if (previous := self._previous.pop(name, None)) is not None:
            self._retire(previous)
        self.served(name, False)
        log.info("model_withdrawn", model=name)

    async def _replace(self, old: Resident | None, new: Resident) -> None:
        """Load the new beside the old, judge it, and put it in the old one's place."""
        serving = old if old is not None and old.loaded is not None else None
        if serving is not None:
            self.residents.cache.lease(serving.key)  # it is not what may be evicted to make room for the new one
        try:
            await self._hold(new)
        except LeaseRefusedError as refusal:
            if refusal.kind == "unavailable" or old is not None:
                self._retire(new)
            if refusal.kind == "unavailable":
                raise EngineError(refusal.detail) from None
            if old is not None:
                raise SwapRefusedError(refusal.detail, crowded=True) from None
            self._publish(new)  # its first stream loads it, once there is room
        else:
            try:
                self._judge(serving, new)
                self._move(old, new)
            except SwapRefusedError:
                self._retire(new)
                raise
            finally:
                self.residents.release(new, time.monotonic_ns())
        finally:
            if serving is not None:
                self.residents.release(serving, time.monotonic_ns())

    async def _hold(self, resident: Resident) -> None:
        """Load a model, and keep a lease of it."""
        self.residents.lease(resident, time.monotonic_ns())
        try:
            await self.residents.ready(resident)
        except BaseException:
            self.residents.release(resident, time.monotonic_ns())
            raise

    def _judge(self, serving: Resident | None, new: Resident) -> None:
        """Raise SwapRefusedError where the new one must not take the place of one that serves."""
        if serving is None or serving.loaded is None or new.loaded is None:
            return
        allowed, frame_ms = new.spec.max_frame_ms, new.loaded.frame_ns / 1e6
        if allowed is not None and frame_ms > allowed:
            raise SwapRefusedError(f"{new.title}: expected at most {allowed:g} ms a frame, got {frame_ms:.1f}")
        cache = self.residents.cache
        if cache.over_bytes:
            sizes = " and ".join(f"{one.title} {megabytes(cache.stats(one.key).size_bytes)}" for one in (serving, new))
            budget, over = megabytes(cache.budget_bytes), megabytes(cache.over_bytes)
            raise SwapRefusedError(f"no room for both: expected {sizes} within {budget}, got {over} over", crowded=True)
        listener = self.residents.listener
        if listener is not None and (why := listener.unserved_form(serving.model, new.model)):
            raise SwapRefusedError(f"{new.title}: {why}")

    def _move(self, old: Resident | None, new: Resident) -> None:
        self._publish(new)
        if old is None:
            return
        before = self._previous.get(new.name)
        self._previous[new.name] = old
        if before is not None and before is not new:
            self._retire(before)
        if self.residents.cache.stats(old.key).pinned:  # who pins a model means what serves its name
            self.residents.pin(new)
            self.residents.cache.unpin(old.key)
        if (listener := self.residents.listener) is not None:
            moved = listener.move(old.model, new.model, time.monotonic_ns())
            log.info("model_moved", model=new.name, before=old.title, now=new.title, streams=moved)

    def _publish(self, resident: Resident) -> None:
        self._current[resident.name] = resident
        self.models[resident.name] = resident.model
        self.served(resident.name, True)
        facts = resident.model.facts
        log.info("model_published", model=facts.name, version=facts.version, generation=facts.generation)

    def _previous_of(self, name: str) -> Resident:
        previous = self._previous.get(name)
        if previous is None:
            raise SwapRefusedError(f"{name}: expected a model that served before, got none since the start")
        return previous

    async def _describe(self, name: str, version: str) -> ModelSpec:
        """Read a model's files anew; "" is the newest version."""
        spec: ModelSpec = await self.residents.run(load_model, self._settings, name, version or None)
        return spec

    async def _known(self, spec: ModelSpec) -> Resident:
        """What serves by that spec, known before or from now on."""
        known = next((one for one in self.known() if one.spec == spec), None)
        if known is not None:
            return known
        return self._make(spec, await self.residents.run(self._work.survey, spec))

    def _make(self, spec: ModelSpec, estimate_bytes: int) -> Resident:
        chain, generation = chain_of(spec, self._settings), self._next_generation(spec.name)
        model = ServedModel(
            facts=facts_of(spec, chain[0], generation=generation),
            pool=self.pool,
            queue=ModelQueue(frame_ns=1, burst=1),
            readiness=Readiness.LOADING,
        )
        resident = Resident(model, spec, chain, f"{spec.name}/{spec.version}#{generation}")
        self._of[model] = resident
        self.residents.add(resident, estimate_bytes)
        return resident

    def _retire(self, resident: Resident) -> None:
        """Forget a model once nobody uses it, unless it is kept in mind for something."""
        if resident not in self._retired and resident not in self.known():
            self._retired.append(resident)

    async def _forget(self, resident: Resident) -> None:
        await self.residents.forget(resident)
        del self._of[resident.model]
        self._executed_ns[resident.name] += resident.model.executed_ns

    def _leases(self, resident: Resident) -> int:
        return self.residents.cache.stats(resident.key).leases

    def _known_version(self, name: str, version: str) -> Resident | None:
        beside = self._beside.get((name, version))
        if beside is not None:
            return beside
        previous = self._previous.get(name)
        return previous if previous is not None and previous.spec.version == version else None

    def _next_generation(self, name: str) -> int:
        self._generations[name] += 1
        return self._generations[name]

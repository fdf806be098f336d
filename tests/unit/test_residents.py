"""The owner of the engine cache, with loads that are made up: one load for many, room made first, failures, falls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from headworks_native.lane import CompletionRing
from headworks_server.core.admission import AdmissionPool
from headworks_server.core.leases import LeaseRefusedError
from headworks_server.core.model import ServedModel
from headworks_server.core.readiness import Readiness
from headworks_server.core.roundrobin import ModelQueue
from headworks_server.engine.base import InputSpec, ModelSpec
from headworks_server.engine.cache import EngineCache, EngineState
from headworks_server.engine.curve import Curve
from headworks_server.errors import EngineError
from headworks_server.hosting.host import facts_of
from headworks_server.hosting.loading import LoadedModel, ModelLoader
from headworks_server.hosting.resident import Resident
from headworks_server.hosting.residents import Residents
from headworks_server.runtime.cpu import CpuLanes
from headworks_server.runtime.loader import LoaderThread
from headworks_server.runtime.seat import Seat

SIZE = 100 << 20
CURVE = Curve(((1, 0.01),))


class FakeSeat:
    positions = 1


class FakeWork:
    """Loads and frees at once, unless it is held, and tells what it did in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails: dict[str, str] = {}  # backend to words
        self.gives_back = 1.0
        self.held = threading.Event()
        self.held.set()

    def cancel(self) -> None:
        self.held.set()

    def prepared(self, spec: ModelSpec) -> bool:
        return f"prepare {spec.name}" in self.done

    def prepare(self, spec: ModelSpec) -> None:
        self.done.append(f"prepare {spec.name}")

    def load(self, spec: ModelSpec, backends: tuple[str, ...], curve: Curve | None) -> LoadedModel:
        self.held.wait()
        known = " by its curve" if curve is not None else ""
        for backend in backends:
            if backend not in self.fails:
                self.done.append(f"load {spec.name}{known}")
                return LoadedModel(spec, backend, CURVE, [cast(Seat, FakeSeat())], SIZE, (), 0.0)
        raise EngineError(self.fails[backends[-1]])

    def free(self, loaded: LoadedModel) -> int:
        self.held.wait()
        self.done.append(f"free {loaded.spec.name}")
        return int(self.gives_back * loaded.size_bytes)


class Listener:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.backends: list[tuple[str, str]] = []

    def engine_changed(self, model: ServedModel, now_ns: int) -> None:
        assert now_ns
        self.told.append((model.facts.name, model.readiness.name))

    def backend_changed(self, model: ServedModel, detail: str, now_ns: int) -> None:
        assert now_ns
        self.backends.append((model.facts.backend, detail))

    def unserved_form(self, old: ServedModel, new: ServedModel) -> str:
        raise AssertionError((old, new))

    def move(self, old: ServedModel, new: ServedModel, now_ns: int) -> int:
        raise AssertionError((old, new, now_ns))


class House:
    """Residents with room for two engines, and models to put there."""

    def __init__(self) -> None:
        self.work = FakeWork()
        lanes = CpuLanes(1, CompletionRing(4))
        self.pool = AdmissionPool([lanes])
        generations = count(2)
        self.residents = Residents(
            EngineCache(2 * SIZE),
            work=cast(ModelLoader, self.work),
            thread=LoaderThread(),
            lanes=lanes,
            pool=self.pool,
            next_generation=lambda _name: next(generations),
        )
        self.listener = self.residents.listener = Listener()

    def model(self, name: str, *chain: str) -> Resident:
        spec = ModelSpec(name=name, input=InputSpec(name="x", dtype="uint8", layout="nhwc", width=8, height=8))
        chain = chain or ("cpu",)
        model = ServedModel(
            facts=facts_of(spec, chain[0]),
            pool=self.pool,
            queue=ModelQueue(frame_ns=1, burst=1),
            readiness=Readiness.LOADING,
        )
        resident = Resident(model, spec, chain, f"{name}/1#1")
        self.residents.add(resident, SIZE)
        return resident

    async def hold(self, resident: Resident) -> None:
        """Lease a model, and wait until it is there."""
        self.residents.lease(resident, time.monotonic_ns())
        await self.residents.ready(resident)

    def release(self, resident: Resident) -> None:
        self.residents.release(resident, time.monotonic_ns())


def run(test: Callable[[House], Awaitable[None]]) -> House:
    """Run a test in a house, and close it."""

    async def main() -> House:
        house = House()
        try:
            await test(house)
        finally:
            await house.residents.close()
        return house

    return asyncio.run(asyncio.wait_for(main(), 20))


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_there_is_one_load_however_many_ask() -> None:
    """All of them get what it brings."""

    async def test(house: House) -> None:
        players = house.model("players")
        await asyncio.gather(*(house.hold(players) for _ in range(10)))
        assert players.model.readiness is Readiness.READY
        assert house.residents.cache.stats(players.key).leases == 10

    assert run(test).work.done == ["prepare players", "load players"]


def test_room_is_made_before_a_load_begins_and_the_least_recently_used_goes() -> None:
    """Never is more in memory than the budget holds; what was loaded before is known by its curve."""

    async def test(house: House) -> None:
        first, second, third = (house.model(name) for name in ("first", "second", "third"))
        for resident in (first, second, third, first):
            await house.hold(resident)
            house.release(resident)

    done = [step for step in run(test).work.done if not step.startswith("prepare")]
    assert done == [
        "load first",
        "load second",
        "free first",
        "load third",
        "free second",
        "load first by its curve",
    ]


def test_a_lease_is_refused_with_the_holders_where_nothing_can_make_room() -> None:
    """And is not kept: the next one to ask finds the same."""

    async def test(house: House) -> None:
        first, second, third = (house.model(name) for name in ("first", "second", "third"))
        await house.hold(first)
        house.residents.pin(second)
        await house.hold(second)
        with pytest.raises(LeaseRefusedError) as refused:
            house.residents.lease(third, 1)
        assert refused.value.kind == "resource_exhausted"
        assert refused.value.detail == (
            "no room for third/1: expected 104.9 MB free, got 0.0 MB of 209.7 MB, "
            "held by first/1 (leased, 104.9 MB), second/1 (pinned, 104.9 MB)"
        )
        assert house.residents.cache.stats(third.key).leases == 0
        house.release(first)
        await house.hold(third)

    run(test)


def test_an_engine_that_is_wanted_while_it_leaves_is_loaded_again() -> None:
    """Who asks waits for its bytes, and then for the load."""

    async def test(house: House) -> None:
        only = house.model("only")
        await house.hold(only)
        house.release(only)
        house.work.held.clear()
        leaving = asyncio.ensure_future(house.residents.unload(only))
        await until(lambda: house.residents.cache.stats(only.key).state is EngineState.LEAVING)
        house.residents.lease(only, time.monotonic_ns())
        house.work.held.set()
        await house.residents.ready(only)
        assert not await leaving, "it is in use again"
        assert only.model.readiness is Readiness.READY

    done = [step for step in run(test).work.done if not step.startswith("prepare")]
    assert done == ["load only", "free only", "load only by its curve"]


def test_a_failed_load_is_told_and_tried_again_while_somebody_waits() -> None:
    """Not at once: a second later, then two, so that a broken file does not keep the loader busy."""

    async def test(house: House) -> None:
        house.work.fails["cpu"] = "no such file"
        players = house.model("players")
        with pytest.raises(LeaseRefusedError, match="players/1 cannot be loaded: no such file"):
            await house.hold(players)
        assert (players.model.readiness, players.model.detail) == (
            Readiness.FAILED,
            "players/1 cannot be loaded: no such file",
        )
        with pytest.raises(LeaseRefusedError, match="tried again in 1 s"):
            house.residents.lease(players, time.monotonic_ns())
        house.work.fails.clear()
        house.residents.tick(time.monotonic_ns())
        assert house.residents.cache.stats(players.key).state is EngineState.ABSENT
        house.residents.tick(time.monotonic_ns() + 2_000_000_000)
        await house.residents.ready(players)
        assert house.listener.told == [("players", "FAILED"), ("players", "LOADING"), ("players", "READY")]

    run(test)


def test_an_engine_is_loaded_again_behind_its_frames_and_in_its_own_place() -> None:
    """Its streams wait, its bytes stay its own, and another backend is told as one."""

    async def test(house: House) -> None:
        players = house.model("players", "gpu", "cpu")
        await house.hold(players)
        house.work.done.clear()
        players.model.queue.in_lanes = 1
        players.model.health.batch_failed("out of memory")
        house.residents.load_again(players, fall=True)
        await until(lambda: players.model.readiness is Readiness.LOADING)
        assert house.work.done == []
        assert house.residents.cache.used_bytes == SIZE
        players.model.queue.in_lanes = 0
        await house.residents.ready(players)
        assert (players.model.facts.backend, players.model.facts.generation) == ("cpu", 2)
        assert house.listener.backends == [("cpu", "gpu failed, cpu has taken over: out of memory")]
        assert (players.falls, players.reloads) == (1, 0)

    assert run(test).work.done == ["free players", "prepare players", "load players by its curve"]


def test_what_the_allocator_keeps_of_an_eviction_is_told() -> None:
    """A budget that is kept on paper alone would end in the kernel's hands."""

    async def test(house: House) -> None:
        house.work.gives_back = 0.1
        only = house.model("only")
        await house.hold(only)
        house.release(only)
        with capture_logs() as lines:
            assert await house.residents.unload(only)
        (kept,) = (line for line in lines if line["event"] == "memory_kept")
        assert (kept["freed"], kept["held"]) == (SIZE // 10, SIZE)
        assert house.residents.unreturned_bytes == SIZE - SIZE // 10

    run(test)


def test_models_in_turn_that_do_not_fit_together_are_told_by_name() -> None:
    """Three in turn in room for two: each comes back as soon as it has gone."""

    async def test(house: House) -> None:
        three = [house.model(name) for name in ("first", "second", "third")]
        with capture_logs() as lines:
            for _ in range(5):
                for resident in three:
                    await house.hold(resident)
                    house.release(resident)
        told = [line["models"] for line in lines if line["event"] == "models_thrash"]
        assert told[-1] == ["first/1", "second/1", "third/1"]

    run(test)


def test_the_end_does_not_wait_for_what_is_being_loaded() -> None:
    """Beyond the one call of the runtime that cannot be ended; nobody is left waiting, and nothing begins."""

    async def test(house: House) -> None:
        house.work.held.clear()
        players, ball = house.model("players"), house.model("ball")
        waiting = [asyncio.ensure_future(house.hold(resident)) for resident in (players, ball)]
        await until(lambda: house.work.done)
        await house.residents.close()
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert house.residents.cache.used_bytes == 0
        house.residents.tick(time.monotonic_ns())

    assert "load ball" not in run(test).work.done

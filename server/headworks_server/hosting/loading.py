"""Loading a model and freeing it: what takes long, runs off the event loop, and touches nothing that serves.

`Residents` calls it: `prepare` on a thread that may wait for another process, the rest on the loader thread. A model
is loaded by the first backend of its chain that can: from its prepared file where there is one, else from its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from headworks_native.pixels import Canvas
from headworks_native.ring import LaneRing
from headworks_server.config import Settings
from headworks_server.engine.backends import chain_of, make_engine
from headworks_server.engine.base import Engine, ModelSpec
from headworks_server.engine.curve import Curve
from headworks_server.engine.graph import read_graph
from headworks_server.engine.onnxruntime import doubling_sizes
from headworks_server.engine.plans import Plan, PlanStore
from headworks_server.engine.preparation import NICENESS, estimate_bytes, measured_bytes, plan_key, prepare
from headworks_server.engine.repository import file_digest
from headworks_server.errors import EngineError, PlanError
from headworks_server.media.bounds import PictureLimits
from headworks_server.media.heads import make_heads
from headworks_server.media.prepare import Preparer
from headworks_server.runtime.cpu import CpuLanes
from headworks_server.runtime.memory import private_bytes, release_freed_memory
from headworks_server.runtime.seat import Seat

PLANNED = "onnxruntime-cpu"  # the backend that prepared files are for
# What a load added to the process is told by the process's memory, in which frames come and go meanwhile, and which may
# have had some of it already. An engine holds its weights at least, of which the estimate counts half as many again;
# and what is thrice the estimate is somebody else's (see preparation.py).
LEAST_SHARE, MOST_SHARE = 2 / 3, 3

T = TypeVar("T")

log = structlog.get_logger("headworks.models")


@dataclass(frozen=True, slots=True)
class Fall:
    """A backend that could not load a model, or did not serve it, and why."""

    backend: str
    cause: str


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is warm and has its seats, and that no stream knows yet.

    Attributes:
        spec: what it is.
        backend: what runs it.
        curve: what its batches cost.
        seats: one for each lane; emptied when it is freed.
        size_bytes: what all of it holds.
        falls: the backends before this one.
        seconds: that loading it took.
    """

    spec: ModelSpec
    backend: str
    curve: Curve
    seats: list[Seat]
    size_bytes: int
    falls: tuple[Fall, ...]
    seconds: float

    @property
    def target(self) -> int:
        """Frames of one batch."""
        return self.curve.target()

    @property
    def frame_ns(self) -> int:
        """Engine time of one frame in a batch of the target."""
        return int(self.curve.seconds(self.target) / self.target * 1e9)


class ModelLoader:
    """Loads and frees models. `cancel`, `prepared` and `prepare` are for any thread, the others for one at a time.

    Attributes:
        serving: whether somebody is served, so that preparing must step back.
    """

    def __init__(self, settings: Settings, lanes: CpuLanes) -> None:
        self._settings = settings
        self._lanes = lanes
        self._plans = PlanStore(settings.plans) if settings.plans is not None else None
        self._cancelled = threading.Event()
        self.serving = False
        self._prints: dict[str, Any] = {}  # of the files of a digest, when they were known to have it

    def cancel(self) -> None:
        """End what is being prepared."""
        self._cancelled.set()

    def survey(self, spec: ModelSpec) -> int:
        """Bytes that a model will hold once it is loaded, as measured when it was loaded last, or else estimated.

        Raises:
            ServerError: its file cannot be read, or its backends are not to be had.
        """
        chain_of(spec, self._settings)
        self._prints.setdefault(spec.digest, _print(spec))
        facts = self._keep(lambda plans: plans.facts(self._key(spec)))
        curve = _curve(facts or {})
        batch = curve.target() if curve is not None else spec.max_batch
        held = measured_bytes(facts, batch=batch) if facts is not None else estimate_bytes(spec, batch=batch)
        return self._lanes.count * (held + spec.input.position_bytes * batch)

    def prepared(self, spec: ModelSpec) -> bool:
        """Whether there is nothing to prepare: its file is there and whole, or none is wanted."""
        if self._plans is None or PLANNED not in chain_of(spec, self._settings):
            return True
        return self._plan(spec) is not None

    def prepare(self, spec: ModelSpec) -> None:
        """Make the model's prepared file, unless it is there, or none can be had."""
        assert self._plans is not None
        try:
            prepare(
                spec,
                store=self._plans,
                threads=self._settings.lane_threads,
                cancel=self._cancelled,
                niceness=NICENESS if self.serving else 0,
                progress=lambda stage, done: log.debug("preparing", model=spec.name, stage=stage, done=round(done, 2)),
            )
        except PlanError as error:
            log.warning("model_unprepared", model=spec.name, detail=str(error))

    def load(self, spec: ModelSpec, backends: Sequence[str], curve: Curve | None) -> LoadedModel:
        """Load a model by the first of these backends that can, and make its seats.

        Arguments:
            spec: the model.
            backends: in the order in which they are tried.
            curve: what its batches cost when it was loaded before; it is checked, not measured anew.

        Raises:
            EngineError: none of them can; each tells why.
        """
        started_s = time.monotonic()
        falls: list[Fall] = []
        for backend in backends:
            try:
                found, seats, size = self._open(spec, backend, curve)
            except EngineError as error:
                falls.append(Fall(backend, str(error)))
                continue
            seconds = time.monotonic() - started_s
            return LoadedModel(spec, backend, found, seats, size, tuple(falls), seconds)
        if len(falls) == 1:
            raise EngineError(falls[0].cause)
        raise EngineError("; ".join(f"{fall.backend}: {fall.cause}" for fall in falls))

    def free(self, loaded: LoadedModel) -> int:
        """Drop a model's sessions and seats; returns the bytes that the process gave back for it."""
        before = private_bytes()
        loaded.seats.clear()
        release_freed_memory()
        return max(0, before - private_bytes())

    def _open(self, spec: ModelSpec, backend: str, curve: Curve | None) -> tuple[Curve, list[Seat], int]:
        """Curve, seats and bytes of a model on one backend."""
        plan = self._plan(spec) if backend == PLANNED else None
        if plan is not None:
            remembered = curve if curve is not None else _curve(plan.facts)
            try:
                found, seats = self._seats(spec, backend, plan.path, remembered)
            except EngineError as error:
                # The file is whole, and yet the runtime refuses it: the original tells whether the model is at fault.
                log.warning("plan_refused", model=spec.name, detail=str(error))
                self._keep(lambda plans: plans.discard(self._key(spec)))
            else:
                if found is not remembered:
                    facts = {"curve": [list(point) for point in found.points]}
                    self._keep(lambda plans: plans.remember(self._key(spec), facts))
                held = measured_bytes(plan.facts, batch=found.target())
                return found, seats, len(seats) * (held + spec.input.position_bytes * found.target())
        self._check_file(spec)
        release_freed_memory()
        before = private_bytes()
        found, seats = self._seats(spec, backend, None, curve)
        release_freed_memory()  # what loading it took, and it does not hold
        return found, seats, self._grown(spec, private_bytes() - before)

    def _plan(self, spec: ModelSpec) -> Plan | None:
        return self._keep(lambda plans: plans.find(self._key(spec)))

    def _keep(self, act: Callable[[PlanStore], T]) -> T | None:
        """Do something with the store, where there is one; what fails there is told, and costs no model."""
        if self._plans is None:
            return None
        try:
            return act(self._plans)
        except PlanError as error:
            log.warning("plans_failed", detail=str(error))
            return None

    def _seats(self, spec: ModelSpec, backend: str, plan: Path | None, curve: Curve | None) -> tuple[Curve, list[Seat]]:
        settings = self._settings
        engine = make_engine(backend, spec, settings=settings, threads=settings.lane_threads, plan=plan)

        def seats_of(curve: Curve) -> list[Seat]:
            return self._lanes.make_seats(lambda: _seat(settings, spec, engine, curve.target()))

        if plan is not None and curve is not None and curve.target() in doubling_sizes(spec):
            # The seats first: what warming them costs is most of the check. Not where their bytes are measured, which
            # came out twice as large then.
            seats = seats_of(curve)
            if engine.check(curve):
                return curve, seats
            seats.clear()
            curve = engine.measure()
        elif curve is None or not engine.check(curve):
            curve = engine.measure()
        return curve, seats_of(curve)

    def _grown(self, spec: ModelSpec, grown_bytes: int) -> int:
        expected = self.survey(spec)
        return int(min(max(grown_bytes, LEAST_SHARE * expected), MOST_SHARE * expected))

    def _key(self, spec: ModelSpec) -> Mapping[str, Any]:
        return plan_key(spec, threads=self._settings.lane_threads)

    def _check_file(self, spec: ModelSpec) -> None:
        """Hold the file to the digest it was read with: it may have been replaced since."""
        now = _print(spec)
        if now == self._prints.get(spec.digest):
            return
        digest = file_digest(*_files(spec))
        if digest != spec.digest:
            fact = f"expected the file that was read before, SHA-256 {spec.digest[:12]}, got {digest[:12]}"
            raise EngineError(f"{spec.path}: {fact}: `headworks models swap {spec.name}` serves the new one")
        self._prints[spec.digest] = now


def _files(spec: ModelSpec) -> list[Path]:
    return [spec.path, *(spec.path.parent / name for name in read_graph(spec.path).external)]


def _print(spec: ModelSpec) -> list[tuple[int, int, int]]:
    """What changes whenever one of the model's files does."""
    with suppress(OSError):
        return [(status.st_ino, status.st_size, status.st_mtime_ns) for status in map(os.stat, _files(spec))]
    return []


def _curve(facts: Mapping[str, Any]) -> Curve | None:
    """The curve that a prepared file remembers; a sidecar may hold anything."""
    with suppress(KeyError, TypeError, ValueError):
        return Curve(tuple((int(size), float(seconds)) for size, seconds in facts["curve"]))
    return None


def _seat(settings: Settings, spec: ModelSpec, engine: Engine, target: int) -> Seat:
    positions = spec.fixed_batch or target
    given, before = spec.input, spec.preprocess
    ring = LaneRing(buffers=1, max_batch=positions, position_bytes=given.position_bytes)
    memory = given.view(ring.buffer_memory(0), positions)
    return Seat(
        ring=ring,
        canvas=Canvas(
            memory.data,
            positions=positions,
            height=given.height,
            width=given.width,
            form=given.form,
            channels=given.channels,
            scale=before.scale,
            mean=before.mean,
            std=before.std,
            pad_value=before.pad_value,
        ),
        preparer=Preparer(
            given,
            before,
            limits=PictureLimits(max_bytes=settings.max_frame_bytes, max_pixels=settings.max_frame_pixels),
        ),
        executor=engine.executor(memory, sizes=(1, target)),
        heads=make_heads(spec),
    )

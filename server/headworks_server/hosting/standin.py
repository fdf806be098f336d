"""The models of a process and the lanes they run on: how a model is loaded, published to streams, and withdrawn.

Made by the composition root. `CpuHost` serves models from files on the machine's CPU lanes, and may load and withdraw
them while it serves; `StandInHost` serves one model that there is no file of, for tests and benchmarks. Loading may
happen on any thread; everything else is the event loop's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from headworks_native.lane import CompletionRing
from headworks_native.pixels import Canvas
from headworks_native.ring import LaneRing
from headworks_native.sleeping import SleepingLane
from headworks_server.config import Settings
from headworks_server.core.admission import AdmissionPool
from headworks_server.core.model import ModelFacts, ServedModel
from headworks_server.engine.base import Engine, ModelSpec
from headworks_server.engine.curve import Curve
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
from headworks_server.engine.plans import PlanStore
from headworks_server.engine.preparation import plan_key, prepare
from headworks_server.errors import EngineError, PlanError
from headworks_server.media.bounds import PictureLimits
from headworks_server.media.heads import make_heads
from headworks_server.media.prepare import Preparer
from headworks_server.models import stand_in_model
from headworks_server.runtime.cpu import CpuLanes
from headworks_server.runtime.device import DeviceLane
from headworks_server.runtime.seat import Seat

CPU_BACKEND = "onnxruntime-cpu"
log = structlog.get_logger("headworks.models")


class Host(Protocol):
    """What serves the models of a process.

    Attributes:
        models: what a stream may open, by name; it changes while models come and go.
        pool: admission onto the lanes.
    """

    models: dict[str, ServedModel]
    pool: AdmissionPool

    def batch_sizes(self, name: str) -> Mapping[int, int]:
        """Batches executed of a model since the start, by size."""
        ...

    def start(self) -> None:
        """Start the lanes."""
        ...

    def close(self) -> None:
        """Stop the lanes; every ticket comes back."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is warm and has its seats, and that no stream knows yet.

    Attributes:
        spec: what it is.
        target: frames of one batch.
        frame_ns: engine time of one frame in a batch of `target`, as measured.
        seats: one for each lane.
    """

    spec: ModelSpec
    target: int
    frame_ns: int
    seats: list[Seat]


class CpuHost:
    """Models from files, on the CPU lanes of this machine; see `Host`."""

    def __init__(self, settings: Settings, completions: CompletionRing) -> None:
        self.models: dict[str, ServedModel] = {}
        self._settings = settings
        self._lanes = CpuLanes(settings.lane_count, completions)
        self.pool = AdmissionPool([self._lanes])
        self._generations: Counter[str] = Counter()
        self._withdrawn: list[ServedModel] = []
        self._freed_sizes: dict[str, Counter[int]] = {}
        self._plans = PlanStore(settings.plans) if settings.plans is not None else None
        self.start = self._lanes.start
        self.close = self._lanes.close

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Load a model, measure it and make its seats. On any thread; takes seconds.

        Raises:
            ServerError: the backend refuses it.
        """
        curve, seats = self._open(spec)
        target = curve.target()
        log.info(
            "model_ready",
            model=spec.name,
            version=spec.version,
            digest=spec.digest[:12],
            head=spec.output.head,
            target=target,
            ms=curve.milliseconds(),
        )
        return LoadedModel(spec, target, int(curve.seconds(target) / target * 1e9), seats)

    def _open(self, spec: ModelSpec) -> tuple[Curve, list[Seat]]:
        """Measure a model and make its seats: from its prepared file, where there is one, else from its own."""
        plan = self._prepare(spec)
        if plan is not None and self._plans is not None:
            try:
                return self._measure(spec, plan)
            except EngineError as error:
                # The file is whole, and yet the runtime refuses it: the original tells whether the model is at fault.
                log.warning("plan_refused", model=spec.name, detail=str(error))
                self._plans.discard(plan_key(spec, threads=self._settings.lane_threads))
        return self._measure(spec, None)

    def _measure(self, spec: ModelSpec, plan: Path | None) -> tuple[Curve, list[Seat]]:
        settings = self._settings
        engine = OnnxRuntimeEngine(spec, hint=settings.hint, threads=settings.lane_threads, plan=plan)
        curve = engine.measure()
        return curve, self._lanes.make_seats(lambda: _seat(settings, spec, engine, curve.target()))

    def _prepare(self, spec: ModelSpec) -> Path | None:
        """The model's prepared file, made now if need be; None where none is wanted or none can be had."""
        if self._plans is None:
            return None
        try:
            return prepare(spec, store=self._plans, threads=self._settings.lane_threads).path
        except PlanError as error:
            log.warning("model_unprepared", model=spec.name, detail=str(error))
            return None

    def publish(self, loaded: LoadedModel) -> ServedModel:
        """Let streams open a model. An older one of its name serves its streams to their end."""
        spec = loaded.spec
        if spec.name in self.models:
            self.withdraw(spec.name)
        self._generations[spec.name] += 1
        model = ServedModel(
            facts=facts_of(spec, CPU_BACKEND, generation=self._generations[spec.name]),
            pool=self.pool,
            queue=self.pool.add_model(frame_ns=loaded.frame_ns, burst=loaded.target),
        )
        self._lanes.add_model(model, loaded.target, loaded.seats)
        self.models[spec.name] = model
        return model

    def withdraw(self, name: str) -> None:
        """Let no new stream open a model; `sweep` frees it when its last stream has closed."""
        self._withdrawn.append(self.models.pop(name))

    def sweep(self) -> None:
        """Free the withdrawn models that nobody uses any more."""
        for model in [model for model in self._withdrawn if model.queue.idle]:
            name = model.facts.name
            self._freed_sizes.setdefault(name, Counter()).update(self._lanes.batch_sizes[model])
            self._withdrawn.remove(model)
            self._lanes.remove_model(model)
            self.pool.remove_model(model.queue)
            log.info("model_freed", model=name, version=model.facts.version, generation=model.facts.generation)

    def batch_sizes(self, name: str) -> Mapping[int, int]:
        """Batches executed under that name, by size, over all its generations."""
        sizes = Counter(self._freed_sizes.get(name, ()))
        for model in [*self.models.values(), *self._withdrawn]:
            if model.facts.name == name:
                sizes.update(self._lanes.batch_sizes[model])
        return sizes


class StandInHost:
    """The backends `sleeping` and `null`: one model without a file on a native lane; see `Host`."""

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
        self.close = lane.close

    def start(self) -> None:
        """The lane's threads run from the beginning."""

    def batch_sizes(self, name: str) -> Mapping[int, int]:  # noqa: ARG002  (there is one model)
        """Batches executed, by size."""
        return self._lane.batch_sizes()


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

"""The composition root: the one module that builds the concrete parts and wires them. `cli` runs it.

Order of life: models are read, lanes built and warmed, the port opened; on SIGTERM health says NOT_SERVING, streams
drain, the port closes, lanes stop.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvloop

from headworks_native.lane import CompletionRing
from headworks_native.pixels import Canvas
from headworks_native.ring import LaneRing
from headworks_native.sleeping import SleepingLane
from headworks_server.config import METRICS_OFF, Settings, usable_cores
from headworks_server.core.admission import AdmissionPool
from headworks_server.core.budget import WaitingBytes
from headworks_server.core.grant import MAX_IN_FLIGHT
from headworks_server.core.limits import SessionLimits
from headworks_server.core.model import ModelFacts, ServedModel
from headworks_server.engine.base import Engine, ModelSpec
from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
from headworks_server.media.bounds import PictureLimits
from headworks_server.media.heads import Yolov8Head
from headworks_server.media.prepare import Preparer
from headworks_server.models import load_models, stand_in_model
from headworks_server.rpc.server import GrpcServer
from headworks_server.rpc.service import FrameService, ServiceLimits
from headworks_server.runtime.allocator import raise_malloc_thresholds
from headworks_server.runtime.cpu import CpuLanes
from headworks_server.runtime.device import DeviceLane
from headworks_server.runtime.dispatch import Dispatcher
from headworks_server.runtime.seat import Seat
from headworks_server.telemetry.loop import on_loop, watch_loop
from headworks_server.telemetry.metrics import Metrics, start_metrics_server

log = structlog.get_logger("headworks")

# The interpreter looks this often whether another thread wants it: the loop must not wait 5 ms behind a lane.
SWITCH_INTERVAL_S = 0.0005


@dataclass
class Lanes:
    """What the lanes of a server consist of; `close` brings every ticket back."""

    models: dict[str, ServedModel]
    pools: list[AdmissionPool]
    completions: CompletionRing
    batch_sizes: dict[str, Callable[[], Mapping[int, int]]]
    start: Callable[[], None]
    close: Callable[[], None]


def build_lanes(settings: Settings) -> Lanes:
    """Read the models and build their lanes, warmed.

    Raises:
        ConfigError: a setting does not fit.
        ModelError: a model cannot be served.
    """
    completions = CompletionRing(settings.max_streams * MAX_IN_FLIGHT)  # every stream at its largest grant
    if settings.backend == "onnxruntime":
        return _cpu_lanes(settings, completions)
    return _stand_in_lane(settings, completions)


def _cpu_lanes(settings: Settings, completions: CompletionRing) -> Lanes:
    lanes = CpuLanes(settings.lane_count, completions)
    pool = AdmissionPool([lanes])
    models = {}
    for spec in load_models(settings):
        engine = OnnxRuntimeEngine(spec, hint=settings.hint, threads=settings.lane_threads)
        curve = engine.measure()
        target = curve.target()
        log.info("model_ready", model=spec.name, digest=spec.digest[:12], target=target, ms=curve.milliseconds())
        lanes.add_model(spec.name, target, partial(_seat, settings, spec, engine, target))
        models[spec.name] = ServedModel(facts=_facts(spec, "onnxruntime-cpu"), pool=pool)
    return Lanes(
        models=models,
        pools=[pool],
        completions=completions,
        batch_sizes={name: lanes.batch_sizes[name].copy for name in models},
        start=lanes.start,
        close=lanes.close,
    )


def _seat(settings: Settings, spec: ModelSpec, engine: Engine, target: int) -> Seat:
    positions = spec.fixed_batch or target
    ring = LaneRing(buffers=1, max_batch=positions, position_bytes=spec.input.position_bytes)
    memory = spec.input.view(ring.buffer_memory(0), positions)
    canvas = Canvas(
        memory.data, positions=positions, height=spec.input.height, width=spec.input.width, form=spec.input.form
    )
    limits = PictureLimits(max_bytes=settings.max_frame_bytes, max_pixels=settings.max_frame_pixels)
    return Seat(
        ring=ring,
        canvas=canvas,
        preparer=Preparer(spec.input.width, spec.input.height, limits=limits, scaled=spec.decode_scale == "auto"),
        executor=engine.executor(memory, sizes=(1, target)),
        head=Yolov8Head(
            spec.labels,
            score_threshold=spec.score_threshold,
            iou_threshold=spec.iou_threshold,
            max_detections=spec.max_detections,
        ),
    )


def _stand_in_lane(settings: Settings, completions: CompletionRing) -> Lanes:
    options = settings.sleeping.model_dump()
    if settings.backend == "null":
        options |= {
            "decoders": 1,
            "decode_ms": 0.0,
            "slow_fraction": 0.0,
            "engine_base_ms": 0.0,
            "engine_frame_ms": 0.0,
        }
        options |= {"detections": settings.null_detections}
    lane = DeviceLane(SleepingLane(completions, **options))
    pool = AdmissionPool([lane])
    spec = stand_in_model(max_batch=settings.sleeping.max_batch)
    return Lanes(
        models={spec.name: ServedModel(facts=_facts(spec, settings.backend), pool=pool)},
        pools=[pool],
        completions=completions,
        batch_sizes={spec.name: lane.batch_sizes},
        start=lambda: None,
        close=lane.close,
    )


def _facts(spec: ModelSpec, backend: str) -> ModelFacts:
    return ModelFacts(
        name=spec.name,
        version=spec.version,
        generation=1,
        digest=spec.digest,
        labels=spec.labels,
        backend=backend,
        input_width=spec.input.width,
        input_height=spec.input.height,
        score_threshold=spec.score_threshold,
        max_detections=spec.max_detections,
    )


class App:
    """A server: its lanes, its services, its ports."""

    def __init__(self, settings: Settings, lanes: Lanes) -> None:
        self._settings = settings
        self._lanes = lanes
        self._metrics = Metrics(
            limits={
                "streams": settings.max_streams,
                "waiting_bytes": settings.waiting_bytes,
                "frame_bytes": settings.max_frame_bytes,
                "frame_pixels": settings.max_frame_pixels,
            }
        )
        self._dispatcher = Dispatcher(lanes.completions, lanes.pools)
        budget = WaitingBytes(settings.waiting_bytes)
        self._frames = FrameService(
            lanes.models,
            limits=ServiceLimits(
                max_streams=settings.max_streams,
                max_frame_bytes=settings.max_frame_bytes,
                max_frame_pixels=settings.max_frame_pixels,
                session=SessionLimits(idle_ns=int(settings.idle_timeout_seconds * 1e9)),
            ),
            budget=budget,
            metrics=self._metrics,
            pump=self._dispatcher.pump,
            health_changed=self._health_changed,
        )
        self._metrics.waiting_bytes = lambda: budget.used
        for name in lanes.models:
            model = self._metrics.model(name)
            model.batch_sizes = lanes.batch_sizes[name]
            model.ledger = partial(self._frames.ledger, name)
        self._server = GrpcServer(self._frames, models=lanes.models, max_frame_bytes=settings.max_frame_bytes)
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, ready_file: Path | None) -> None:
        """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        self._lanes.start()
        self._dispatcher.attach(loop, self._frames)
        stop_watching = watch_loop(loop, self._metrics.loop_lag)
        close_metrics: Callable[[], None] = lambda: None  # noqa: E731
        metrics_port = METRICS_OFF
        try:
            if settings.metrics_port != METRICS_OFF:
                metrics_port, close_metrics = start_metrics_server(
                    self._metrics, host=settings.host, port=settings.metrics_port, read=on_loop(loop)
                )
            await self._server.start(settings.address)
            self._ready(ready_file, metrics_port)
            await self._stopping.wait()
            log.info("draining", grace_seconds=settings.drain_grace_seconds)
            await self._server.set_not_serving()
            await self._frames.drain(settings.drain_grace_seconds)
        finally:
            await self._server.stop()
            # The lanes' last tickets must find the loop: their streams' ledgers wait for them.
            await loop.run_in_executor(None, self._lanes.close)
            self._dispatcher.drain()
            self._dispatcher.detach()
            stop_watching()
            await loop.run_in_executor(None, close_metrics)
        log.info("stopped")

    def _ready(self, ready_file: Path | None, metrics_port: int) -> None:
        ports = {"port": self._server.port, "metrics_port": metrics_port, "pid": os.getpid()}
        if ready_file is not None:
            part = ready_file.with_suffix(".part")
            part.write_text(json.dumps(ports))
            part.replace(ready_file)  # a reader sees all of it or nothing
        log.info("serving", host=self._settings.host, models=sorted(self._lanes.models), **ports)

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            os._exit(130)
        self._stopping.set()

    def _health_changed(self, model: str, serving: bool) -> None:
        self._metrics.model(model).healthy = serving
        task = asyncio.get_running_loop().create_task(self._server.set_model_health(model, serving))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def run(settings: Settings, *, ready_file: Path | None = None) -> None:
    """Run a server in this process until it is told to stop.

    Raises:
        ServerError: a setting, a model or the address does not fit.
    """
    raise_malloc_thresholds()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    lanes = build_lanes(settings)

    async def main() -> None:
        await App(settings, lanes).run(ready_file)

    log.info("starting", cores=usable_cores(), lanes=settings.lane_count, backend=settings.backend)
    uvloop.run(main())

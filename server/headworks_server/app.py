"""The composition root: the one module that builds the concrete parts and wires them. `cli` runs it.

Order of life: models are read, those that fit loaded and warmed, the port opened; engines come and go within their
budget, and where the folder of models is watched, so do models; on SIGTERM health says NOT_SERVING, streams drain, the
port closes, lanes stop.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvloop

from headworks_native.lane import CompletionRing
from headworks_server.config import METRICS_OFF, Settings, usable_cores
from headworks_server.core.budget import WaitingBytes
from headworks_server.core.grant import MAX_IN_FLIGHT
from headworks_server.core.limits import SessionLimits
from headworks_server.core.model import ServedModel
from headworks_server.hosting import CpuHost, Host, StandInHost
from headworks_server.hosting.administration import HostAdministration
from headworks_server.rpc.security import Security, read_security
from headworks_server.rpc.server import GrpcServer
from headworks_server.rpc.service import FrameService, ServiceLimits
from headworks_server.runtime.allocator import raise_malloc_thresholds
from headworks_server.runtime.dispatch import Dispatcher
from headworks_server.telemetry.loop import on_loop, watch_loop
from headworks_server.telemetry.metrics import Metrics, start_metrics_server
from headworks_server.watching import ModelWatcher, Print, take_prints

log = structlog.get_logger("headworks")

# The interpreter looks this often whether another thread wants it: the loop must not wait 5 ms behind a lane.
SWITCH_INTERVAL_S = 0.0005
TICK_S = 1.0  # leases and retries are matters of seconds


def build_host(settings: Settings, completions: CompletionRing) -> Host:
    """Read the models and build their lanes.

    Raises:
        ConfigError: a setting does not fit.
        ModelError: a model cannot be served.
    """
    if settings.backend != "onnxruntime":
        return StandInHost(settings, completions)
    return CpuHost(settings, completions)


class App:
    """A server: its models on their lanes, its services, its ports."""

    def __init__(
        self,
        settings: Settings,
        host: Host,
        completions: CompletionRing,
        prints: dict[str, Print],
        security: Security,
    ) -> None:
        self._settings = settings
        self._host = host
        self._prints = prints
        self._metrics = Metrics(
            limits={
                "streams": settings.max_streams,
                "waiting_bytes": settings.waiting_bytes,
                "frame_bytes": settings.max_frame_bytes,
                "frame_pixels": settings.max_frame_pixels,
            }
        )
        self._dispatcher = Dispatcher(completions, [host.pool])
        budget = WaitingBytes(settings.waiting_bytes)
        self._frames = FrameService(
            host,
            leases=host,
            limits=ServiceLimits(
                max_streams=settings.max_streams,
                max_frame_bytes=settings.max_frame_bytes,
                max_frame_pixels=settings.max_frame_pixels,
                session=SessionLimits(idle_ns=int(settings.idle_timeout_seconds * 1e9)),
                silent_ns=int(settings.lease_seconds * 1e9),
            ),
            budget=budget,
            metrics=self._metrics,
            pump=self._dispatcher.pump,
            health_changed=self._model_health,
        )
        self._metrics.waiting_bytes = lambda: budget.used
        for name in host.models:
            self._show(name)
        self._metrics.reload_failures = security.reload_failures
        self._metrics.calls_refused = security.calls_refused
        self._metrics.certificate_expiry = security.certificate_expiry
        administration = None
        if isinstance(host, CpuHost):
            host.served = self._model_served
            administration = HostAdministration(host)
            self._metrics.engines, self._metrics.memory = administration.reports, administration.memory
            self._metrics.swaps = host.swaps
            self._metrics.unreturned_bytes = lambda: host.residents.unreturned_bytes
        self._server = GrpcServer(
            self._frames,
            administration=administration if settings.admin else None,
            admins=settings.admins,
            models=host.models,
            max_frame_bytes=settings.max_frame_bytes,
            max_streams=settings.max_streams,
            security=security,
        )
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, ready_file: Path | None) -> None:
        """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        self._dispatcher.attach(loop, self._frames)
        stop_watching = watch_loop(loop, self._metrics.loop_lag)
        close_metrics: Callable[[], None] = lambda: None  # noqa: E731
        metrics_port = METRICS_OFF
        try:
            if settings.metrics_port != METRICS_OFF:
                metrics_port, close_metrics = start_metrics_server(
                    self._metrics, host=settings.metrics_host, port=settings.metrics_port, read=on_loop(loop)
                )
            await self._host.start(self._frames)
            await self._server.start(settings.address)
            self._ready(ready_file, metrics_port)
            self._watch_models()
            self._spawn(self._tick())
            await self._stopping.wait()
            log.info("draining", grace_seconds=settings.drain_grace_seconds)
            await self._server.set_not_serving()
            await self._frames.drain(settings.drain_grace_seconds)
        finally:
            await self._server.stop()
            # The lanes' last tickets must find the loop: their streams' ledgers wait for them.
            await self._host.stop()
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
        log.info("serving", host=self._settings.host, models=sorted(self._host.models), **ports)

    def _watch_models(self) -> None:
        if self._settings.watch_seconds and isinstance(self._host, CpuHost):
            watcher = ModelWatcher(self._settings, self._host, loaded=self._prints)
            self._spawn(watcher.run())

    async def _tick(self) -> None:
        """Let time pass for leases, and for what is to be tried again."""
        while True:
            await asyncio.sleep(TICK_S)
            now_ns = time.monotonic_ns()
            self._frames.keep_leases(now_ns)
            self._host.tick(now_ns)

    def _show(self, name: str) -> None:
        """Let the metrics ask for a model's numbers."""
        model = self._metrics.model(name)
        model.batch_sizes = partial(self._host.batch_sizes, name)
        model.ledger = partial(self._frames.ledger, name)

    def _model_served(self, name: str, serving: bool) -> None:
        """A name is served from now on, or no longer."""
        if serving:
            self._show(name)
        self._health_changed(name, serving)

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            os._exit(130)
        self._stopping.set()

    def _model_health(self, model: ServedModel, serving: bool, now_ns: int) -> None:
        """Three batches of a model failed in a row, or one is good again."""
        if not serving:
            self._host.unhealthy(model, now_ns)
        if self._host.models.get(model.facts.name) is model:
            self._health_changed(model.facts.name, serving)

    def _health_changed(self, model: str, serving: bool) -> None:
        self._metrics.model(model).healthy = serving
        self._spawn(self._server.set_model_health(model, serving))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def run(settings: Settings, *, ready_file: Path | None = None) -> None:
    """Run a server in this process until it is told to stop.

    Raises:
        ServerError: a setting, a model or the address does not fit.
    """
    raise_malloc_thresholds()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Every stream at its largest grant, and as many calls of InferFrame, of one frame each.
    completions = CompletionRing(settings.max_streams * (MAX_IN_FLIGHT + 1))
    security = read_security(settings)
    prints = take_prints(settings.models) if settings.watch_seconds and settings.models else {}
    host = build_host(settings, completions)

    async def main() -> None:
        await App(settings, host, completions, prints, security).run(ready_file)

    log.info("starting", cores=usable_cores(), lanes=settings.lane_count, backend=settings.backend)
    uvloop.run(main())

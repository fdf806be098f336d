"""The server's numbers: plain counters that the event loop adds to, and their export for Prometheus.

`app.py` makes one `Metrics`; rpc/ adds to it, on the event loop's thread only. What another part counts anyway (the
ledgers of streams, the batches of lanes) is not counted again but asked for at a scrape. Labels are models, reasons and
stages, whose number is bounded; never a stream's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from headworks_server.core.administration import MemoryReport, ModelReport
from headworks_server.core.ledger import Ledger
from headworks_server.core.outcomes import CloseReason, DropReason, DropStage, FrameErrorCode
from headworks_server.errors import ConfigError
from headworks_server.telemetry.engines import counter, engine_families
from headworks_server.telemetry.histogram import Histogram
from headworks_server.telemetry.loop import Reader

LOOP_LAG_EDGES_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
STAGES = ("waited", "decoded", "batched", "executed", "postprocessed")
KEPT_RESULTS = 256  # a few hundred microseconds on the loop, once in so many results
StageTimes = tuple[int, int, int, int, int]
"""Nanoseconds of one frame in each of `STAGES`; together they run from its receipt to its result."""


class ModelMetrics:
    """The numbers of one model.

    Attributes:
        ledger: returns the model's frames by outcome, over all streams since the start.
        errors: frames answered with an error, by code.
        deadline_missed: results that came after their deadline.
        healthy: what the health service says of the model.
        batch_sizes: returns how many batches of each size were executed.
        decode_paths: returns how many frames were decoded each way, such as "simplejpeg"; the ways are few and fixed.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.ledger: Callable[[], Ledger] = Ledger
        self.errors: Counter[FrameErrorCode] = Counter()
        self.deadline_missed = 0
        self.healthy = True
        self.batch_sizes: Callable[[], Mapping[int, int]] = dict
        self.decode_paths: Callable[[], Mapping[str, int]] = dict
        self._stages = tuple(Histogram() for _ in STAGES)
        self._age = Histogram()
        self._kept: list[StageTimes] = []

    def add_result(self, stages_ns: StageTimes, *, deadline_missed: bool = False) -> None:
        """Take the times of a frame that got a result."""
        self.deadline_missed += deadline_missed
        # Six observations a frame are dear while the caches are cold, and nobody looks before the next scrape.
        self._kept.append(stages_ns)
        if len(self._kept) >= KEPT_RESULTS:
            self._observe()

    @property
    def stages(self) -> tuple[Histogram, ...]:
        """A histogram for each of `STAGES`, over the frames that got a result."""
        self._observe()
        return self._stages

    @property
    def age(self) -> Histogram:
        """From receipt to result."""
        self._observe()
        return self._age

    def _observe(self) -> None:
        for stages_ns in self._kept:
            for histogram, duration_ns in zip(self._stages, stages_ns, strict=True):
                histogram.observe(duration_ns)
            self._age.observe(sum(stages_ns))
        self._kept.clear()


class Metrics:
    """The numbers of the server.

    Attributes:
        streams_active: streams open now.
        streams_opened: streams opened since the start.
        streams_closed: streams closed, by reason.
        waiting_bytes: returns the bytes of all waiting frames.
        engines: returns every model as its administrator sees it.
        memory: returns what the models share; None where there is no budget.
        swaps: how often what serves a name was swapped, by name and outcome.
        unreturned_bytes: returns what evictions should have freed and the allocator kept.
        loop_lag: how late the event loop ran a timer.
        reload_failures: returns how often files that are followed were replaced by wrong ones, by what they are.
        calls_refused: returns how many calls were not let in for want of a token.
        certificate_expiry: returns when the server's certificate expires, in Unix time; None without TLS.
        models: the numbers of each model, by name.
    """

    def __init__(self, *, limits: Mapping[str, float] | None = None) -> None:
        """Start at zero.

        Arguments:
            limits: the bounds in force, such as {"streams": 1024}; each is exported as `headworks_max_<name>`.
        """
        self.limits = dict(limits or {})
        self.streams_active = 0
        self.streams_opened = 0
        self.streams_closed: Counter[CloseReason] = Counter()
        self.waiting_bytes: Callable[[], int] = int
        self.reload_failures: Callable[[], Mapping[str, int]] = dict
        self.calls_refused: Callable[[], int] = int
        self.certificate_expiry: Callable[[], float | None] = lambda: None
        self.engines: Callable[[], list[ModelReport]] = list
        self.memory: Callable[[], MemoryReport | None] = lambda: None
        self.swaps: Mapping[tuple[str, str], int] = {}
        self.unreturned_bytes: Callable[[], int] = int
        self.loop_lag = Histogram(LOOP_LAG_EDGES_SECONDS)
        self.models: dict[str, ModelMetrics] = {}

    def model(self, name: str) -> ModelMetrics:
        """The numbers of that model, made at the first call; `name` must be a served model's, never a client's word."""
        found = self.models.get(name)
        if found is None:
            found = self.models[name] = ModelMetrics()
        return found

    def add_error(self, model: str, code: FrameErrorCode) -> None:
        """Count a frame of a model that is answered with an error."""
        self.model(model).errors[code] += 1

    def add_result(self, model: str, stages_ns: StageTimes, *, deadline_missed: bool) -> None:
        """Take the times of a frame of a model that gets a result."""
        self.model(model).add_result(stages_ns, deadline_missed=deadline_missed)

    def open_stream(self) -> None:
        """Count a stream that opened."""
        self.streams_active += 1
        self.streams_opened += 1

    def close_stream(self, reason: CloseReason) -> None:
        """Count a stream that closed."""
        self.streams_active -= 1
        self.streams_closed[reason] += 1


class MetricsCollector(Collector):
    """Exports a `Metrics`; called on the thread of a scrape."""

    def __init__(self, metrics: Metrics, *, read: Reader) -> None:
        """Read from `metrics`, through `read`."""
        self._metrics = metrics
        self._read = read

    def collect(self) -> list[Metric]:
        """Every family, in base units."""
        return self._read(lambda: list(self._families()))

    def _families(self) -> Iterator[Metric]:
        yield from self._server_families()
        yield from self._security_families()
        models = self._metrics.models
        yield from _frame_families(models)
        yield from _batch_families(models)
        yield from _time_families(models)
        memory = self._metrics.memory()
        if memory is not None:
            yield from engine_families(self._metrics.engines(), memory)
            swaps = "Swaps of what serves a name, by outcome."
            yield counter("headworks_model_swaps", swaps, ["model", "outcome"], self._metrics.swaps.items())
            unreturned = "Bytes that evictions should have freed and the allocator kept."
            yield CounterMetricFamily(
                "headworks_eviction_unreturned_bytes", unreturned, value=self._metrics.unreturned_bytes()
            )

    def _server_families(self) -> Iterator[Metric]:
        metrics = self._metrics
        yield GaugeMetricFamily("headworks_streams_active", "Streams open now.", value=metrics.streams_active)
        yield CounterMetricFamily("headworks_streams_opened", "Streams opened.", value=metrics.streams_opened)
        closed = ((_labels(reason), count) for reason, count in metrics.streams_closed.items())
        yield counter("headworks_streams_closed", "Streams closed, by reason.", ["reason"], closed)
        waiting = "Encoded bytes of all frames that wait to be admitted."
        yield GaugeMetricFamily("headworks_waiting_bytes", waiting, value=metrics.waiting_bytes())
        lag = HistogramMetricFamily("headworks_event_loop_lag_seconds", "How late the event loop runs its timers.")
        buckets, total = metrics.loop_lag.cumulative()
        lag.add_metric([], buckets, total)
        yield lag
        for name, limit in metrics.limits.items():
            yield GaugeMetricFamily(
                f"headworks_max_{name}", f"The limit in force: {name.replace('_', ' ')}.", value=limit
            )

    def _security_families(self) -> Iterator[Metric]:
        metrics = self._metrics
        refused = "Calls that were not let in for want of a token."
        yield CounterMetricFamily("headworks_calls_refused", refused, value=metrics.calls_refused())
        failures = (((kind,), count) for kind, count in metrics.reload_failures().items())
        text = "Followed files replaced by wrong ones; the last good ones are in force."
        yield counter("headworks_reload_failures", text, ["kind"], failures)
        expiry = metrics.certificate_expiry()
        if expiry is not None:
            text = "When the server's certificate expires, in Unix time."
            yield GaugeMetricFamily("headworks_certificate_expiry_timestamp_seconds", text, value=expiry)


def start_metrics_server(
    metrics: Metrics, *, host: str, port: int, read: Reader = lambda collect: collect()
) -> tuple[int, Callable[[], None]]:
    """Serve /metrics on its own registry and thread, with the process' own CPU, memory and descriptors.

    Arguments:
        metrics: what is exported.
        host: the address to listen on.
        port: the port, 0 for a free one.
        read: runs the function that collects; `telemetry.loop.on_loop` runs it between two callbacks of the event
            loop, so that the numbers belong together. By default it runs on the scrape's thread.

    Returns:
        The port (where 0 was asked for, the one it got), and a function that stops the server and its thread.

    Raises:
        ConfigError: the address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(MetricsCollector(metrics, read=read))
    prometheus_client.ProcessCollector(registry=registry)
    try:
        server, thread = prometheus_client.start_http_server(port, host.strip("[]"), registry)
    except OSError as error:
        fact = f"{host}:{port} ({error.strerror or error})"
        raise ConfigError(f"metrics_port: expected an address that is free, got {fact}") from error

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, close


def _frame_families(models: Mapping[str, ModelMetrics]) -> Iterator[Metric]:
    ledgers = {name: model.ledger() for name, model in models.items()}
    received = (((name,), ledger.received) for name, ledger in ledgers.items())
    yield counter("headworks_frames_received", "Frames read from streams.", ["model"], received)
    yield counter(
        "headworks_frames",
        "Frames by their one outcome; reason and stage tell of drops.",
        ["model", "outcome", "reason", "stage"],
        ((labels, count) for name, ledger in ledgers.items() for labels, count in _outcomes(name, ledger)),
    )
    errors = (((name, *_labels(code)), n) for name, model in models.items() for code, n in model.errors.items())
    yield counter("headworks_frame_errors", "Frames answered with an error, by code.", ["model", "code"], errors)
    late = (((name,), model.deadline_missed) for name, model in models.items())
    yield counter("headworks_deadline_missed", "Results that came after their deadline.", ["model"], late)
    paths = (((name, path), count) for name, model in models.items() for path, count in model.decode_paths().items())
    yield counter("headworks_frames_decoded", "Frames by the way they were decoded.", ["model", "path"], paths)


def _outcomes(name: str, ledger: Ledger) -> Iterator[tuple[tuple[str, ...], int]]:
    yield (name, "result", "", ""), ledger.results
    yield (name, "error", "", ""), ledger.errors
    for reason, stage, count in ledger.triples():
        yield (name, "drop", *_labels(reason, stage)), count


def _batch_families(models: Mapping[str, ModelMetrics]) -> Iterator[Metric]:
    sizes = (
        ((name, str(size)), count)
        for name, model in models.items()
        for size, count in sorted(model.batch_sizes().items())
    )
    yield counter("headworks_batches", "Batches executed, by how many frames they held.", ["model", "size"], sizes)
    healthy = GaugeMetricFamily(
        "headworks_model_healthy", "1 while the model serves, 0 while it fails.", labels=["model"]
    )
    for name, model in models.items():
        healthy.add_metric([name], float(model.healthy))
    yield healthy


def _time_families(models: Mapping[str, ModelMetrics]) -> Iterator[Metric]:
    stages = HistogramMetricFamily(
        "headworks_stage_seconds",
        "Time of a frame in each stage, for frames that got a result.",
        labels=["model", "stage"],
    )
    ages = HistogramMetricFamily("headworks_frame_age_seconds", "From receipt to result.", labels=["model"])
    for name, model in models.items():
        for stage, histogram in zip(STAGES, model.stages, strict=True):
            stages.add_metric([name, stage], *histogram.cumulative())
        ages.add_metric([name], *model.age.cumulative())
    yield stages
    yield ages


def _labels(*members: CloseReason | DropReason | DropStage | FrameErrorCode) -> tuple[str, ...]:
    return tuple(member.name.lower() for member in members)

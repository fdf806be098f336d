"""The numbers of the engine cache, for Prometheus: what is resident, who holds it, what came and went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from headworks_server.core.administration import MemoryReport, ModelReport, ModelState

LABELS = ["model", "version"]
_COUNTERS = (
    ("headworks_model_cache_hits", "Requests for an engine that found it resident.", "hits"),
    ("headworks_model_cache_loads", "Loads that came to an end well.", "loads"),
    ("headworks_model_cache_load_failures", "Loads that came to nothing.", "failures"),
    ("headworks_model_cache_evictions", "Times an engine had to make room.", "evictions"),
    ("headworks_model_backend_falls", "Falls from one backend to the next of the chain.", "falls"),
    ("headworks_model_reloads", "Loads after three failed batches in a row.", "reloads"),
)


def engine_families(reports: list[ModelReport], memory: MemoryReport) -> Iterator[Metric]:
    """Every family of the engine cache. Several generations of one version are one line: the one that serves now."""
    latest = {
        (report.facts.name, report.facts.version): report for report in sorted(reports, key=lambda one: one.current)
    }
    held = _summed((report, report.resident_bytes) for report in reports if report.state in _RESIDENT)
    yield _gauge("headworks_model_resident_bytes", "Bytes of engines that are resident.", LABELS, held)
    leases = [(labels, report.leases) for labels, report in latest.items()]
    yield _gauge("headworks_model_leases", "Streams and calls that keep an engine.", LABELS, leases)
    pinned = [(labels, float(report.pinned)) for labels, report in latest.items()]
    yield _gauge("headworks_model_pinned", "1 while an engine is pinned.", LABELS, pinned)
    states = [
        ((*labels, state.name.lower()), float(report.state is state))
        for labels, report in latest.items()
        for state in ModelState
    ]
    yield _gauge("headworks_model_state", "1 for the state a model is in.", [*LABELS, "state"], states)
    for name, text, field in _COUNTERS:
        yield counter(name, text, LABELS, _summed((report, getattr(report.residency, field)) for report in reports))
    seconds = [(labels, report.residency.last_load_seconds) for labels, report in latest.items()]
    yield _gauge("headworks_model_last_load_seconds", "What the last load of an engine took.", LABELS, seconds)
    yield GaugeMetricFamily("headworks_engine_budget_bytes", "What engines may hold.", value=memory.budget_bytes)
    yield GaugeMetricFamily("headworks_engine_used_bytes", "What engines hold.", value=memory.used_bytes)
    over = "What leased and pinned engines hold beyond the budget."
    yield GaugeMetricFamily("headworks_engine_over_bytes", over, value=memory.over_bytes)
    thrashing = [(labels, float("/".join(labels) in memory.thrashing)) for labels in latest]
    text = "1 for a model that was evicted and loaded again several times of late."
    yield _gauge("headworks_models_thrashing", text, LABELS, thrashing)


_RESIDENT = (ModelState.READY, ModelState.DEGRADED)


def _summed(values: Iterable[tuple[ModelReport, float]]) -> Iterable[tuple[tuple[str, ...], float]]:
    """All generations of a version together."""
    totals: dict[tuple[str, ...], float] = {}
    for report, value in values:
        labels = (report.facts.name, report.facts.version)
        totals[labels] = totals.get(labels, 0) + value
    return totals.items()


def _gauge(
    name: str, text: str, labels: list[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(list(label_values), value)
    return family


def counter(
    name: str, text: str, labels: list[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> CounterMetricFamily:
    """A counter with those labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(list(label_values), value)
    return family

"""The numbers of the engine cache: a line for each version, true while several generations of it are resident."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from headworks_server.core.administration import MemoryReport, ModelReport, ModelState, Residency
from headworks_server.telemetry.metrics import Metrics, MetricsCollector
from support.served import model_facts

FOOTBALL = (("model", "football"), ("version", "1"))
TENNIS = (("model", "tennis"), ("version", "2"))
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def report(name: str, version: str, state: ModelState = ModelState.READY, *, held: int = 0) -> ModelReport:
    """A model that holds so many bytes, and was hit twice and loaded once."""
    facts = replace(model_facts(name), version=version)
    residency = Residency(hits=2, loads=1, evictions=3, last_load_seconds=0.5)
    return ModelReport(facts=facts, state=state, resident_bytes=held, leases=4, pinned=True, residency=residency)


def export(*reports: ModelReport, memory: MemoryReport | None) -> Samples:
    """The samples of a server with those models."""
    metrics = Metrics()
    metrics.engines, metrics.memory = lambda: list(reports), lambda: memory
    metrics.swaps = Counter({("football", "swapped"): 2})
    metrics.unreturned_bytes = lambda: 4_096
    families = MetricsCollector(metrics, read=lambda collect: collect()).collect()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def shared(*thrashing: str) -> MemoryReport:
    """A budget that is passed by leased models."""
    return MemoryReport(budget_bytes=1_000, used_bytes=1_300, over_bytes=300, thrashing=thrashing)


def test_budget_and_what_is_beyond_it_can_be_read() -> None:
    """Also what evictions should have freed, and how often a name was swapped."""
    samples = export(report("football", "1", held=700), memory=shared())
    assert samples["headworks_engine_budget_bytes", ()] == 1_000
    assert samples["headworks_engine_used_bytes", ()] == 1_300
    assert samples["headworks_engine_over_bytes", ()] == 300
    assert samples["headworks_eviction_unreturned_bytes_total", ()] == 4_096
    assert samples["headworks_model_swaps_total", (("model", "football"), ("outcome", "swapped"))] == 2


def test_each_model_tells_what_it_holds_and_who_holds_it() -> None:
    """Bytes, leases, pin, the course of its residency."""
    samples = export(report("football", "1", held=700), memory=shared())
    expected = {
        "headworks_model_resident_bytes": 700,
        "headworks_model_leases": 4,
        "headworks_model_pinned": 1,
        "headworks_model_cache_hits_total": 2,
        "headworks_model_cache_loads_total": 1,
        "headworks_model_cache_load_failures_total": 0,
        "headworks_model_cache_evictions_total": 3,
        "headworks_model_backend_falls_total": 0,
        "headworks_model_reloads_total": 0,
        "headworks_model_last_load_seconds": 0.5,
    }
    assert {name: samples[name, FOOTBALL] for name in expected} == expected


def test_a_model_is_in_one_state() -> None:
    """Every state has a line, so that an alert can be written for one that was never seen."""
    samples = export(report("football", "1", ModelState.LOADING), memory=shared())
    states = {dict(labels)["state"]: on for (name, labels), on in samples.items() if name == "headworks_model_state"}
    assert states == {"cold": 0, "loading": 1, "ready": 0, "degraded": 0, "failed": 0}


def test_what_the_next_load_reserves_is_not_resident() -> None:
    """A cold model holds nothing, though its report tells what it will need."""
    samples = export(report("football", "1", ModelState.COLD, held=700), memory=shared())
    assert ("headworks_model_resident_bytes", FOOTBALL) not in samples


def test_generations_of_one_version_are_one_line() -> None:
    """Bytes and counts are those of all; the state is that of the one that serves, in whatever order they come."""
    old = replace(report("football", "1", ModelState.FAILED), current=False)
    leaving = replace(report("football", "1", held=300), current=False)
    now = report("football", "1", ModelState.DEGRADED, held=500)
    for reports in ((old, leaving, now), (now, leaving, old)):
        samples = export(*reports, memory=shared())
        assert samples["headworks_model_resident_bytes", FOOTBALL] == 800
        assert samples["headworks_model_cache_hits_total", FOOTBALL] == 6
        assert samples["headworks_model_state", (*FOOTBALL[:1], ("state", "degraded"), *FOOTBALL[1:])] == 1


def test_thrashing_models_are_named() -> None:
    """By model and version, as the report names them."""
    samples = export(report("football", "1"), report("tennis", "2"), memory=shared("tennis/2"))
    assert samples["headworks_models_thrashing", FOOTBALL] == 0
    assert samples["headworks_models_thrashing", TENNIS] == 1


def test_a_server_without_a_budget_tells_nothing_of_one() -> None:
    """Stand-ins stay loaded."""
    samples = export(report("football", "1"), memory=None)
    assert not [name for name, _ in samples if "engine_" in name or "cache" in name]

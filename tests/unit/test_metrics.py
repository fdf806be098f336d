"""The numbers and their export: conservation can be read off, units are base units, and no stream's name appears."""

from __future__ import annotations

import asyncio
import bisect
import gc
import itertools
import socket
import threading
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from headworks_server.core.events import DropOutcome
from headworks_server.core.ledger import Ledger
from headworks_server.core.outcomes import CloseReason, DropReason, DropStage, FrameErrorCode
from headworks_server.errors import ConfigError
from headworks_server.telemetry.histogram import STAGE_EDGES_SECONDS, Histogram
from headworks_server.telemetry.loop import on_loop
from headworks_server.telemetry.metrics import Metrics, start_metrics_server

MS = 1_000_000
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(port: int) -> tuple[str, Samples]:
    """The text of /metrics, and its samples by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        text = reply.read().decode()
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return text, samples


def export(metrics: Metrics) -> tuple[str, Samples]:
    """Serve, scrape once, stop."""
    port, close = start_metrics_server(metrics, host="127.0.0.1", port=0)
    try:
        return scrape(port)
    finally:
        close()


def busy_metrics() -> Metrics:
    """A server that has seen one of everything."""
    metrics = Metrics(limits={"streams": 1024, "waiting_bytes": 1 << 30})
    metrics.open_stream()
    metrics.open_stream()
    metrics.close_stream(CloseReason.IDLE_TIMEOUT)
    metrics.waiting_bytes = lambda: 12_345
    metrics.loop_lag.observe(3 * MS)
    model = metrics.model("football")
    ledger = Ledger()
    ledger.received, ledger.results, ledger.errors = 7, 1, 1
    ledger.drop(DropOutcome(DropReason.REPLACED_BY_NEWER, DropStage.INGRESS), 4)
    ledger.drop(DropOutcome(DropReason.DEADLINE, DropStage.BEFORE_BATCH))
    model.ledger = lambda: ledger
    model.decode_paths = lambda: {"simplejpeg": 1}
    model.batch_sizes = lambda: {1: 3, 8: 2}
    metrics.add_error("football", FrameErrorCode.UNDECODABLE)
    metrics.add_result("football", (4 * MS, 5 * MS, 1 * MS, 20 * MS, MS // 10), deadline_missed=True)
    return metrics


def test_every_frame_received_is_under_one_outcome() -> None:
    """Received = results + drops + errors, in the export as in the ledger."""
    _, samples = export(busy_metrics())
    outcomes = {labels: value for (name, labels), value in samples.items() if name == "headworks_frames_total"}
    assert sum(outcomes.values()) == samples["headworks_frames_received_total", (("model", "football"),)] == 7
    by_text = {" ".join(value for _, value in labels).strip(): count for labels, count in outcomes.items()}
    assert by_text == {
        "football result": 1,
        "football drop replaced_by_newer ingress": 4,
        "football drop deadline before_batch": 1,
        "football error": 1,
    }


def test_export_holds_streams_batches_stages_and_limits() -> None:
    """Stages in seconds, sizes in bytes."""
    _, samples = export(busy_metrics())
    model = ("model", "football")
    assert samples["headworks_streams_active", ()] == 1
    assert samples["headworks_streams_opened_total", ()] == 2
    assert samples["headworks_streams_closed_total", (("reason", "idle_timeout"),)] == 1
    assert samples["headworks_waiting_bytes", ()] == 12_345
    assert samples["headworks_max_streams", ()] == 1024
    assert samples["headworks_batches_total", (model, ("size", "8"))] == 2
    assert samples["headworks_stage_seconds_sum", (model, ("stage", "executed"))] == pytest.approx(0.020)
    assert samples["headworks_stage_seconds_bucket", (("le", "0.02"), model, ("stage", "executed"))] == 1
    assert samples["headworks_stage_seconds_bucket", (("le", "0.015"), model, ("stage", "executed"))] == 0
    assert samples["headworks_frame_age_seconds_sum", (model,)] == pytest.approx(0.0301)
    assert samples["headworks_frame_errors_total", (("code", "undecodable"), model)] == 1
    assert samples["headworks_event_loop_lag_seconds_count", ()] == 1
    assert samples["headworks_deadline_missed_total", (model,)] == 1
    assert samples["headworks_frames_decoded_total", (model, ("path", "simplejpeg"))] == 1
    assert samples["headworks_model_healthy", (model,)] == 1
    assert samples["process_resident_memory_bytes", ()] > 0


def test_every_family_says_what_it_is() -> None:
    """Prefix, a help text that is a sentence, a known unit or none."""
    text, _ = export(busy_metrics())
    ours = [family for family in text_string_to_metric_families(text) if not family.name.startswith("process_")]
    assert len(ours) >= 14
    for family in ours:
        assert family.name.startswith("headworks_")
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_ms", "_us", "_ns", "_mb"))


def test_two_servers_in_one_process_do_not_mix() -> None:
    """Each has its own registry, and the counters start at zero."""
    port, close = start_metrics_server(busy_metrics(), host="127.0.0.1", port=0)
    _, samples = export(Metrics())
    assert samples["headworks_streams_opened_total", ()] == 0
    assert scrape(port)[1]["headworks_streams_opened_total", ()] == 2
    close()


def test_closed_server_frees_port_and_thread() -> None:
    """A restart on the same port works at once."""
    threads = threading.active_count()
    port, close = start_metrics_server(Metrics(), host="127.0.0.1", port=0)
    scrape(port)
    close()
    again, close = start_metrics_server(Metrics(), host="127.0.0.1", port=port)
    close()
    gc.collect()
    assert again == port
    assert threading.active_count() == threads


def test_busy_port_is_a_setting_to_change() -> None:
    """The message names the setting and the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics_port: expected an address that is free, got 127.0.0.1:{port}"):
            start_metrics_server(Metrics(), host="127.0.0.1", port=port)


def test_scrapes_beside_a_busy_loop_never_fail() -> None:
    """New labels appear while the loop works; the numbers are read between two of its callbacks, so they agree."""
    metrics = Metrics()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        ledger = Ledger()
        metrics.model("football").ledger = lambda: ledger
        port, close = start_metrics_server(metrics, host="127.0.0.1", port=0, read=on_loop(loop))
        scrapes = loop.run_in_executor(None, lambda: [scrape(port)[1] for _ in range(5)])
        number = 0
        while not scrapes.done():
            number += 1
            ledger.received += 1
            ledger.drop(DropOutcome(DropReason(1 + number % 8), DropStage(1 + number % 4)))
            metrics.add_error(f"model-{number % 4}", FrameErrorCode(1 + number % 5))
            await asyncio.sleep(0)
        close()
        for samples in await scrapes:
            drops = [count for (name, labels), count in samples.items() if name == "headworks_frames_total"]
            assert sum(drops) == samples["headworks_frames_received_total", (("model", "football"),)]

    asyncio.run(serve())


@given(st.lists(st.integers(0, 4_000_000_000), max_size=50))
def test_histogram_counts_each_duration_once_at_its_edge(durations: list[int]) -> None:
    """Edges are inclusive, as Prometheus means `le`; the last bucket is everything."""
    histogram = Histogram()
    for duration in durations:
        histogram.observe(duration)
    buckets, total = histogram.cumulative()
    assert buckets[-1] == ("+Inf", len(durations))
    assert total == pytest.approx(sum(durations) / 1e9)
    ordered = sorted(durations)
    for (edge, count), edge_ns in zip(buckets[:-1], histogram.edges_ns, strict=True):
        assert float(edge) * 1e9 == pytest.approx(edge_ns)
        assert count == bisect.bisect_right(ordered, edge_ns)


def test_histogram_edges_fit_the_stages() -> None:
    """Between 1 and 500 ms no bucket is wider than a doubling, so a percentile read off is within a factor of two."""
    inside = [edge for edge in STAGE_EDGES_SECONDS if 0.001 <= edge <= 0.5]
    assert max(high / low for low, high in itertools.pairwise(inside)) <= 2
    assert (STAGE_EDGES_SECONDS[0], STAGE_EDGES_SECONDS[-2:]) == (0.0005, (1.0, 2.5))
    with pytest.raises(ValueError, match="ascending"):
        Histogram((0.1, 0.05))

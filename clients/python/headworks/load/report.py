"""The report of a load run: one HTML file that needs nothing else, with plots of ages and rates over time.

Drawn with plotly, from the extra `report`; its JavaScript is written into the file, so that it opens anywhere.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from headworks.load.generator import LoadRun
from headworks.load.record import STAGES
from headworks.load.search import Search
from headworks.load.summary import percentile
from headworks.sources import SourceError

PLOTTED_CAMERAS = 32
"""Cameras with a line of their own; beyond that, only the total can be read anyway."""
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#1c2833}"
    "table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}"
    "th,td{padding:.25em .8em;text-align:right;border-bottom:1px solid #d5dbdf}"
    "th:first-child,td:first-child{text-align:left}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}.miss{color:#b03a2e}"
)


def write_report(path: Path, summary: dict[str, Any], run: LoadRun, search: Search | None = None) -> None:
    """Write the report of a run, and of the search that it ended.

    Raises:
        SourceError: plotly is not installed, or the file cannot be written.
    """
    figures = _figures(summary, run, search)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Headworks load</title><style>{_STYLE}</style>",
        f"<h1>{len(run.cameras)} cameras, {html.escape(summary['mode'])}: {html.escape(summary['model'])} on "
        f"{html.escape(summary['backend'])}</h1>",
        _totals(summary),
        *(f"<h2>{html.escape(title)}</h2>{figure}" for title, figure in figures),
        "<h2>Each camera</h2>",
        _cameras(summary),
        f"<h2>As JSON</h2><details><summary>summary</summary><pre>{html.escape(json.dumps(summary, indent=1))}</pre>"
        "</details></html>",
    ]
    try:
        path.write_text("\n".join(parts), encoding="utf-8")
    except OSError as error:
        raise SourceError(f"--report {path}: cannot be written: {error.strerror}") from error


def _figures(summary: dict[str, Any], run: LoadRun, search: Search | None) -> list[tuple[str, str]]:
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise SourceError("--report: this needs plotly: pip install 'headworks[report]'") from error
    made = [
        ("Age of results, from when the frame was due", _age_figure(go, run)),
        ("Rates", _rate_figure(go, run)),
        ("Where the time goes in the server", _stage_figure(go, summary)),
    ]
    if search is not None:
        made.insert(0, (f"The search: {search.most} cameras hold", _search_figure(go, search)))
    return [
        (title, figure.to_html(full_html=False, include_plotlyjs=number == 0, config={"displaylogo": False}))
        for number, (title, figure) in enumerate(made)
    ]


def _by_second(times_s: Iterable[float], values: Iterable[float], seconds: float) -> list[list[float]]:
    """Values by the whole second in which they happened."""
    slots: list[list[float]] = [[] for _ in range(max(1, math.ceil(seconds)))]
    for time_s, value in zip(times_s, values, strict=True):
        if 0 <= time_s < seconds:
            slots[int(time_s)].append(value)
    return slots


def _age_figure(go: Any, run: LoadRun) -> Any:
    seconds = run.plan.seconds
    figure = go.Figure(layout=_layout("seconds", "ms"))
    together: list[list[float]] = [[] for _ in range(max(1, math.ceil(seconds)))]
    for number, camera in enumerate(run.cameras):
        slots = _by_second(camera.record.due_s, camera.record.ages_ms, seconds)
        for slot, values in zip(together, slots, strict=True):
            slot.extend(values)
        if number < PLOTTED_CAMERAS:
            _line(go, figure, f"{camera.name} p50", [_share(slot, 0.5) for slot in slots], faint=True)
    for name, share in (("all p50", 0.5), ("all p95", 0.95), ("all p99", 0.99)):
        _line(go, figure, name, [_share(slot, share) for slot in together])
    return figure


def _rate_figure(go: Any, run: LoadRun) -> Any:
    seconds = run.plan.seconds
    figure = go.Figure(layout=_layout("seconds", "frames/s"))
    results, drops, failed = ([0] * max(1, math.ceil(seconds)) for _ in range(3))
    for number, camera in enumerate(run.cameras):
        record = camera.record
        own = []
        for times, sums in ((record.due_s, results), (record.drops_s, drops), (record.failed_s, failed)):
            counts = [len(slot) for slot in _by_second(times, times, seconds)]
            sums[:] = [a + b for a, b in zip(sums, counts, strict=True)]
            own.append(counts)
        if number < PLOTTED_CAMERAS:
            _line(go, figure, f"{camera.name} results", own[0], faint=True)
    for name, counts in (("all results", results), ("all drops", drops), ("all errors", failed)):
        _line(go, figure, name, counts)
    if not run.plan.closed:
        _line(go, figure, "all scheduled", [run.plan.fps * len(run.cameras)] * len(results))
    return figure


def _stage_figure(go: Any, summary: dict[str, Any]) -> Any:
    stages = summary["server_stages_ms"]
    figure = go.Figure(layout=_layout("", "ms"))
    for share in ("p50", "p95", "p99"):
        figure.add_bar(name=share, x=list(STAGES), y=[stages[stage][share] for stage in STAGES])
    return figure


def _search_figure(go: Any, search: Search) -> Any:
    figure = go.Figure(layout=_layout("cameras", "ms"))
    steps = sorted(search.steps, key=lambda step: step.cameras)
    for name in ("p50", "p99"):
        figure.add_scatter(
            name=f"age {name}",
            x=[step.cameras for step in steps],
            y=[step.summary["total"]["age_ms"][name] for step in steps],
            mode="lines+markers",
            marker={"color": ["#1e8449" if step.holds else "#b03a2e" for step in steps], "size": 10},
            text=["holds" if step.holds else "; ".join(step.misses) for step in steps],
        )
    return figure


def _line(go: Any, figure: Any, name: str, values: Sequence[float | None], *, faint: bool = False) -> None:
    line = {"width": 1} if faint else {"width": 3}
    trace = go.Scatter(name=name, y=values, mode="lines", line=line, opacity=0.35 if faint else 1, showlegend=not faint)
    figure.add_trace(trace)


def _layout(x: str, y: str) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": 360,
        "margin": {"l": 60, "r": 20, "t": 20, "b": 40},
        "xaxis": {"title": x},
        "yaxis": {"title": y, "rangemode": "tozero"},
    }


def _share(values: list[float], share: float) -> float | None:
    return percentile(sorted(values), share)


def _totals(summary: dict[str, Any]) -> str:
    total, generator = summary["total"], summary["generator"]
    drops = ", ".join(f"{count:,} {reason}" for reason, count in total["drops"].items()) or "none"
    rows = [
        ("results a second", f"{summary['results_per_second']:,}"),
        ("frames scheduled, answered", f"{_text(summary['scheduled'])}, {summary['answered']:,}"),
        ("age p50, p95, p99, max", _spread(total["age_ms"])),
        ("round trip p50, p95, p99, max", _spread(total["round_trip_ms"])),
        ("dropped by the server", drops),
        ("replaced before sending, errors, lost, unaccounted", _counts(total)),
        ("batches by size", html.escape(json.dumps(summary["batch_sizes"]))),
        (
            "the generator itself",
            f"{_text(generator['cpu_ms_per_frame'])} ms CPU a frame, "
            f"{_text(generator['cpu_cores'])} cores, late {_spread(generator['late_ms'])}",
        ),
    ]
    body = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows)
    failures = "".join(f"<p class=miss>{html.escape(failure)}</p>" for failure in summary["failures"])
    return f"<table>{body}</table>{failures}"


def _counts(total: dict[str, Any]) -> str:
    return ", ".join(_text(total[field]) for field in ("replaced", "errors", "lost", "unaccounted"))


def _cameras(summary: dict[str, Any]) -> str:
    fields = ("name", "offered", "replaced", "sent", "results", "errors", "lost", "unaccounted")
    head = "".join(f"<th>{field}</th>" for field in (*fields, "dropped", "age p50", "p99 ms"))
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(_text(row[field]))}</td>" for field in fields)
        + f"<td>{sum(row['drops'].values()):,}</td><td>{_text(row['age_ms']['p50'])}</td>"
        + f"<td>{_text(row['age_ms']['p99'])}</td></tr>"
        for row in summary["cameras"]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _spread(spread: dict[str, float | None]) -> str:
    return ", ".join("none" if value is None else f"{value:,.1f}" for value in spread.values()) + " ms"


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)

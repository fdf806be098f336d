"""What the demo came to: the content of summary.json, and the sentences that decide the exit code. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import headworks
from headworks_server.demo.cameras import Camera

COUNTS = (
    "offered",
    "replaced",
    "waiting",
    "sent",
    "received",
    "lost",
    "results",
    "errors",
    "unaccounted",
    "detections",
)


@dataclass(frozen=True, slots=True)
class Run:
    """The clock and the costs of a run: seconds between first and last frame, and CPU seconds meanwhile."""

    seconds: float
    model: str
    backend: str
    server_cpu_s: float | None
    client_cpu_s: float


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile of ascending values, None where there are none."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread_ms(values: Iterable[float]) -> dict[str, float | None]:
    """Return p50, p95, p99 and max of milliseconds, rounded to microseconds."""
    ordered = sorted(value for value in values if not math.isnan(value))
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    found = {name: percentile(ordered, share) for name, share in shares.items()}
    return {name: None if value is None else round(value, 3) for name, value in found.items()}


def account_of(camera: Camera) -> headworks.Account:
    """Return the stream's account with the outcomes replaced by those that reached the application."""
    assert camera.stream is not None
    account = camera.stream.account
    return replace(account, results=camera.results, drops=dict(camera.drops), errors=camera.errors)


def summarise(cameras: list[Camera], run: Run) -> dict[str, Any]:
    """Return summary.json."""
    rows = [_row(camera) for camera in cameras]
    results = sum(camera.results for camera in cameras)
    return {
        "seconds": round(run.seconds, 3),
        "model": run.model,
        "backend": run.backend,
        "cameras": rows,
        "total": _total(cameras, rows),
        "batch_sizes": batch_sizes(cameras),
        "server_cpu_ms_per_frame": _per_frame_ms(run.server_cpu_s, results),
        "client_cpu_ms_per_frame": _per_frame_ms(run.client_cpu_s, results),
    }


def batch_sizes(cameras: list[Camera]) -> dict[str, int]:
    """Return how many batches of each size were seen: each frame of a batch of b stands for 1/b of it."""
    seen: Counter[int] = Counter()
    for camera in cameras:
        seen.update(camera.batches)
    return {str(size): round(count / size) for size, count in sorted(seen.items()) if size > 0}


def problems(cameras: list[Camera]) -> list[str]:
    """Return why the run is not a success: no Closed, a camera without results or detections, wrong sums."""
    found = []
    for camera in cameras:
        account = account_of(camera)
        if camera.failure is not None:
            found.append(f"{camera.name}: {camera.failure}")
        if account.received is None:
            found.append(f"{camera.name}: the server never said Closed")
        elif account.unaccounted != 0:
            found.append(f"{camera.name}: {account.unaccounted} frames unaccounted for")
        found.extend(f"{camera.name}: {violation}" for violation in account.violations())
        if camera.results == 0:
            found.append(f"{camera.name}: no results")
        elif camera.detections == 0:
            found.append(f"{camera.name}: results, but no detections in them")
    return found


def _row(camera: Camera) -> dict[str, Any]:
    account = account_of(camera)
    return {
        "name": camera.name,
        "offered": account.offered,
        "replaced": account.replaced,
        "waiting": account.waiting,
        "sent": account.sent,
        "received": account.received,
        "lost": account.lost,
        "results": account.results,
        "drops": dict(sorted(account.drops.items())),
        "errors": account.errors,
        "unaccounted": account.unaccounted,
        "detections": camera.detections,
        "age_ms": spread_ms(camera.ages_ms),
        "round_trip_ms": spread_ms(camera.round_trips_ms),
    }


def _total(cameras: list[Camera], rows: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {"name": "total"}
    for field in rows[0]:
        if field in COUNTS:
            values = [row[field] for row in rows]
            # One camera without a Closed leaves the sum unknown.
            total[field] = None if None in values else sum(values)
        elif field == "drops":
            drops: Counter[str] = Counter()
            for row in rows:
                drops.update(row["drops"])
            total[field] = dict(sorted(drops.items()))
    total["age_ms"] = spread_ms(age for camera in cameras for age in camera.ages_ms)
    total["round_trip_ms"] = spread_ms(trip for camera in cameras for trip in camera.round_trips_ms)
    return total


def _per_frame_ms(cpu_s: float | None, results: int) -> float | None:
    return None if cpu_s is None or results == 0 else round(cpu_s * 1e3 / results, 3)

"""What a run of cameras came to, as JSON takes it: every camera's account and times, their total, and the generator.

Pure. The demo's summary.json has the same fields for its cameras; `row` and `total` make them for both.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headworks.account import Account
from headworks.load.generator import LoadRun
from headworks.load.record import STAGES

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
SUMMED = (
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


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile of ascending values, None where there are none."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread_ms(values: Iterable[float]) -> dict[str, float | None]:
    """Return p50, p95, p99 and max of milliseconds, rounded to microseconds."""
    ordered = sorted(value for value in values if not math.isnan(value))
    found = {name: percentile(ordered, share) for name, share in SHARES.items()}
    return {name: None if value is None else round(value, 3) for name, value in found.items()}


def batch_sizes(batches: Mapping[int, int]) -> dict[str, int]:
    """Return how many batches of each size were seen, of results by the size of their batch: each stands for 1/size."""
    return {str(size): round(count / size) for size, count in sorted(batches.items()) if size > 0}


def row(
    name: str, account: Account, *, detections: int, ages_ms: Iterable[float], round_trips_ms: Iterable[float]
) -> dict[str, Any]:
    """Return one camera's account and times."""
    return {
        "name": name,
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
        "detections": detections,
        "age_ms": spread_ms(ages_ms),
        "round_trip_ms": spread_ms(round_trips_ms),
    }


def total(rows: Sequence[Mapping[str, Any]], *, ages_ms: Iterable[float], round_trips_ms: Iterable[float]) -> Any:
    """Return the sum of all rows; a number that one camera does not know is unknown, None."""
    drops: Counter[str] = Counter()
    for camera in rows:
        drops.update(camera["drops"])
    found: dict[str, Any] = {"name": "total"}
    for field in SUMMED:
        values = [camera[field] for camera in rows]
        found[field] = None if None in values else sum(values)
    found["drops"] = dict(sorted(drops.items()))
    found["age_ms"] = spread_ms(ages_ms)
    found["round_trip_ms"] = spread_ms(round_trips_ms)
    return found


def summarise(run: LoadRun) -> dict[str, Any]:
    """Return the whole of a run. Accounts hold all of it; ages, rates and stages are those of the measured time."""
    plan, cameras = run.plan, run.cameras
    places = [camera.record.measured(plan.seconds) for camera in cameras]
    ages = [[camera.record.ages_ms[place] for place in found] for camera, found in zip(cameras, places, strict=True)]
    trips = [
        [camera.record.round_trips_ms[place] for place in found] for camera, found in zip(cameras, places, strict=True)
    ]
    rows = [
        row(camera.name, account, detections=camera.record.found, ages_ms=age, round_trips_ms=trip)
        for camera, age, trip in zip(cameras, ages, trips, strict=True)
        if (account := camera.account) is not None
    ]
    batches: Counter[int] = Counter()
    for camera in cameras:
        batches.update(camera.record.batches)
    answered = sum(map(len, ages))
    scheduled = len(run.late_ms)
    served = next((camera.opened.models[0] for camera in cameras if camera.opened is not None), None)
    return {
        "seconds": round(run.seconds, 3),
        "warm_up_seconds": plan.warm_s,
        "model": served.name if served is not None else plan.model,
        "backend": served.backend if served is not None else "",
        "mode": f"closed loop, {plan.closed} on the way" if plan.closed else f"open loop, {plan.fps:g} fps",
        "policy": plan.policy.kind,
        "cameras": rows,
        "total": total(
            rows,
            ages_ms=(value for camera in ages for value in camera),
            round_trips_ms=(value for camera in trips for value in camera),
        ),
        "scheduled": None if plan.closed else scheduled,
        "answered": answered,
        "answered_share": None if plan.closed or not scheduled else round(answered / scheduled, 4),
        "results_per_second": round(answered / plan.seconds, 2),
        "deadline_missed": sum(camera.record.deadline_missed for camera in cameras),
        "batch_sizes": batch_sizes(batches),
        "server_stages_ms": _stages(run, places),
        "generator": _generator(run, answered),
        "failures": run.failures,
    }


def _stages(run: LoadRun, places: list[list[int]]) -> dict[str, dict[str, float | None]]:
    return {
        stage: spread_ms(
            camera.record.stages_ms[stage][place]
            for camera, found in zip(run.cameras, places, strict=True)
            for place in found
        )
        for stage in STAGES
    }


def _generator(run: LoadRun, answered: int) -> dict[str, Any]:
    """What the generator itself cost, and how punctual it was: beyond a few ms it measures itself."""
    offered = len(run.late_ms) or answered
    return {
        "cpu_ms_per_frame": round(run.cpu_s * 1e3 / offered, 3) if offered else None,
        "cpu_cores": round(run.cpu_s / run.seconds, 3) if run.seconds else None,
        "late_ms": spread_ms(run.late_ms),
    }

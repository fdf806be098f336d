"""What the demo came to: the content of summary.json, and the sentences that decide the exit code. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import headworks
from headworks.load import summary
from headworks_server.demo.cameras import Camera
from headworks_server.demo.teams import TEAMS, Teams


@dataclass(frozen=True, slots=True)
class Run:
    """The clock and the costs of a run: seconds between first and last frame, and CPU seconds meanwhile.

    `teams` is what the `teams` model said of the first camera's players, afterwards; None where it was not asked.
    """

    seconds: float
    model: str
    backend: str
    server_cpu_s: float | None
    client_cpu_s: float
    teams: Teams | None = None


def account_of(camera: Camera) -> headworks.Account:
    """Return the stream's account with the outcomes replaced by those that reached the application."""
    assert camera.stream is not None
    account = camera.stream.account
    return replace(account, results=camera.results, drops=dict(camera.drops), errors=camera.errors)


def summarise(cameras: list[Camera], run: Run) -> dict[str, Any]:
    """Return summary.json."""
    rows = [
        summary.row(
            camera.name,
            account_of(camera),
            detections=camera.detections,
            ages_ms=camera.ages_ms,
            round_trips_ms=camera.round_trips_ms,
        )
        for camera in cameras
    ]
    results = sum(camera.results for camera in cameras)
    return {
        "seconds": round(run.seconds, 3),
        "model": run.model,
        "backend": run.backend,
        "cameras": rows,
        "total": summary.total(
            rows,
            ages_ms=(age for camera in cameras for age in camera.ages_ms),
            round_trips_ms=(trip for camera in cameras for trip in camera.round_trips_ms),
        ),
        "batch_sizes": batch_sizes(cameras),
        "server_cpu_ms_per_frame": _per_frame_ms(run.server_cpu_s, results),
        "client_cpu_ms_per_frame": _per_frame_ms(run.client_cpu_s, results),
        "teams": None if run.teams is None else _teams(run.teams),
    }


def batch_sizes(cameras: list[Camera]) -> dict[str, int]:
    """Return how many batches of each size were seen."""
    seen: Counter[int] = Counter()
    for camera in cameras:
        seen.update(camera.batches)
    return summary.batch_sizes(seen)


def problems(cameras: list[Camera], teams: Teams | None = None) -> list[str]:
    """Return why the run is not a success: no Closed, a camera without results or anything in them, wrong sums."""
    found = []
    if teams is not None and teams.results != teams.sent:
        found.append(f"{TEAMS}: {teams.sent} players sent, {teams.results} results")
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


def _teams(teams: Teams) -> dict[str, Any]:
    return {"sent": teams.sent, "results": teams.results, "players": dict(sorted(teams.seen.items()))}


def _per_frame_ms(cpu_s: float | None, results: int) -> float | None:
    return None if cpu_s is None or results == 0 else round(cpu_s * 1e3 / results, 3)

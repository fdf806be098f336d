"""The live view of the cameras: a table in a terminal, one plain line a second elsewhere. Only reads the cameras."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import click
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headworks.load.summary import percentile
from headworks_server.demo.cameras import Camera, Pacer
from headworks_server.demo.summary import batch_sizes

REFRESH_S = 0.5
PLAIN_S = 1.0
RECENT = 150
"""Results that an age in the table looks at: five seconds of a camera at 30 fps."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Frames offered and results told per second, of one camera, since the last look."""

    offered: float
    results: float


class Rate:
    """Turns growing counts into rates; time comes in."""

    def __init__(self, cameras: list[Camera], now_s: float) -> None:
        self._cameras = cameras
        self._last_s = now_s
        self._last = self._counts()

    def look(self, now_s: float) -> list[Rates]:
        """Return the rates since the last look."""
        passed_s = max(now_s - self._last_s, 1e-9)
        now = self._counts()
        rates = [
            Rates((offered - before[0]) / passed_s, (results - before[1]) / passed_s)
            for (offered, results), before in zip(now, self._last, strict=True)
        ]
        self._last, self._last_s = now, now_s
        return rates

    def _counts(self) -> list[tuple[int, int]]:
        return [(camera.offered, camera.results) for camera in self._cameras]


def show_until_done(cameras: list[Camera], pacer: Pacer, console: Console) -> None:
    """Show what happens until the last frame was offered."""
    rate = Rate(cameras, time.monotonic())
    if not console.is_terminal:
        while not pacer.wait(PLAIN_S):
            click.echo(plain_line(cameras, rate.look(time.monotonic()), time.monotonic() - pacer.started_s))
        return
    with Live(console=console, auto_refresh=False) as live:
        while not pacer.wait(REFRESH_S):
            live.update(view(cameras, rate.look(time.monotonic())), refresh=True)


def view(cameras: list[Camera], rates: list[Rates]) -> Group:
    """Return the table and the line below it."""
    # Fits 80 columns.
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("camera", no_wrap=True)
    for heading in ("fps in", "results/s", "age p50", "p99 ms", "boxes", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("drops")
    for camera, rate in zip(cameras, rates, strict=True):
        ages = sorted(camera.ages_ms[-RECENT:])
        table.add_row(
            camera.name,
            f"{rate.offered:.1f}",
            f"{rate.results:.1f}",
            _ms(percentile(ages, 0.5)),
            _ms(percentile(ages, 0.99)),
            str(camera.detections),
            str(camera.errors),
            _drops(_missing(camera)),
        )
    return Group(table, Text(_engine_line(cameras)))


def plain_line(cameras: list[Camera], rates: list[Rates], elapsed_s: float) -> str:
    """Return one line about all cameras."""
    ages = sorted(age for camera in cameras for age in camera.ages_ms[-RECENT:])
    drops: Counter[str] = Counter()
    for camera in cameras:
        drops.update(_missing(camera))
    offered, results = sum(rate.offered for rate in rates), sum(rate.results for rate in rates)
    return (
        f"{elapsed_s:5.1f} s: {offered:.0f} frames/s in, {results:.0f} results/s, "
        f"age p50 {_ms(percentile(ages, 0.5))} p99 {_ms(percentile(ages, 0.99))} ms, "
        f"drops {_drops(drops)}; {_engine_line(cameras)}"
    )


def _missing(camera: Camera) -> Counter[str]:
    """Frames without a result, by reason; those replaced before they were sent among them."""
    missing = Counter(camera.drops)
    if camera.stream is not None and (replaced := camera.stream.account.replaced):
        missing["replaced here"] = replaced
    return missing


def _drops(drops: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(drops.items())) or "0"


def _engine_line(cameras: list[Camera]) -> str:
    sizes = ", ".join(f"{count} of {size}" for size, count in batch_sizes(cameras).items()) or "none yet"
    executed = sorted(value for camera in cameras for value in camera.executed_ms[-RECENT:])
    waited = sorted(value for camera in cameras for value in camera.waited_ms[-RECENT:])
    return (
        f"batches: {sizes}; engine p50 {_ms(percentile(executed, 0.5))} ms; "
        f"waiting p50 {_ms(percentile(waited, 0.5))} p99 {_ms(percentile(waited, 0.99))} ms"
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"

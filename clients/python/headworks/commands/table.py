"""The live table of `headworks stream`, drawn with rich from the tallies of `TableShow`. Only in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headworks.commands.show import CameraTally, TableShow
from headworks.commands.worker import CameraWorker

REFRESH_S = 0.5


def show_until(done: Callable[[float], bool], show: TableShow) -> None:
    """Draw the table twice a second until `done(seconds)`, which waits that long, says so."""
    counts = dict.fromkeys(show.tallies, (0, 0))
    last_s = time.monotonic()
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            finished = done(REFRESH_S)
            now_s = time.monotonic()
            table = _empty_table()
            for camera, tally in show.tallies.items():
                before = counts[camera]
                now = counts[camera] = (camera.offered, tally.results)
                rates = [(a - b) / max(now_s - last_s, 1e-9) for a, b in zip(now, before, strict=True)]
                table.add_row(*_row(camera, tally, rates))
            last_s = now_s
            live.update(table, refresh=True)
            if finished:
                return


def _empty_table() -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for title in (
        "camera",
        "state",
        "frames/s",
        "results/s",
        "age p50",
        "p99 ms",
        "dropped",
        "errors",
        "lost",
        "last result",
    ):
        text = title in ("camera", "state", "last result")
        table.add_column(title, justify="left" if text else "right", overflow="ellipsis", no_wrap=True)
    return table


def _row(camera: CameraWorker, tally: CameraTally, rates: list[float]) -> list[str | Text]:
    ages = [tally.age_ms(share) for share in (0.5, 0.99)]
    state = tally.state if camera.failure is None else str(camera.failure)
    if camera.failure is None and camera.wait(0):
        state = "ended"
    return [
        camera.title,
        Text(state, style="green" if state == "streaming" else "yellow" if camera.failure is None else "red"),
        *(f"{rate:.1f}" for rate in rates),
        *("" if age is None else f"{age:.0f}" for age in ages),
        str(tally.dropped),
        str(tally.errors),
        str(tally.lost),
        tally.last,
    ]
